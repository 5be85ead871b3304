"""`export_model`: a trained detector to a file for ONNX Runtime or OpenVINO that has proved itself first."""

from __future__ import annotations

import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from copy import deepcopy
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from torch import Tensor

from fssd.atomic import atomic_path
from fssd.data.sample import DataSet
from fssd.errors import ConfigError, ExportError
from fssd.evaluation.evaluate import evaluate_detections
from fssd.export.facts import portable
from fssd.export.graph import as_openvino, trace
from fssd.export.parity import Parity
from fssd.export.quantise import quantise_onnx, quantise_openvino
from fssd.export.tail import append_nms
from fssd.export.verify import check
from fssd.inference.detector import Detector
from fssd.runtimes.header import KEY, Thresholds, write_header
from fssd.runtimes.onnx import open_onnx
from fssd.runtimes.openvino import open_openvino
from fssd.runtimes.packages import require, require_openvino
from fssd.runtimes.runner import FileRunner

if TYPE_CHECKING:
    import onnx

Target = Literal["onnx", "openvino"]
SUFFIXES: dict[str, str] = {"onnx": ".onnx", "openvino": ".xml", "safetensors": ".safetensors"}
DROP = 0.01  # of mAP; what eight bits may cost


@dataclass(frozen=True)
class Trial:
    """What quantisation needs.

    images: to see ranges on, (N, 3, S, S) uint8 RGB. measured: labelled ones to compare mAP on.
    """

    images: Tensor
    measured: DataSet


@dataclass(frozen=True)
class Exported:
    """What was found before the file was written.

    parity: against PyTorch; None for int8. maps: mAP (VOC 2012) of PyTorch and of the int8 file, else None.
    """

    parity: Parity | None = None
    maps: tuple[float, float] | None = None


def export_model(
    detector: Detector,
    out: Path | str,
    to: Target,
    *,
    nms: Thresholds | None = None,
    images: Tensor | None = None,
    trial: Trial | None = None,
    allow_drop: bool = False,
) -> Exported:
    """Write `out` (and, for OpenVINO, the .bin beside it) if the file in its runtime does what PyTorch does.

    nms: put NMS with these settings into the graph; None ends it in raw predictions. images: (N, 3, S, S)
    uint8 RGB to compare on; made ones are added if they are few. trial: quantise to eight bits, which is
    judged by mAP alone. allow_drop: write an int8 file whatever its mAP.

    Raises ExportError if the file fails, ConfigError for a suffix or a missing package; `out` then stays as
    it was.
    """
    out = Path(out)
    check_suffix(out, to)
    network = deepcopy(detector.network).to("cpu")  # where the other runtimes run
    model = trace(network)
    if to == "onnx" and trial is not None:
        with tempfile.TemporaryDirectory() as folder:
            model = quantise_onnx(model, trial.images, folder)
    if nms is not None:
        model = append_nms(model, network, nms)
    precision = "fp32" if trial is None else "int8"
    header = write_header(network, detector.classes, portable(detector.facts), nms, precision)
    write = _onnx_file if to == "onnx" else _openvino_files
    with write(model, header, out, trial) as runner:
        if trial is None:
            return Exported(parity=check(network, runner, nms, images))
        return Exported(maps=_measure(detector, runner, trial.measured, allow_drop))


def check_suffix(out: Path, to: str) -> None:
    """Raise ConfigError if the name of a file does not end as its runtime wants it."""
    if out.suffix != SUFFIXES[to]:
        raise ConfigError(f"{out}: a file for {to} ends in {SUFFIXES[to]}; rename it")


@contextmanager
def _onnx_file(model: onnx.ModelProto, header: str, out: Path, _: Trial | None) -> Iterator[FileRunner]:
    """The file in a temporary place, opened; it gets its name when the block ends well."""
    tools = require("onnx", "export")
    del model.metadata_props[:]
    tools.helper.set_model_props(model, {KEY: header})
    with atomic_path(out) as temporary:
        tools.save(model, temporary)
        session, read = open_onnx(temporary, "cpu", None)
        yield FileRunner(session, read)


@contextmanager
def _openvino_files(
    model: onnx.ModelProto, header: str, out: Path, trial: Trial | None
) -> Iterator[FileRunner]:
    """The same for .xml and .bin. The .bin is in its place before the .xml: who sees the .xml has both."""
    openvino = require_openvino()
    graph = as_openvino(model)
    if trial is not None:
        graph = quantise_openvino(graph, trial.images)
    graph.set_rt_info(header, [KEY])
    with atomic_path(out) as xml, atomic_path(out.with_suffix(".bin")) as weights:
        beside = xml.with_suffix(".bin")  # OpenVINO chooses this name
        try:
            openvino.save_model(graph, xml, compress_to_fp16=False)
            beside.replace(weights)
        finally:
            beside.unlink(missing_ok=True)
        session, read = open_openvino(xml, "cpu", None, weights)
        yield FileRunner(session, read)
        out.resolve().unlink(missing_ok=True)  # an older .xml must not be read with the new .bin


def _measure(
    detector: Detector, runner: FileRunner, dataset: DataSet, allow_drop: bool
) -> tuple[float, float]:
    """mAP in PyTorch and quantised; raises ExportError if it drops too much."""
    quantised = Detector(runner, detector.classes)
    settings = {} if runner.thresholds is None else vars(runner.thresholds)  # what a file has built in
    before, after = (_map(one, dataset, settings) for one in (detector, quantised))
    if not allow_drop and before - after > DROP:
        raise ExportError(
            f"eight bits cost {100 * (before - after):.1f} points of mAP ({100 * before:.1f} to"
            f" {100 * after:.1f}), more than 1, so nothing was written; calibrate with more images of the"
            " kind the detector will see, or accept it with --allow-drop"
        )
    return before, after


def _map(detector: Detector, dataset: DataSet, settings: dict[str, Any]) -> float:
    return evaluate_detections(dataset, list(detector.evaluate_on(dataset, **settings)), "voc12").map

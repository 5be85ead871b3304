"""`export_model`: a trained detector to a file for another runtime that has proved itself first."""

from __future__ import annotations

import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from copy import deepcopy
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from torch import Tensor

from fssd.atomic import atomic_path
from fssd.data.sample import DataSet
from fssd.errors import ConfigError, ExportError
from fssd.evaluation.evaluate import evaluate_detections
from fssd.export.facts import portable
from fssd.export.graph import OPSET, trace
from fssd.export.parity import Parity
from fssd.export.verify import check
from fssd.heads.head import Thresholds
from fssd.inference.detector import Detector
from fssd.runtimes.header import write_header
from fssd.runtimes.runner import FileRunner
from fssd.runtimes.runtime import Runtime
from fssd.runtimes.table import find_runtime

DROP = 0.01  # of mAP; what eight bits may cost


@dataclass(frozen=True)
class Trial:
    """What quantisation needs.

    images: to see ranges on, (N, 3, H, W) uint8 RGB. measured: labelled ones to compare mAP on.
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
    to: str,
    *,
    nms: Thresholds | None = None,
    images: Tensor | None = None,
    trial: Trial | None = None,
    allow_drop: bool = False,
) -> Exported:
    """Write `out` (and what belongs beside it) if the file in its runtime does what PyTorch does.

    to: name of a runtime, "onnx" or "openvino". nms: put NMS with these settings into the graph; None ends it
    in raw predictions. images: (N, 3, H, W) uint8 RGB to compare on; made ones are added if they are few.
    trial: quantise to eight bits, which is judged by mAP alone. allow_drop: write an int8 file whatever its
    mAP.

    Raises ExportError if the file fails, ConfigError for a suffix or a missing package; `out` then stays as
    it was.
    """
    out = Path(out)
    runtime = find_runtime(to)
    check_suffix(out, runtime.suffix)
    network = deepcopy(detector.network).to("cpu")  # where the other runtimes run
    with _finished(out, runtime) as file:
        write_unchecked(detector, file, runtime, nms=nms, calibration=None if trial is None else trial.images)
        runner = FileRunner(*runtime.open(file, "cpu", None))
        if trial is None:
            return Exported(parity=check(network, runner, nms, images))
        return Exported(maps=_measure(detector, runner, trial.measured, allow_drop))


def write_unchecked(
    detector: Detector,
    file: Path,
    runtime: Runtime,
    *,
    nms: Thresholds | None = None,
    calibration: Tensor | None = None,
) -> None:
    """Write a file of a runtime without comparing it with PyTorch. Raises ConfigError for a missing package.

    calibration: (N, 3, H, W) uint8 RGB; with it the file is in eight bits.
    """
    network = deepcopy(detector.network).to("cpu")
    graph = trace(network)
    tail = None if nms is None else network.heads.nms_graph(nms, OPSET, graph.ir_version)
    precision = "fp32" if calibration is None else "int8"
    header = write_header(network, detector.classes, portable(detector.facts), nms, precision)
    runtime.write(graph, tail, header, file, calibration)


def check_suffix(out: Path, suffix: str) -> None:
    """Raise ConfigError if the name of a file does not end as what reads it wants."""
    if out.suffix != suffix:
        raise ConfigError(f"{out}: such a file ends in {suffix}; rename it")


@contextmanager
def _finished(out: Path, runtime: Runtime) -> Iterator[Path]:
    """A path to write to in a temporary folder; the files there take their places when the block ends well.

    What belongs beside the file comes first: whoever sees the file has all of it.
    """
    with tempfile.TemporaryDirectory(prefix=".tmp-", dir=out.resolve().parent) as folder:
        file = Path(folder) / out.name
        yield file
        if runtime.beside:
            out.resolve().unlink(missing_ok=True)  # an old file must not be read with new ones beside it
        for suffix in (*runtime.beside, runtime.suffix):
            with atomic_path(out.with_suffix(suffix)) as temporary:
                file.with_suffix(suffix).replace(temporary)


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

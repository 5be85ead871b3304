"""`export_model`: writes a trained detector as a file for another runtime, after testing it there."""

from __future__ import annotations

import tempfile
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from copy import deepcopy
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from torch import Tensor

from fssd.atomic import replace_together, temporary_prefix
from fssd.config.bounds import Opset, check_number
from fssd.config.train_config import LOCAL
from fssd.data.sample import DataSet
from fssd.errors import ConfigError, ExportError
from fssd.evaluation.evaluate import evaluate_detections
from fssd.export.companions import place_of, require_own_beside
from fssd.export.graph import OPSET, in_half, lowered, trace
from fssd.export.opencv_check import OpenCvSession
from fssd.export.parity import HALVED, ROUNDING, Parity, Tolerance, check
from fssd.export.trial import Trial
from fssd.heads.head import Thresholds
from fssd.inference.detector import Detector
from fssd.runtimes.choose import find_runtime
from fssd.runtimes.header import NMS_OUTPUTS, write_header
from fssd.runtimes.packages import require_all
from fssd.runtimes.runner import FileRunner
from fssd.runtimes.runtime import Runtime

DROP = 0.01  # of mAP; the most that eight bits may cost


@dataclass(frozen=True)
class Exported:
    """Results of the tests. One of parity and maps is set.

    parity: with PyTorch, for fp32 and fp16. opencv: that of OpenCV with PyTorch, if asked for. maps: mAP (VOC
    2012) of PyTorch and of the int8 file, over the classes that the detector knows.
    """

    parity: Parity | None = None
    maps: tuple[float, float] | None = None
    opencv: Parity | None = None


def export_model(
    detector: Detector,
    out: Path | str,
    to: str,
    *,
    nms: Thresholds | None = None,
    images: Tensor | None = None,
    trial: Trial | None = None,
    allow_drop: bool = False,
    opset: int = OPSET,
    fp16: bool = False,
    opencv: bool = False,
) -> Exported:
    """Write `out` (and the files beside it) if it gives the same detections in its runtime as PyTorch.

    to: name of a runtime: "onnx", "openvino", "ncnn", "tensorrt". nms: include NMS with these thresholds;
    None ends the graph in raw predictions. images: (N, 3, H, W) uint8 RGB to compare on; synthetic ones are
    added to a small number. trial: quantise to eight bits; then only mAP is compared. allow_drop: accept any
    loss of mAP. opset: of ONNX, 17 to 21. fp16: weights and arithmetic of the network in half precision,
    which may move boxes by 0.5 px of the input and scores by 0.01, see `HALVED`. opencv: of ONNX, let OpenCV
    agree as well. Raises ExportError if the file fails or the trial has too few images, ConfigError for a
    suffix, a missing package, or a file beside `out` not of an earlier export. `out` then stays as it was.
    Through a symbolic link all files are written beside the file that it points to, under that one's name.
    """
    out = Path(out)
    runtime = find_runtime(to)
    check_suffix(out, runtime.suffix)
    require_own_beside(out, runtime.beside)
    place = place_of(out)
    if runtime.beside:
        check_suffix(place, runtime.suffix)
    if opencv and (to != "onnx" or trial is not None):
        raise ConfigError("OpenCV checks ONNX files in floating point alone; leave opencv out")
    runtime.refuse(nms=nms is not None, eight_bits=trial is not None, fp16=fp16)
    require_all(runtime.needs(eight_bits=trial is not None))
    if trial is not None:
        trial.check(detector.classes)
    on_cpu = Detector(deepcopy(detector.network).to("cpu"), detector.classes, detector.facts)
    with _finished(place, runtime) as file:
        calibration = None if trial is None else trial.images
        write_unchecked(on_cpu, file, runtime, nms=nms, calibration=calibration, opset=opset, fp16=fp16)
        runner = runtime.open(file, "cpu", None)
        if trial is None:
            tolerance = HALVED if fp16 else ROUNDING
            parity = check(on_cpu.network, runner, nms, images, tolerance)
            other = _in_opencv(file, on_cpu, runner, nms, images, tolerance) if opencv else None
            return Exported(parity=parity, opencv=other)
        return Exported(maps=_measure(detector, runner, trial, allow_drop))


def _in_opencv(
    file: Path,
    detector: Detector,
    runner: FileRunner,
    nms: Thresholds | None,
    images: Tensor | None,
    tolerance: Tolerance,
) -> Parity:
    outputs = detector.network.heads.outputs if nms is None else tuple(NMS_OUTPUTS)
    other = FileRunner(OpenCvSession(file, outputs), runner.header)
    return check(detector.network, other, nms, images, tolerance)


def write_unchecked(
    detector: Detector,
    file: Path,
    runtime: Runtime,
    *,
    nms: Thresholds | None = None,
    calibration: Tensor | None = None,
    opset: int = OPSET,
    fp16: bool = False,
) -> None:
    """Write a file of a runtime without testing it. Raises ConfigError for a missing package or an opset.

    detector: a network on the CPU. calibration: (N, 3, H, W) uint8 RGB; with it the file is in eight bits.
    """
    network = detector.network
    check_number("opset", opset, Opset)
    graph = trace(network, max(opset, OPSET))
    if fp16:
        graph = in_half(graph)
    tail = None if nms is None else network.heads.nms_graph(nms, max(opset, OPSET), graph.ir_version)
    if opset < OPSET:
        graph, tail = lowered(graph), None if tail is None else lowered(tail)
    precision = "int8" if calibration is not None else "fp16" if fp16 else "fp32"
    header = write_header(network, detector.classes, portable(detector.facts), nms, precision)
    runtime.write(graph, tail, header, file, calibration)


def portable(facts: Mapping[str, Any]) -> dict[str, Any]:
    """The facts of a model file without the paths on the machine of the training."""
    config = facts.get("config")
    if not isinstance(config, Mapping):
        return dict(facts)
    return {**facts, "config": {key: value for key, value in config.items() if key not in LOCAL}}


def check_suffix(out: Path, suffix: str) -> None:
    """Raise ConfigError if the file's name does not end in `suffix`."""
    if out.suffix != suffix:
        raise ConfigError(f"{out}: such a file ends in {suffix}; rename it")


@contextmanager
def _finished(out: Path, runtime: Runtime) -> Iterator[Path]:
    """A path in a temporary folder, whose files are moved to `out` if the block ends without an error.

    The files beside it are moved first, so that whoever sees the file has all of it. Where there is an older
    one they are moved last: the new file knows that older ones do not fit, one of version 0.1 does not.
    """
    with tempfile.TemporaryDirectory(prefix=temporary_prefix(), dir=out.parent) as folder:
        file = Path(folder) / f"{out.stem}{runtime.suffix}"
        yield file
        moves = [(file.with_suffix(suffix), out.with_suffix(suffix)) for suffix in runtime.beside]
        moves.append((file, out))
        replace_together(dict(reversed(moves) if out.exists() else moves))


def _measure(detector: Detector, runner: FileRunner, trial: Trial, allow_drop: bool) -> tuple[float, float]:
    """mAP in PyTorch and quantised. Raises ExportError if too much is lost."""
    settings = {} if runner.thresholds is None else vars(runner.thresholds)  # those built into the file
    quantised = Detector(runner, detector.classes, tiles=detector.tiles or "none")
    before = _map(detector, trial.measured, settings)
    if not allow_drop:
        trial.check_accuracy(before)
    after = _map(quantised, trial.measured, settings)
    if not allow_drop and before - after > DROP:
        raise ExportError(
            f"eight bits cost {100 * (before - after):.1f} points of mAP ({100 * before:.1f} to"
            f" {100 * after:.1f}), more than 1, so nothing was written; calibrate with other images of the"
            " kind the detector will see, export it as float, or accept the loss with --allow-drop"
        )
    return before, after


def _map(detector: Detector, dataset: DataSet, settings: dict[str, Any]) -> float:
    return evaluate_detections(dataset, list(detector.evaluate_on(dataset, **settings)), "voc12").known_map

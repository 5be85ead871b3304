"""What is measured: a model file, or a network by its name, in a runtime."""

from __future__ import annotations

from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Literal, get_args

import torch

from fssd.data.class_names import VOC
from fssd.errors import CheckpointError, ConfigError, nearest
from fssd.export.images import make_pictures
from fssd.export.write import write_unchecked
from fssd.inference.detector import Detector, pick_device
from fssd.model.build import build_model
from fssd.model.cost import multiply_adds
from fssd.model.designs import DESIGNS, find_design
from fssd.runtimes.choose import RUNTIMES, runtime_of
from fssd.runtimes.cuda import CudaRunner
from fssd.runtimes.packages import require_all
from fssd.zoo.models import MODELS, find_model, is_published

Precision = Literal["fp32", "bf16", "int8"]
AnyPrecision = Literal[Precision, "fp16"]  # a file can have been exported in half precision

CPU = torch.device("cpu")
TORCH, CUDA = "torch", "cuda"  # two ways to run a network of PyTorch, beside the exported RUNTIMES
CALIBRATION = 16  # synthetic images for int8; the calibrated ranges do not affect the speed


@dataclass(frozen=True)
class Subject:
    """A detector to be timed.

    name: as the user gave it. random: whether its weights are random. multiply_adds: for one image; None if
    they cannot be counted. device: of the network. threads: one per core if None.
    """

    name: str
    detector: Detector
    runtime: str
    precision: AnyPrecision
    random: bool
    multiply_adds: int | None
    device: torch.device
    threads: int | None


def open_subject(
    model: str,
    folder: Path,
    *,
    runtime: str | None = None,
    precision: Precision = "fp32",
    device: str = "auto",
    threads: int | None = None,
) -> Subject:
    """Open a model for measurement.

    model: what `Detector.load` takes, or a name for `build_model`, which gets random weights and VOC's
    classes. folder: for a temporary export. runtime: that of the file if None. precision: "bf16" only in
    runtime cuda, "int8" only in onnx and openvino, calibrated with synthetic images.
    Raises CheckpointError for a file that cannot be read, ConfigError for choices that do not fit together.
    """
    file = _find(model)
    own = None if file is None else runtime_of(file)
    runtime = runtime or (own.name if own else TORCH)
    _check(model, own.name if own else None, runtime, precision)
    if file is not None and own is not None:
        detector = Detector.load(file, device=device, threads=threads)
        told = detector.facts.get("precision")
        kind: AnyPrecision = next((known for known in get_args(AnyPrecision) if known == told), "fp32")
        return Subject(model, detector, own.name, kind, False, own.multiply_adds(file), CPU, threads)
    used = CPU if runtime in RUNTIMES else pick_device(device)
    detector = _random(model, used) if file is None else Detector.load(file, device=str(used))
    count = multiply_adds(detector.network)
    if runtime == CUDA:
        dtype = torch.bfloat16 if precision == "bf16" else torch.float32
        detector = Detector(CudaRunner(detector.network, dtype), detector.classes, detector.facts)
    elif runtime != TORCH:
        exported = _export(detector, runtime, precision, folder)
        detector = Detector.load(exported, device=device, threads=threads)
    return Subject(model, detector, runtime, precision, file is None, count, used, threads)


def _find(model: str) -> Path | None:
    """The file or folder of a model; None for the name of a network. Raises CheckpointError."""
    if not Path(model).exists() and not is_published(Path(model)):
        with suppress(ConfigError):
            find_design(model, {})
            return None
    try:
        return find_model(Path(model))
    except CheckpointError as error:
        if model in MODELS or is_published(Path(model)):
            raise
        raise CheckpointError(
            f"{model}: is no model file, packaged model or network{nearest(model, [*MODELS, *DESIGNS])}"
        ) from error


def _check(model: str, own: str | None, runtime: str, precision: Precision) -> None:
    """Raise ConfigError for choices that do not fit together. own: the runtime of an exported file."""
    known = (TORCH, CUDA, *RUNTIMES)
    if runtime not in known:
        raise ConfigError(f"there is no runtime {runtime!r}{nearest(runtime, known)}")
    if own is not None and runtime != own:
        raise ConfigError(f"{model}: is a file for {own}; for {runtime} name the original model")
    if own is not None and precision != "fp32":
        raise ConfigError(f"{model}: is exported already; for {precision} name the original model")
    if precision == "bf16" and runtime != CUDA:
        raise ConfigError("bf16 is for --runtime cuda; choose that, or fp32")
    eight_bits = [name for name, one in RUNTIMES.items() if "eight_bits" in one.can]
    if precision == "int8" and runtime not in eight_bits:
        raise ConfigError(f"int8 is for --runtime {' or '.join(eight_bits)}; choose one of them")
    if runtime == CUDA and not torch.cuda.is_available():
        raise ConfigError("there is no CUDA device here; choose --runtime torch, onnx or openvino")
    if own is None and runtime in RUNTIMES:
        require_all(RUNTIMES[runtime].needs(eight_bits=precision == "int8"))


def _export(detector: Detector, to: str, precision: Precision, folder: Path) -> Path:
    """The detector as a file for another runtime; it is only timed, so its results are not checked."""
    file = folder / f"{detector.network.spec.name}-{precision}{RUNTIMES[to].suffix}"
    calibration = make_pictures(CALIBRATION, detector.image_size) if precision == "int8" else None
    write_unchecked(detector, file, RUNTIMES[to], calibration=calibration)
    return file


def _random(name: str, device: torch.device) -> Detector:
    with torch.random.fork_rng(devices=[]):
        torch.default_generator.manual_seed(0)
        return Detector(build_model(name, len(VOC)).to(device), VOC)

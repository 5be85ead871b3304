"""What is measured: a model file or the name of a network, in a runtime."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import torch

from fssd.data.class_names import VOC
from fssd.errors import CheckpointError, ConfigError, nearest
from fssd.export.images import make_pictures
from fssd.export.write import write_unchecked
from fssd.inference.detector import Detector, pick_device
from fssd.model.build import build_model
from fssd.model.cost import multiply_adds
from fssd.model.designs import DESIGNS, find_design
from fssd.runtimes.cuda import CudaRunner
from fssd.runtimes.table import RUNTIMES, runtime_of
from fssd.zoo.models import MODELS, find_model

Precision = Literal["fp32", "bf16", "int8"]

CPU = torch.device("cpu")
TORCH, CUDA = "torch", "cuda"  # what runs a network of PyTorch
SHOWN = 16  # made pictures that eight bits take their ranges from; for speed alone any will do


@dataclass(frozen=True)
class Subject:
    """A detector to be timed.

    name: as the user called it. random: whether its weights are fresh ones. multiply_adds: of one image; None
    if they cannot be counted. device: of the network. threads: None for one a core.
    """

    name: str
    detector: Detector
    runtime: str
    precision: Precision
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

    model: what `Detector.load` takes, or a name of `build_model`, which gets random weights and VOC's
    classes. folder: for a temporary export. runtime: None for that of the file. precision: "bf16" in runtime
    cuda alone, "int8" in onnx and openvino, with ranges of made pictures.
    Raises CheckpointError for a file that cannot be read, ConfigError for choices that do not fit together.
    """
    random = _is_design(model) and not Path(model).exists()
    file = None if random else _find(model)
    own = None if file is None else runtime_of(file)
    runtime = runtime or (own.name if own else TORCH)
    _check(model, own.name if own else None, runtime, precision)
    if file is not None and own is not None:
        detector = Detector.load(file, device=device, threads=threads)
        kind: Precision = "int8" if detector.facts.get("precision") == "int8" else "fp32"
        return Subject(model, detector, own.name, kind, False, own.multiply_adds(file), CPU, threads)
    used = pick_device(device) if runtime in (TORCH, CUDA) else CPU
    detector = Detector.load(file, device=str(used)) if file is not None else _random(model, used)
    if runtime in RUNTIMES:
        exported = _export(detector, runtime, precision, folder)
        count = RUNTIMES[runtime].multiply_adds(exported)
        detector = Detector.load(exported, device=device, threads=threads)
        return Subject(model, detector, runtime, precision, random, count, used, threads)
    count = multiply_adds(detector.network)
    if runtime == CUDA:
        dtype = torch.bfloat16 if precision == "bf16" else torch.float32
        detector = Detector(CudaRunner(detector.network, dtype), detector.classes, detector.facts)
    return Subject(model, detector, runtime, precision, random, count, used, threads)


def _is_design(name: str) -> bool:
    try:
        find_design(name, {})
    except ConfigError:
        return False
    return True


def _export(detector: Detector, to: str, precision: Precision, folder: Path) -> Path:
    """The detector as a file for another runtime, for its speed alone: written without checks."""
    runtime = RUNTIMES[to]
    file = folder / f"{detector.network.spec.name}-{precision}{runtime.suffix}"
    shown = make_pictures(SHOWN, detector.image_size) if precision == "int8" else None
    write_unchecked(detector, file, runtime, calibration=shown)
    return file


def _find(model: str) -> Path:
    """The file or folder that a model's name stands for. Raises CheckpointError."""
    try:
        return find_model(Path(model))
    except CheckpointError as error:
        if model in MODELS:
            raise
        raise CheckpointError(
            f"{model}: is no model file, packaged model or network{nearest(model, [*MODELS, *DESIGNS])}"
        ) from error


def _check(model: str, own: str | None, runtime: str, precision: Precision) -> None:
    known = (TORCH, CUDA, *RUNTIMES)
    if runtime not in known:
        raise ConfigError(f"there is no runtime {runtime!r}{nearest(runtime, known)}")
    if own is not None and runtime != own:
        raise ConfigError(f"{model}: is a file for {own}; for {runtime} name the model it was exported from")
    if own is not None and precision != "fp32":
        raise ConfigError(
            f"{model}: is exported already; for {precision} name the model it was exported from"
        )
    if precision == "bf16" and runtime != CUDA:
        raise ConfigError("bf16 is for --runtime cuda; choose that, or fp32")
    if precision == "int8" and runtime not in RUNTIMES:
        raise ConfigError(f"int8 is for --runtime {' or '.join(RUNTIMES)}; choose one of them")
    if runtime == CUDA and not torch.cuda.is_available():
        raise ConfigError("there is no CUDA device here; choose --runtime torch, onnx or openvino")


def _random(name: str, device: torch.device) -> Detector:
    with torch.random.fork_rng(devices=[]):
        torch.default_generator.manual_seed(0)
        return Detector(build_model(name, len(VOC)).to(device), VOC)

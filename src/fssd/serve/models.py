"""Opening a model for serving, in the runtime that is asked for."""

from __future__ import annotations

from pathlib import Path
from typing import Literal

from fssd.detector import Detector
from fssd.errors import ConfigError
from fssd.runtimes.cores import usable_cores
from fssd.runtimes.runner import EXPORTED
from fssd.zoo.models import find_model

Runtime = Literal["auto", "torch", "onnx", "openvino"]
SUFFIXES: dict[str, Literal["onnx", "openvino"]] = {".onnx": "onnx", ".xml": "openvino"}


def runtime_of(model: Path, wanted: Runtime) -> Literal["torch", "onnx", "openvino"]:
    """The runtime for a model. Raises ConfigError if an exported file is asked to run in another one."""
    own = SUFFIXES.get(find_model(model).suffix)
    if own is None:
        return "torch" if wanted == "auto" else wanted
    if wanted not in ("auto", own):
        raise ConfigError(f"{model}: is for {own} and cannot run in {wanted}; leave out --runtime")
    return own


def load_detectors(
    model: Path,
    runtime: Literal["torch", "onnx", "openvino"],
    workers: int,
    *,
    folder: Path,
    device: str = "auto",
    threads: int | None = None,
) -> list[Detector]:
    """Detectors for `workers` batches at a time.

    threads: of each, None to share the cores out. folder: where a model file that has to be exported for
    its runtime is written. A network of PyTorch can compute several batches at once, a session of the other
    runtimes one, so that each worker has its own.
    Raises CheckpointError, ConfigError, ExportError.
    """
    import torch

    threads = threads or max(1, usable_cores() // workers)
    # Beside another runtime torch only moves bytes; threads of its own would spin in the way of the others.
    torch.set_num_threads(threads if runtime == "torch" else 1)
    if runtime == "torch":
        return [Detector.load(model, device=device)] * workers
    if find_model(model).suffix not in EXPORTED:
        model = _export(model, runtime, folder)
    return [Detector.load(model, device=device, threads=threads) for _ in range(workers)]


def _export(model: Path, runtime: Literal["onnx", "openvino"], folder: Path) -> Path:
    from fssd.export.write import SUFFIXES as ENDINGS
    from fssd.export.write import export_model

    file = folder / f"model{ENDINGS[runtime]}"
    export_model(Detector.load(model, device="cpu"), file, runtime)
    return file

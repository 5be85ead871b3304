"""Opens a model for serving in the requested runtime."""

from __future__ import annotations

from pathlib import Path
from typing import Literal, NamedTuple

from fssd.errors import ConfigError
from fssd.inference.detector import Detector
from fssd.runtimes.runner import EXPORTED
from fssd.zoo.models import find_model

Runtime = Literal["torch", "onnx", "openvino"]
SUFFIXES: dict[str, Literal["onnx", "openvino"]] = {".onnx": "onnx", ".xml": "openvino"}
SIDE_BY_SIDE: dict[Runtime, int] = {"torch": 2, "onnx": 1, "openvino": 2}
"""Concurrent batches per core that gave the best throughput.

With two, one batch uses the cores while the other runs code on one thread. Two sessions of ONNX Runtime,
however, are slower side by side than one after the other.
"""


class Concurrency(NamedTuple):
    """workers: batches computed at the same time. threads: CPU threads for each batch."""

    workers: int
    threads: int


def runtime_of(model: Path, wanted: Runtime | Literal["auto"]) -> Runtime:
    """The runtime for a model. Raises ConfigError if an exported file is to run in another runtime."""
    own = SUFFIXES.get(find_model(model).suffix)
    if own is None:
        return "torch" if wanted == "auto" else wanted
    if wanted not in ("auto", own):
        raise ConfigError(f"{model}: is for {own} and cannot run in {wanted}; leave out --runtime")
    return own


def share_cores(runtime: Runtime, workers: int | None, threads: int | None, cores: int) -> Concurrency:
    """Fill in what is None: the runtime's best number of batches, and an equal share of the cores."""
    batches = SIDE_BY_SIDE[runtime]
    workers = batches if workers is None else workers
    return Concurrency(
        workers, max(1, min(cores, batches * cores // workers)) if threads is None else threads
    )


def load_detectors(
    model: Path, runtime: Runtime, share: Concurrency, *, folder: Path, device: str = "auto"
) -> list[Detector]:
    """A detector for each worker.

    folder: where a model is exported to if its runtime needs it. A PyTorch network can compute several
    batches at once, so the workers share one detector; a session of the other runtimes computes one, so each
    worker has its own. Raises CheckpointError, ConfigError, ExportError.
    """
    import torch

    # With another runtime torch only moves bytes; more threads would spin and slow down that runtime.
    torch.set_num_threads(share.threads if runtime == "torch" else 1)
    if runtime == "torch":
        return [Detector.load(model, device=device)] * share.workers
    if find_model(model).suffix not in EXPORTED:
        model = _export(model, runtime, folder)
    return [Detector.load(model, device=device, threads=share.threads) for _ in range(share.workers)]


def _export(model: Path, runtime: Literal["onnx", "openvino"], folder: Path) -> Path:
    from fssd.export.write import SUFFIXES as ENDINGS
    from fssd.export.write import export_model

    file = folder / f"model{ENDINGS[runtime]}"
    export_model(Detector.load(model, device="cpu"), file, runtime)
    return file

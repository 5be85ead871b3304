"""Opening a model for serving, in the runtime that is asked for."""

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
"""How many batches had better compete for each core.

With two, one of them uses what the other leaves idle between the parts that many threads work on. Sessions of
ONNX Runtime, however, are slower side by side than one after the other.
"""


class Share(NamedTuple):
    """workers: batches computed at the same time. threads: CPU threads for each of them."""

    workers: int
    threads: int


def runtime_of(model: Path, wanted: Runtime | Literal["auto"]) -> Runtime:
    """The runtime for a model. Raises ConfigError if an exported file is asked to run in another one."""
    own = SUFFIXES.get(find_model(model).suffix)
    if own is None:
        return "torch" if wanted == "auto" else wanted
    if wanted not in ("auto", own):
        raise ConfigError(f"{model}: is for {own} and cannot run in {wanted}; leave out --runtime")
    return own


def share_cores(runtime: Runtime, workers: int | None, threads: int | None, cores: int) -> Share:
    """What is None filled in: as many batches as are good for the runtime, and the cores shared out."""
    batches = SIDE_BY_SIDE[runtime]
    workers = batches if workers is None else workers
    return Share(workers, max(1, min(cores, batches * cores // workers)) if threads is None else threads)


def load_detectors(
    model: Path, runtime: Runtime, share: Share, *, folder: Path, device: str = "auto"
) -> list[Detector]:
    """A detector for each worker.

    folder: where a model file that has to be exported for its runtime is written. A network of PyTorch can
    compute several batches at once, a session of the other runtimes one, so that each worker has its own.
    Raises CheckpointError, ConfigError, ExportError.
    """
    import torch

    # Beside another runtime torch only moves bytes; threads of its own would spin in the way of the others.
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

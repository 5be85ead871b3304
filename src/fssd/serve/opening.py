"""Opens a model for serving in the requested runtime."""

from pathlib import Path
from typing import NamedTuple

from fssd.errors import ConfigError, nearest
from fssd.inference.detector import Detector
from fssd.runtimes.choose import RUNTIMES, runtime_of
from fssd.zoo.models import find_model

SERVER_PACKAGES = ("fastapi", "uvicorn", "python_multipart", "prometheus_client")
TORCH = "torch"
TORCH_SIDE_BY_SIDE = 2  # see `Runtime.side_by_side`; one uses the cores while the other runs one thread


class Concurrency(NamedTuple):
    """workers: batches computed at the same time. threads: CPU threads for each batch."""

    workers: int
    threads: int


def serving_runtime(model: Path, wanted: str) -> str:
    """The name of the runtime for a model. wanted: that, or "auto".

    Raises ConfigError for an unknown runtime, or if an exported file is to run in another one.
    """
    known = ("auto", TORCH, *RUNTIMES)
    if wanted not in known:
        raise ConfigError(f"there is no runtime {wanted!r}{nearest(wanted, known)}")
    own = runtime_of(find_model(model))
    if own is None:
        return TORCH if wanted == "auto" else wanted
    if wanted not in ("auto", own.name):
        raise ConfigError(f"{model}: is for {own.name} and cannot run in {wanted}; leave out --runtime")
    return own.name


def needed_packages(model: Path, runtime: str) -> dict[str, tuple[str, ...]]:
    """The packages that a server of this model needs, by extra, with those that export it for its runtime."""
    exports = runtime != TORCH and runtime_of(find_model(model)) is None
    return {**(RUNTIMES[runtime].needs(False) if exports else {}), "serve": SERVER_PACKAGES}


def share_cores(runtime: str, workers: int | None, threads: int | None, cores: int) -> Concurrency:
    """Fill in what is None: the runtime's best number of batches, and an equal share of the cores."""
    batches = TORCH_SIDE_BY_SIDE if runtime == TORCH else RUNTIMES[runtime].side_by_side
    workers = batches if workers is None else workers
    if threads is None:
        threads = max(1, min(cores, batches * cores // workers))
    return Concurrency(workers, threads)


def load_detectors(
    model: Path, runtime: str, share: Concurrency, *, folder: Path, device: str = "auto"
) -> list[Detector]:
    """A detector for each worker; with PyTorch all share one, whose network computes several batches at once.

    folder: where a model is exported to if its runtime needs it. Raises CheckpointError, ConfigError,
    ExportError.
    """
    import torch

    # With another runtime torch only moves bytes; more threads would spin and slow down that runtime.
    torch.set_num_threads(share.threads if runtime == TORCH else 1)
    if runtime == TORCH:
        return [Detector.load(model, device=device)] * share.workers
    if runtime_of(find_model(model)) is None:
        from fssd.export.write import export_model

        exported = folder / f"model{RUNTIMES[runtime].suffix}"
        export_model(Detector.load(model, device="cpu"), exported, runtime)
        model = exported
    return [Detector.load(model, device=device, threads=share.threads) for _ in range(share.workers)]

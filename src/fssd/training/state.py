"""The state of a training run on disk: everything the next iteration depends on, in one atomic file."""

from __future__ import annotations

from pathlib import Path
from typing import Any, NamedTuple

import torch
from torch import Tensor

from fssd.checkpoint import fill, read_tensors, write_tensors
from fssd.errors import CheckpointError
from fssd.model.network import Network
from fssd.training.ema import Average

STATE_FILE = "last.safetensors"


class Progress(NamedTuple):
    """iteration: updates done. best: highest mAP so far, None before the first evaluation."""

    iteration: int
    best: float | None


def save_state(
    path: Path,
    network: Network,
    optimizer: torch.optim.Optimizer,
    average: Average | None,
    scaler: dict[str, Any],
    progress: Progress,
    document: dict[str, Any],
) -> None:
    """Write network, momentum, average and counters to `path` in one step.

    No clock and no random state goes in: random choices are keyed by (seed, epoch, image), so equal
    runs write equal bytes.
    """
    tensors: dict[str, Tensor] = {f"model/{name}": t for name, t in network.state_dict().items()}
    for name, parameter in network.named_parameters():
        buffer = optimizer.state[parameter].get("momentum_buffer") if parameter in optimizer.state else None
        if buffer is not None:
            tensors[f"momentum/{name}"] = buffer
    if average is not None:
        tensors |= {f"average/{name}": t for name, t in average.tensors.items()}
    facts = {
        "kind": "training",
        "iteration": progress.iteration,
        "best": progress.best,
        "average_updates": average.updates if average is not None else 0,
        "scaler": scaler,
    }
    write_tensors(path, tensors, {**document, **facts})


def read_state(path: Path) -> tuple[dict[str, Tensor], dict[str, Any]]:
    """Tensors and document of a saved state. Raises CheckpointError."""
    tensors, document = read_tensors(path)
    if document.get("kind") != "training":
        raise CheckpointError(f"{path}: holds no training state; resume from a run's {STATE_FILE}")
    return tensors, document


def load_state(
    path: Path,
    tensors: dict[str, Tensor],
    document: dict[str, Any],
    network: Network,
    optimizer: torch.optim.Optimizer,
    average: Average | None,
) -> Progress:
    """Take up a state that `read_state` read from `path`. Raises CheckpointError if it does not fit."""
    fill(network, _below(tensors, "model/"), path)
    momentum = _below(tensors, "momentum/")
    for name, parameter in network.named_parameters():
        if name in momentum:
            optimizer.state[parameter]["momentum_buffer"] = _like(momentum[name], parameter)
    if average is not None:
        average.restore(_below(tensors, "average/"), document["average_updates"])
    return Progress(document["iteration"], document["best"])


def _below(tensors: dict[str, Tensor], prefix: str) -> dict[str, Tensor]:
    return {name[len(prefix) :]: t for name, t in tensors.items() if name.startswith(prefix)}


def _like(saved: Tensor, parameter: Tensor) -> Tensor:
    # The memory layout must be the parameter's own, or sums would run in another order than before.
    return torch.empty_like(parameter, memory_format=torch.preserve_format).copy_(saved)

"""The state of a training run on disk: everything the next iteration depends on, in one atomic file."""

from __future__ import annotations

import json
from collections.abc import Set
from pathlib import Path
from typing import Any, NamedTuple

import torch
from torch import Tensor

from fssd.config.run_files import STATE_FILE
from fssd.config.train_config import RESUME_MAY_CHANGE, TrainConfig, to_values
from fssd.errors import CheckpointError, ConfigError
from fssd.model.network import Network
from fssd.necks.fssd import NARROW
from fssd.training.ema import Average
from fssd.training.same_data import Content
from fssd.weights.checkpoint import below, fill, read_model, read_tensors, write_tensors

# What SGD and Adam keep of every parameter, and the prefix of its names in a file.
OPTIMIZER_STATE = {
    "momentum_buffer": "momentum",
    "exp_avg": "adam-mean",
    "exp_avg_sq": "adam-square",
    "step": "adam-step",
}


class Progress(NamedTuple):
    """iteration: updates done. best: highest mAP so far, None before the first evaluation.

    waited: evaluations since then. due: whether the evaluation after this update is still to be made.
    """

    iteration: int
    best: float | None
    waited: int = 0
    due: bool = False


def save_state(
    path: Path,
    network: Network,
    optimizer: torch.optim.Optimizer,
    average: Average | None,
    scaler: dict[str, Any],
    progress: Progress,
    content: Content,
    document: dict[str, Any],
) -> None:
    """Write network, optimizer, average, counters and what the run is trained on to `path` in one step.

    No clock and no random state goes in: random choices are keyed by (seed, epoch, image), so equal
    runs write equal bytes.
    """
    tensors: dict[str, Tensor] = {f"model/{name}": t for name, t in network.state_dict().items()}
    for name, parameter in network.named_parameters():
        kept = optimizer.state.get(parameter, {})
        for key, prefix in OPTIMIZER_STATE.items():
            if isinstance(kept.get(key), Tensor):
                tensors[f"{prefix}/{name}"] = kept[key]
    if average is not None:
        tensors |= {f"average/{name}": t for name, t in average.tensors.items()}
    tensors |= content.tensors()
    facts = {
        "kind": "training",
        "iteration": progress.iteration,
        "best": progress.best,
        "waited": progress.waited,
        "average_updates": average.updates if average is not None else 0,
        "scaler": scaler,
        **({"evaluation_due": True} if progress.due else {}),
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
    """Restore a state that `read_state` read from `path`. Raises CheckpointError if it does not fit."""
    fill(network, below(tensors, "model/"), path)
    for key, prefix in OPTIMIZER_STATE.items():
        kept = below(tensors, f"{prefix}/")
        for name, parameter in network.named_parameters():
            if name in kept:
                optimizer.state[parameter][key] = _restored(kept[name], parameter, optimizer)
    if average is not None:
        average.restore(below(tensors, "average/"), document["average_updates"])
    waited, due = document.get("waited", 0), document.get("evaluation_due", False)
    return Progress(document["iteration"], document["best"], waited, due)


def _restored(saved: Tensor, parameter: Tensor, optimizer: torch.optim.Optimizer) -> Tensor:
    if saved.ndim == 0 and parameter.ndim > 0:  # Adam counts its steps; on a CPU unless it is fused
        return saved.to(parameter.device) if optimizer.defaults["fused"] else saved.clone()
    # The memory layout must be the parameter's own, or sums would run in another order than before.
    return torch.empty_like(parameter, memory_format=torch.preserve_format).copy_(saved)


def check_same_settings(document: dict[str, Any], config: dict[str, Any], world: int, state: Path) -> None:
    """A resumed run has to be the same run. Raises ConfigError naming the first setting that differs."""
    is_global = config["global_batch"] is not None
    before = document["config"]
    if document["options"].get("variant") == config["options"].get("variant") == NARROW:
        # Version 0.1 had this form without a name for it.
        before = {**before, "options": {**before["options"], "variant": NARROW}}
    require_same(before, config, state, RESUME_MAY_CHANGE | ({"batch_size"} if is_global else set()))
    if document["world"] != world and not is_global:
        raise ConfigError(
            f"{state}: was made by {document['world']} processes, not {world}; resume with as many, and start"
            " the next run with --global-batch to be free to change their number"
        )


def require_same(
    before: dict[str, Any], now: dict[str, Any], run: Path, may_change: Set[str] = RESUME_MAY_CHANGE
) -> None:
    """Raise ConfigError naming the first setting that differs and is not in `may_change`."""
    # A setting that the earlier run did not know had the value that is now its default.
    before = json.loads(json.dumps({**to_values(TrainConfig()), **before}))
    now = json.loads(json.dumps(now))
    for key in sorted(set(before) | set(now)):
        if key not in may_change and before.get(key) != now.get(key):
            raise ConfigError(
                f"{run}: was made with {key} {before.get(key)!r}, not {now.get(key)!r};"
                " resume with the settings of the run or start another in a new --out"
            )


def require_same_form(model: Path, config: TrainConfig) -> None:
    """Raise ConfigError if `model` is of the light form of version 0.1 and `config` makes another network."""
    if config.start == "model" or config.options.get("variant") == NARROW:
        return
    if read_model(model)[1]["options"].get("variant") == NARROW:
        raise ConfigError(
            f"{model}: has the light form of version 0.1, and further runs would have another; finish with"
            f" the model option variant={NARROW}, or start another in a new --out"
        )


def check_same_classes(document: dict[str, Any], classes: tuple[str, ...], state: Path) -> None:
    """Raises ConfigError."""
    before, now = document["classes"], list(classes)
    if before != now:
        raise ConfigError(
            f"{state}: was made with the classes {before}, the data set has {now}; start a new run"
        )

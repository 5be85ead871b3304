"""Starting from a whole trained detector of the same network, with other classes or the same."""

from __future__ import annotations

from copy import deepcopy
from pathlib import Path

import torch
from torch import Tensor

from fssd.errors import CheckpointError
from fssd.model.network import Network
from fssd.weights.checkpoint import load_model


@torch.no_grad()
def load_detector(network: Network, classes: tuple[str, ...], file: Path) -> tuple[str, ...]:
    """Fill `network`, whose classes are `classes`, from a model file; return the classes both have.

    All layers but the last of the class predictors are copied whole; of those, the rows of the
    background and of classes of the same name, while other classes keep their fresh rows.

    Raises CheckpointError if the file holds another network.
    """
    backbone = deepcopy(network.backbone) if network.spec.own_backbone else None
    loaded = load_model(file, backbone)
    if loaded.network.spec.name != network.spec.name:
        raise CheckpointError(
            f"{file}: is a {loaded.network.spec.name}, not a {network.spec.name}; start from the same network"
        )
    given = loaded.network.state_dict()
    extra = sorted(set(given) - set(network.state_dict()))
    if extra:
        raise CheckpointError(
            f"{file}: has {extra[0]!r}, which the network lacks; give the same model options"
        )
    chosen = [(0, 0)]  # rows (here, there) of an anchor; the background is the first
    chosen += [
        (here, 1 + loaded.classes.index(name))
        for here, name in enumerate(classes, start=1)
        if name in loaded.classes
    ]
    last = {f"heads.{name}" for name in network.heads.class_layers()}
    for key, own in network.state_dict().items():
        if key not in given:
            raise CheckpointError(f"{file}: has no {key!r}; it was made with other model options")
        if key.rpartition(".")[0] in last:
            _copy_rows(own, given[key], len(classes) + 1, len(loaded.classes) + 1, chosen, f"{file}: {key!r}")
            continue
        if own.shape != given[key].shape:
            raise CheckpointError(
                f"{file}: {key!r} has shape {tuple(given[key].shape)}, the network needs {tuple(own.shape)}"
            )
        own.copy_(given[key])
    return tuple(classes[here - 1] for here, _ in chosen[1:])


def _copy_rows(
    own: Tensor, given: Tensor, here: int, there: int, chosen: list[tuple[int, int]], what: str
) -> None:
    """Copy rows `chosen` of each anchor; a weight or bias has anchors times classes of them."""
    to = own.view(-1, here, *own.shape[1:])
    source = given.view(-1, there, *given.shape[1:])
    if to.shape[0] != source.shape[0] or to.shape[2:] != source.shape[2:]:
        raise CheckpointError(f"{what} is for {source.shape[0]} priors a cell, not {to.shape[0]}")
    for row, taken in chosen:
        to[:, row] = source[:, taken]

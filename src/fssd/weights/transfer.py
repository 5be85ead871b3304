"""Starting from a whole trained detector of the same network, with the same or other classes."""

from __future__ import annotations

from collections.abc import Sequence
from copy import deepcopy
from pathlib import Path

import torch
from torch import Tensor

from fssd.errors import CheckpointError
from fssd.model.network import Network
from fssd.weights.checkpoint import check_shape, load_model


@torch.no_grad()
def load_detector(network: Network, classes: tuple[str, ...], file: Path) -> tuple[str, ...]:
    """Fill `network`, whose classes are `classes`, from a model file; return the classes that both have.

    Every layer is copied whole except the last ones of the class predictors. Of those, the rows of the common
    classes and what stands before all classes (the background) are copied; the other classes keep their fresh
    rows.
    Raises CheckpointError if the file holds another network.
    """
    loaded = load_model(file, deepcopy(network.backbone) if network.spec.own_backbone else None)
    if loaded.network.spec.name != network.spec.name:
        raise CheckpointError(
            f"{file}: is a {loaded.network.spec.name}, not a {network.spec.name}; start from the same network"
        )
    given = loaded.network.state_dict()
    extra = sorted(set(given) - set(network.state_dict()))
    if extra:
        raise CheckpointError(f"{file}: has {extra[0]!r}, which the network lacks; give the same options")
    common = [name for name in classes if name in loaded.classes]
    before = network.heads.before_classes
    if loaded.network.heads.before_classes != before:
        raise CheckpointError(
            f"{file}: its scores are made in another way (a softmax with background, or a sigmoid a class);"
            " give the conf_loss that it was trained with"
        )
    rows = rows_of([classes.index(name) for name in common], before)
    file_rows = rows_of([loaded.classes.index(name) for name in common], before)
    last = {f"heads.{name}" for name in network.heads.class_layers()}
    for key, own in network.state_dict().items():
        if key not in given:
            raise CheckpointError(f"{file}: has no {key!r}; it was made with other model options")
        if key.rpartition(".")[0] not in last or not own.ndim:
            check_shape(file, key, given[key], own)
            own.copy_(given[key])
            continue
        to = by_prior(own, before + len(classes))
        source = by_prior(given[key], before + len(loaded.classes))
        if len(to) != len(source) or to.shape[2:] != source.shape[2:]:
            raise CheckpointError(f"{file}: {key!r} is for {len(source)} priors per cell, not {len(to)}")
        to[:, rows] = source[:, file_rows]
    return tuple(common)


def rows_of(classes: Sequence[int], before: int) -> Tensor:
    """The outputs of classes (0-based) and those before all classes, see `Head.before_classes`."""
    return torch.tensor([*range(before), *(before + index for index in classes)], dtype=torch.int64)


def by_prior(tensor: Tensor, outputs: int) -> Tensor:
    """A tensor of a class predictor's last layers as a view (priors a cell, outputs of each, ...)."""
    return tensor.view(-1, outputs, *tensor.shape[1:])

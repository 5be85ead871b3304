"""Starting from a whole trained detector of the same network, with the same or other classes."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from copy import deepcopy
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch
from torch import Tensor

from fssd.errors import CheckpointError, ConfigError
from fssd.heads.head import Floats
from fssd.model.designs import find_design, same_but_size
from fssd.model.network import Network
from fssd.weights.checkpoint import check_shape, load_model

SHOWN = 6  # names of layers in a note
PRIOR_OPTIONS = ("priors", "prior_rule", "ratios", "truncate", "clip")


class TakenOver(NamedTuple):
    """What a network has of a model file.

    classes: those that both have. notes: a sentence for each thing that the weights mean otherwise here.
    """

    classes: tuple[str, ...]
    notes: tuple[str, ...]


@torch.no_grad()
def load_detector(network: Network, classes: tuple[str, ...], file: Path) -> TakenOver:
    """Fill `network`, whose classes are `classes`, from a model file.

    Every layer is copied whole except the last ones of the class predictors. Of those, the rows of the common
    classes and what stands before all classes (the background) are copied; the other classes keep their fresh
    rows. At another input size, levels that only one of the two has are left as they are, and so are layers
    that have another shape there. Raises CheckpointError if the file holds another network.
    """
    loaded = load_model(file, deepcopy(network.backbone) if network.spec.own_backbone else None)
    _check_alike(network, loaded.network, file)
    given, resized = loaded.network.state_dict(), _is_resized(network, loaded.network)
    extra = sorted(set(given) - set(network.state_dict()))
    if extra and not resized:
        raise CheckpointError(f"{file}: has {extra[0]!r}, which the network lacks; give the same options")
    common = [name for name in classes if name in loaded.classes]
    before = network.heads.before_classes
    rows = rows_of([classes.index(name) for name in common], before)
    file_rows = rows_of([loaded.classes.index(name) for name in common], before)
    last = {f"heads.{name}" for name in network.heads.class_layers()}
    fresh: list[str] = []
    for key, own in network.state_dict().items():
        if key not in given:
            if not resized:
                raise CheckpointError(f"{file}: has no {key!r}; it was made with other model options")
            continue
        try:
            if key.rpartition(".")[0] not in last or not own.ndim:
                check_shape(file, key, given[key], own)
                own.copy_(given[key])
                continue
            to = by_prior(own, before + len(classes))
            source = by_prior(given[key], before + len(loaded.classes))
            _check_priors(file, key, source, to)
            to[:, rows] = source[:, file_rows]
        except CheckpointError:
            if not resized:
                raise
            fresh.append(key)
    notes = (*_left_fresh(network, loaded.network, fresh), *_other_meanings(network, loaded.network))
    return TakenOver(tuple(common), tuple(f"note: {file}: {note}" for note in notes))


def _check_priors(file: Path, key: str, given: Tensor, own: Tensor) -> None:
    """Raise CheckpointError if tensors of `by_prior` are not for the same priors a cell."""
    if len(own) != len(given) or own.shape[2:] != given.shape[2:]:
        raise CheckpointError(f"{file}: {key!r} is for {len(given)} priors per cell, not {len(own)}")


def _check_alike(network: Network, before: Network, file: Path) -> None:
    """Raise CheckpointError if the file holds another network, but for the size of its input."""
    if not same_but_size(find_design(network.spec.name, {}), find_design(before.spec.name, {})):
        raise CheckpointError(
            f"{file}: is a {before.spec.name}, not a {network.spec.name}; start from the same network"
        )
    if before.heads.before_classes != network.heads.before_classes:
        raise CheckpointError(
            f"{file}: its scores are made in another way (a softmax with background, or a sigmoid a class);"
            " give the conf_loss that it was trained with"
        )


def _is_resized(network: Network, before: Network) -> bool:
    """Whether the layers of two networks differ by the size of the input alone."""
    own, other = network.spec.options, before.spec.options
    designs = find_design(network.spec.name, own), find_design(before.spec.name, other)
    same_neck = all(own.get(key) == other.get(key) for key in network.neck.known_options)
    return same_neck and same_but_size(*designs) and designs[0].size != designs[1].size


def _left_fresh(network: Network, before: Network, fresh: Sequence[str]) -> Iterator[str]:
    """What another size leaves fresh or out. fresh: tensors of another shape."""
    (width, height), now, then = network.image_size, len(network.neck.cells), len(before.neck.cells)
    if now != then:
        rest = f"{now - then} of them fresh" if now > then else f"{then - now} of the model left out"
        yield f"at {width} x {height} px there are {now} levels instead of {then}, {rest}"
    if fresh:
        layers = sorted({key.rpartition(".")[0] for key in fresh})
        rest = f" and {len(layers) - SHOWN} more" if len(layers) > SHOWN else ""
        yield f"layers that have another shape there are fresh: {', '.join(layers[:SHOWN])}{rest}"


def _other_meanings(network: Network, before: Network) -> Iterator[str]:
    """How `network` differs from the one that its weights are from, and how it would not."""
    own, other = _priors(network), _priors(before)
    same_size = network.image_size == before.image_size
    if same_size and own is not None and other is not None and not np.array_equal(own, other):
        yield f"its boxes are relative to other priors and are learned anew{_keep_priors(network, before)}"
    now, then = network.geometry.name, before.geometry.name
    if now != then:
        yield f"its images had the geometry {then}, not {now}; keep that with --geometry {then}"
    for key in ("mean", "std"):
        here, there = ([float(x) for x in getattr(one, key).flatten()] for one in (network, before))
        if here != there:
            values = ",".join(f"{value:g}" for value in there)
            yield f"its images had another {key} of the colours; keep that with --set {key}=[{values}]"
    aligned = _aligned(before)
    if _aligned(network) != aligned:
        yield f"its maps are resized in another way; keep that with --set align_corners={_word(all(aligned))}"
    elif same_size and not _same_maps(network, before):
        yield f"its levels are computed in another way{_keep_form(network, before)}"


def _same_maps(network: Network, before: Network) -> bool:
    """Whether two networks of equal weights have equal levels: options can leave all shapes as they are."""
    width, height = network.image_size
    image = torch.randn((1, 3, height, width), generator=torch.Generator().manual_seed(0))
    here, there = (_levels(one, image) for one in (network, before))
    return all(
        torch.allclose(one, other, rtol=1e-3, atol=1e-3) for one, other in zip(here, there, strict=True)
    )


def _levels(network: Network, image: Tensor) -> list[Tensor]:
    trains = network.training
    levels: list[Tensor] = network.eval().neck(network.backbone(image))
    network.train(trains)
    return levels


def _keep_form(network: Network, before: Network) -> str:
    """How to compute levels as `before` does, by the options that differ."""
    own, other = network.spec.options, before.spec.options
    keys = sorted(key for key in {*own, *other} - set(PRIOR_OPTIONS) if own.get(key) != other.get(key))
    ways = [f"give --set {key}={_word(other[key])}" if key in other else f"leave {key} out" for key in keys]
    return f"; to keep that, {' and '.join(ways)}" if ways else ""


def _priors(network: Network) -> Floats | None:
    """(P, 4) pixels of the input; None for a head that has no such boxes."""
    try:
        return network.heads.origins().priors
    except ConfigError:
        return None


def _keep_priors(network: Network, before: Network) -> str:
    """How to have the priors of `before`, by the options that differ; "" if they are not the reason."""
    own, other = network.spec.options, before.spec.options
    ways = []
    for key in PRIOR_OPTIONS:
        if own.get(key) == other.get(key):
            continue
        flag = "--priors " if key == "priors" else f"--set {key}="
        if isinstance(other.get(key), (str, bool, list)):
            ways.append(f"give {flag}{_word(other[key])}")
        elif key in own:  # without it the run has what the file has, fitted priors too
            ways.append(f"leave {flag.rstrip(' =')} out")
    return f"; to keep its own, {' and '.join(ways)}" if ways else ""


def _word(value: Any) -> str:
    """A value for --set."""
    return str(value).lower() if isinstance(value, bool) else str(value).replace(" ", "")


def _aligned(network: Network) -> list[bool]:
    return [bool(m.align_corners) for m in network.modules() if hasattr(m, "align_corners")]


def rows_of(classes: Sequence[int], before: int) -> Tensor:
    """The outputs of classes (0-based) and those before all classes, see `Head.before_classes`."""
    return torch.tensor([*range(before), *(before + index for index in classes)], dtype=torch.int64)


def by_prior(tensor: Tensor, outputs: int) -> Tensor:
    """A tensor of a class predictor's last layers as a view (priors a cell, outputs of each, ...)."""
    return tensor.view(-1, outputs, *tensor.shape[1:])

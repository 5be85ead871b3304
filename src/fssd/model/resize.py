"""The same layers on an input of another size, for an image pyramid (FSSD paper, Fig. 1 a)."""

from __future__ import annotations

from copy import deepcopy
from typing import Any

import torch

from fssd.data.geometry import make_geometry
from fssd.errors import ConfigError
from fssd.model.network import Network
from fssd.model.probe import without_memory
from fssd.necks.neck import Cells, even_steps

LISTED = range(128, 1025, 64)  # sides that an error tries, to name those that work


def resized(network: Network, size: tuple[int, int]) -> Network:
    """A network that shares all weights with this one and takes images of `size`, (width, height) pixels.

    Kernels, strides and the number of levels stay, so the maps have more cells or fewer. Priors keep their
    sizes in pixels, which is what the layers have learned, and stand evenly on the new cells. So it is not
    the network that `build_model` makes for `size`, whose levels and priors go with the size.

    Raises ConfigError for a size, or a head, with which the layers do not work.
    """
    cells = _level_cells(network, size)
    copied = _prepared(network, size)
    copied.neck.cells, copied.neck.steps = cells, even_steps(size, cells)
    copied.heads.change_size(size, cells, copied.neck.steps)
    return copied


def scaled_size(size: tuple[int, int], side: int) -> tuple[int, int]:
    """(width, height) of the same shape whose longer side is `side` pixels."""
    width, height = (max(1, round(side * one / max(size))) for one in size)
    return width, height


def _prepared(network: Network, size: tuple[int, int]) -> Network:
    """A copy that shares all tensors, in evaluation mode; its cells and priors are still those of before."""
    shared: dict[int, Any] = {id(tensor): tensor for tensor in (*network.parameters(), *network.buffers())}
    copied = deepcopy(network, shared).eval()
    copied.geometry = make_geometry(network.geometry.name, size)
    copied.neck.change_size(size)
    return copied


def _level_cells(network: Network, size: tuple[int, int]) -> list[Cells]:
    """Rows and columns of each level for images of `size`. Raises ConfigError, naming sizes that work."""
    own, probe = network.image_size, without_memory(network)
    if _run(probe, own) is None:
        probe = network  # it has a module of the user's own that looks at values
    found = _run(probe, size)
    if found is None:
        works = ", ".join(str(side) for side in LISTED if _run(probe, scaled_size(own, side)) is not None)
        raise ConfigError(
            f"{network.spec.name} of {own[0]} x {own[1]} px cannot run on {size[0]} x {size[1]} px, where its"
            f" maps vanish or do not fit each other; of the sides {LISTED[0]}, {LISTED[1]}, ... {LISTED[-1]}"
            f" these work: {works or 'none, but its own does'}"
        )
    return found


@torch.no_grad()
def _run(network: Network, size: tuple[int, int]) -> list[Cells] | None:
    """Rows and columns of each level; None if the layers do not work at this size."""
    width, height = size
    if any(side % int(getattr(network.backbone, "multiple", 1)) for side in size):
        return None
    images = torch.zeros(1, 3, height, width, device=network.device)
    copied = _prepared(network, size)
    try:
        levels = copied.neck(copied.backbone(images))
    except (
        RuntimeError,
        NotImplementedError,
    ):  # torch's: a map is smaller than a kernel, or than its partner
        return None
    return [(x.shape[-2], x.shape[-1]) for x in levels]

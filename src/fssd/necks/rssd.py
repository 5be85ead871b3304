"""R-SSD: every level is all of SSD's levels, brought to its size and concatenated (Jeong et al. 2017).

Neither code nor weights are published; what the paper leaves open is chosen in docs/paper-to-code.md.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from itertools import pairwise
from typing import Any, cast

import torch
from torch import Tensor, nn

from fssd.errors import ConfigError, nearest
from fssd.layers.blocks import ConvReLU
from fssd.layers.enlarge import enlarging_window
from fssd.layers.norms import CaffeBatchNorm
from fssd.necks.fssd import FRACTION, LIGHT_FRACTION
from fssd.necks.fusion_forms import LIGHT_WIDTH
from fssd.necks.neck import Blueprint, Cells
from fssd.necks.ssd import SSD, AnySSD

CHOICES = {
    "concatenation": ("rainbow", "pooling", "deconvolution"),
    "deconvolution": ("dense", "depthwise"),
    "pool": ("max", "average"),
}


class RSSD(SSD):
    """Sources are pooled down and deconvolved up, level by level, concatenated finest first, and normalised.

    up: for each source its deconvolutions, from its own level to the finest. down: the pools between
    neighbouring levels, shared by all sources. norms: one a level; per channel, so one on the concatenation
    is one on every source.
    """

    known_options = SSD.known_options | {*CHOICES, "relu"}
    reduce: nn.ModuleList
    up: nn.ModuleList
    down: nn.ModuleList
    norms: nn.ModuleList

    @classmethod
    def build(cls: type[AnySSD], blueprint: Blueprint) -> AnySSD:
        """SSD's levels without the scale of conv4_3; at light width each is first reduced by a 1x1 and ReLU.

        Options: concatenation: "rainbow", or one direction alone, "pooling" or "deconvolution". pool: "max"
        or "average". deconvolution: "dense" or "depthwise" (the default at light width). relu: whether a ReLU
        follows the normalisation (False).
        """
        light, options = blueprint.light, _checked(blueprint)
        neck = super().build(blueprint)
        neck.scale = nn.Identity()  # the normalisation takes its place
        sources, cells = neck.channels, neck.cells
        widths = [LIGHT_WIDTH] * len(sources) if light else sources
        neck.reduce = nn.ModuleList(
            ConvReLU(source, width, 1) if light else nn.Identity()
            for source, width in zip(sources, widths, strict=True)
        )
        up, down = (options["concatenation"] in ("rainbow", way) for way in ("deconvolution", "pooling"))
        depthwise = options["deconvolution"] == "depthwise"
        neck.up = nn.ModuleList(
            _deconvolutions(width, cells[: i + 1] if up else (), depthwise) for i, width in enumerate(widths)
        )
        neck.down = _pools(options["pool"], cells if down else ())
        neck.channels = [
            sum(widths[0 if down else i : None if up else i + 1]) for i, _ in enumerate(widths)
        ]  # coarser sources come up, finer ones down
        fraction = LIGHT_FRACTION if light else FRACTION
        neck.norms = nn.ModuleList(_norm(width, fraction, options["relu"]) for width in neck.channels)
        return neck

    def forward(self, features: dict[str, Tensor]) -> list[Tensor]:
        """See `Neck`. In training it takes two images or more, as its last level is a single cell."""
        sources = [reduce(x) for reduce, x in zip(self.reduce, super().forward(features), strict=True)]
        parts: list[list[Tensor]] = [[] for _ in sources]
        for index, x in enumerate(sources):
            for level, copy in self._copies(index, x):
                parts[level].append(copy)
        return [norm(torch.cat(maps, dim=1)) for norm, maps in zip(self.norms, parts, strict=True)]

    def level_sources(self) -> list[tuple[str, ...]]:
        """See `Neck`: SSD's maps of all levels, where they are brought both up and down."""
        up, down = any(len(cast("nn.ModuleList", steps)) for steps in self.up), len(self.down) > 0
        return [
            tuple(
                name
                for index, name in enumerate(self.taken)
                if index == level or (up if index > level else down)
            )
            for level, _ in enumerate(self.taken)
        ]

    def _copies(self, index: int, x: Tensor) -> Iterator[tuple[int, Tensor]]:
        """A source at every level that takes it, with the level's index."""
        yield index, x
        larger, smaller = x, x
        steps_up = cast("nn.ModuleList", self.up[index])
        for above, deconvolution in enumerate(steps_up, start=1):
            larger = deconvolution(larger)
            yield index - above, larger
        for level, pool in enumerate(self.down[index:], start=index + 1):
            smaller = pool(smaller)
            yield level, smaller

    def fresh(self) -> Iterable[nn.Module]:
        """See `Neck`."""
        return (self.reduce, self.up, self.norms)


def _checked(blueprint: Blueprint) -> dict[str, Any]:
    """The options, with defaults. Raises ConfigError."""
    defaults = {name: known[0] for name, known in CHOICES.items()}
    if blueprint.light:
        defaults["deconvolution"] = "depthwise"
    chosen = {name: blueprint.options.get(name, default) for name, default in defaults.items()}
    for name, known in CHOICES.items():
        if chosen[name] not in known:
            raise ConfigError(f"there is no {name} {chosen[name]!r}{nearest(str(chosen[name]), known)}")
    for name, other in (("pool", "deconvolution"), ("deconvolution", "pooling")):
        if name in blueprint.options and chosen["concatenation"] == other:
            raise ConfigError(f"concatenation {other!r} has no {name}; leave out one of the two")
    relu = blueprint.options.get("relu", False)
    if not isinstance(relu, bool):
        raise ConfigError(f"relu is {relu!r}; it is true or false")
    return {**chosen, "relu": relu}


def _deconvolutions(width: int, cells: Sequence[Cells], depthwise: bool) -> nn.ModuleList:
    """From the last of these levels to the first, each to twice the cells, or one less or more."""
    layers = nn.ModuleList()
    for coarse, fine in pairwise(reversed(cells)):
        rows, columns = (enlarging_window(*sides) for sides in zip(coarse, fine, strict=True))
        kernel, stride, padding = zip(rows, columns, strict=True)
        groups = width if depthwise else 1
        layers.append(nn.ConvTranspose2d(width, width, kernel, stride, padding, groups=groups))
    return layers


def _pools(kind: str, cells: Sequence[Cells]) -> nn.ModuleList:
    """From each level to the next."""
    layers = nn.ModuleList()
    for fine, coarse in pairwise(cells):
        kernel = (_shrinking(fine[0], coarse[0]), _shrinking(fine[1], coarse[1]))
        pool = nn.MaxPool2d if kind == "max" else nn.AvgPool2d
        layers.append(pool(kernel, stride=2, ceil_mode=True))
    return layers


def _shrinking(fine: int, coarse: int) -> int:
    """Kernel of a pool of stride 2: two cells become one, rounding up, but the last three one."""
    return 2 if coarse == -(-fine // 2) else 3


def _norm(channels: int, fraction: float, relu: bool) -> nn.Sequential:
    norm = CaffeBatchNorm(channels, fraction, affine=True)
    return nn.Sequential(norm, nn.ReLU()) if relu else nn.Sequential(norm)

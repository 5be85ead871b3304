"""BlitzNet's ResSkip: a way back up through all levels, by residual blocks (Dvornik et al. 2017, 3.1).

Source: dvornikita/blitznet, resnet.py. Detection alone; the paper's second task, segmentation, is left out.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from itertools import pairwise
from typing import Any, cast

import torch
from torch import Tensor, nn

from fssd.backbones.backbone import MapShape
from fssd.errors import ConfigError, nearest
from fssd.layers.blocks import Chain
from fssd.layers.enlarge import resize_asymmetric, resize_bilinear
from fssd.layers.norms import light_norm
from fssd.necks.blitznet_priors import blitznet_shapes
from fssd.necks.neck import Blueprint, Cells, even_steps
from fssd.necks.pyramid import LIGHT_WIDTHS
from fssd.necks.ssd import SSD, AnySSD, own_levels

WIDTH = 512  # channels of every level
NARROWING = 4  # the residual's inner channels are a quarter of that
DOWN_CHANNELS, DOWN_WIDTH = 2048, 512  # of BlitzNet's blocks below the backbone, outside and inside
DOWN_ENDS = 3  # cells a side at which the last but one of those blocks lies
RESIZES = ("asymmetric", "bilinear")


class SkipBlock(nn.Module):
    """A level: the map from above at the size of `skip`, and a bottleneck on both, added, then ReLU.

    above, skip, outputs: channels. light: whether norms are those of light blocks.
    """

    def __init__(self, above: int, skip: int, outputs: int, light: bool) -> None:
        super().__init__()
        narrow = outputs // NARROWING
        self.shortcut = nn.Sequential()
        if above != outputs:
            self.shortcut = nn.Sequential(nn.Conv2d(above, outputs, 1, bias=False), _norm(outputs, light))
        self.residual = nn.Sequential(
            nn.Conv2d(above + skip, narrow, 1, bias=False),
            _norm(narrow, light),
            nn.ReLU(inplace=True),
            nn.Conv2d(narrow, narrow, 3, padding=1, bias=False),
            _norm(narrow, light),
            nn.ReLU(inplace=True),
            nn.Conv2d(narrow, outputs, 1, bias=False),
            _norm(outputs, light),
        )

    def forward(self, enlarged: Tensor, skip: Tensor) -> tuple[Tensor, Tensor]:
        """The level, and the shortcut before anything was added."""
        shortcut: Tensor = self.shortcut(enlarged)
        level = (shortcut + self.residual(torch.cat((enlarged, skip), dim=1))).relu()
        return level, shortcut


class ResSkip(SSD):
    """SSD's levels down, `SkipBlock`s up again; the last level is one cell, the mean of the first shortcut.

    rev: the blocks, coarsest first. resize: "asymmetric" as TensorFlow 1 resizes, or "bilinear" with aligned
    corners as in FSSD's fusion.
    """

    known_options = SSD.known_options | {"resize"}
    rev: nn.ModuleList
    resize: str

    @classmethod
    def build(cls: type[AnySSD], blueprint: Blueprint) -> AnySSD:
        """On SSD's levels and priors, to compare necks; at light width 160 channels instead of 512."""
        neck = super().build(blueprint)
        _add_way_up(cast("ResSkip", neck), blueprint)
        return neck

    def forward(self, features: dict[str, Tensor]) -> list[Tensor]:
        """See `Neck`."""
        above, *skips = reversed(super().forward(features))
        levels: list[Tensor] = []
        for block, skip in zip(self.rev, skips, strict=True):
            size = (skip.shape[-2], skip.shape[-1])
            resized = (
                resize_asymmetric(above, size) if self.resize == RESIZES[0] else resize_bilinear(above, size)
            )
            above, shortcut = block(resized, skip)
            if not levels:
                levels.append(shortcut.mean(dim=(2, 3), keepdim=True))
            levels.append(above)
        return levels[::-1]

    def level_sources(self) -> list[tuple[str, ...]]:
        """See `Neck`: SSD's map of the level and all coarser ones."""
        return [tuple(self.taken[level:]) for level, _ in enumerate(self.taken)]

    def fresh(self) -> Iterable[nn.Module]:
        """See `Neck`."""
        return (self.rev,)


class BlitzNet(ResSkip):
    """BlitzNet for detection: maps of the backbone, residual blocks below them, and the way up.

    Levels begin at stride 8, or with `x4` at stride 4.
    """

    known_options = frozenset({"x4", "resize"})

    @classmethod
    def resolve(cls, blueprint: Blueprint) -> Mapping[str, Any]:
        """See `Neck`: BlitzNet's own priors, unless there are others."""
        if "priors" in blueprint.options:
            return blueprint.options
        cells = _down_path(blueprint)[1]
        shapes = blitznet_shapes(blueprint.image_size, len(cells))
        return {**blueprint.options, "priors": {"shapes": shapes}}

    @classmethod
    def build(cls: type[AnySSD], blueprint: Blueprint) -> AnySSD:
        """Options: x4, see the class (False); resize, see `ResSkip`."""
        taken, cells = _down_path(blueprint)
        channels = [blueprint.shapes[name].channels for name in taken]
        extras = Chain()
        for number, _ in enumerate(cells[len(taken) :], start=5):
            extras[f"block{number}"] = nn.Sequential(
                DownBottleneck(channels[-1], 2), DownBottleneck(DOWN_CHANNELS, 1)
            )
            channels.append(DOWN_CHANNELS)
        neck = cls(channels, cells, even_steps(blueprint.image_size, cells))
        neck.taken, neck.start = [*taken, *extras], taken[-1]
        neck.extras, neck.scale = extras, nn.Identity()
        _add_way_up(cast("ResSkip", neck), blueprint)
        return neck

    def fresh(self) -> Iterable[nn.Module]:
        """See `Neck`."""
        return (self.extras, self.rev)


class DownBottleneck(nn.Module):
    """1x1 to 512, 3x3, 1x1 to 2048, each with batch norm, added to the input, then ReLU.

    The stride is that of the first 1x1; the input is then every second cell, unless its width has to change.
    """

    def __init__(self, inputs: int, stride: int) -> None:
        super().__init__()
        self.shortcut: nn.Module = nn.MaxPool2d(1, stride) if stride > 1 else nn.Identity()
        if inputs != DOWN_CHANNELS:
            conv = nn.Conv2d(inputs, DOWN_CHANNELS, 1, stride, bias=False)
            self.shortcut = nn.Sequential(conv, _norm(DOWN_CHANNELS, light=False))
        self.residual = nn.Sequential(
            nn.Conv2d(inputs, DOWN_WIDTH, 1, stride, bias=False),
            _norm(DOWN_WIDTH, light=False),
            nn.ReLU(inplace=True),
            nn.Conv2d(DOWN_WIDTH, DOWN_WIDTH, 3, padding=1, bias=False),
            _norm(DOWN_WIDTH, light=False),
            nn.ReLU(inplace=True),
            nn.Conv2d(DOWN_WIDTH, DOWN_CHANNELS, 1, bias=False),
            _norm(DOWN_CHANNELS, light=False),
        )

    def forward(self, x: Tensor) -> Tensor:
        out: Tensor = (self.shortcut(x) + self.residual(x)).relu()
        return out


def _add_way_up(neck: ResSkip, blueprint: Blueprint) -> None:
    """Give a neck of SSD's levels its blocks, and the channels, cells and steps that they make."""
    resize = blueprint.options.get("resize", RESIZES[0])
    if resize not in RESIZES:
        raise ConfigError(f"there is no resize {resize!r}{nearest(str(resize), RESIZES)}")
    neck.resize = resize
    width = LIGHT_WIDTHS[-1] if blueprint.light else WIDTH
    neck.rev = nn.ModuleList(
        SkipBlock(above if index == 0 else width, skip, width, blueprint.light)
        for index, (above, skip) in enumerate(pairwise(reversed(neck.channels)))
    )
    neck.channels = [width] * len(neck.channels)
    neck.cells[-1] = (1, 1)
    neck.steps[-1] = even_steps(blueprint.image_size, neck.cells[-1:])[0]


def _down_path(blueprint: Blueprint) -> tuple[list[str], list[Cells]]:
    """BlitzNet's maps of the backbone, and the cells of these and of the blocks below them, finest first.

    The blocks halve, rounding up, to a map of at most 3 x 3, and once more: 5, 3, 2 at 300 px and 8, 4, 2, 1
    at 512. Raises ConfigError if the backbone does not fit.
    """
    if blueprint.light:
        raise ConfigError(
            f"{blueprint.model} has blocks of full width; use the neck resskip, or light: false"
        )
    taken = own_levels(blueprint)
    if _x4(blueprint.options):
        taken.insert(0, _finer(blueprint.shapes, blueprint))
    cells = [blueprint.shapes[name].cells for name in taken]
    while len(cells) == len(taken) or max(cells[-2]) > DOWN_ENDS:
        rows, columns = cells[-1]
        cells.append((-(-rows // 2), -(-columns // 2)))
    return taken, cells


def _x4(options: Mapping[str, Any]) -> bool:
    x4 = options.get("x4", False)
    if not isinstance(x4, bool):
        raise ConfigError(f"x4 is {x4!r}; it is true or false")
    return x4


def _finer(shapes: Mapping[str, MapShape], blueprint: Blueprint) -> str:
    """The map of the backbone at stride 4."""
    wanted: Sequence[int] = [-(-side // 4) for side in reversed(blueprint.image_size)]
    found = [name for name, shape in shapes.items() if list(shape.cells) == wanted]
    if not found:
        known = ", ".join(f"{name} {shape.rows} x {shape.columns}" for name, shape in shapes.items())
        raise ConfigError(
            f"x4 needs a map of {wanted[0]} x {wanted[1]} cells; the backbone has {known}; leave out x4"
        )
    return found[-1]


def _norm(channels: int, light: bool) -> nn.BatchNorm2d:
    return light_norm(channels) if light else nn.BatchNorm2d(channels)

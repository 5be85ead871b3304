"""The residual blocks that DSSD's SSD appends to ResNet-101, and where their cells look (Fu et al. 2017).

Source: chengyangfu/caffe, branch dssd, AddExtraLayers and the scripts of SSD321 and SSD513.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import NamedTuple

from fssd.backbones.backbone import MapShape
from fssd.errors import ConfigError
from fssd.layers.blocks import Chain
from fssd.layers.residual_block import ResidualBlock
from fssd.necks.neck import Blueprint, Cells, even_steps

WIDTH, CHANNELS = 256, 1024  # inside a block, and of its output

Pair = tuple[float, float]


class ResidualLevels(NamedTuple):
    """taken: maps of the backbone to predict from. extras: the blocks below them, each a level.

    channels, cells, steps, starts: of all levels, see `Neck`.
    """

    taken: list[str]
    extras: Chain
    channels: list[int]
    cells: list[Cells]
    steps: list[Pair]
    starts: list[Pair] | None


class Grid(NamedTuple):
    """One axis of a map: cells, and pixels of the input from cell to cell and to the first cell's centre."""

    cells: int
    step: float
    start: float

    @property
    def window(self) -> tuple[int, int]:
        """Kernel and stride, without padding, to the next coarser map.

        2 and 2 halves an even number, 3 and 1 takes 5 to 3 to 1, as the authors have it. Larger odd numbers,
        which 321 and 513 px do not make, are halved by 3 and 2, which loses no cell.
        """
        if self.cells == 1:
            return 1, 1
        if self.cells % 2 == 0:
            return 2, 2
        return (3, 1) if self.cells <= 5 else (3, 2)

    def coarser(self, side: int) -> Grid:
        """The axis of the next map, of an image `side` pixels long.

        The centre is that of the receptive field; a single cell stands for the whole image.
        """
        kernel, stride = self.window
        cells = (self.cells - kernel) // stride + 1
        if cells == 1:
            return Grid(1, side, side / 2)
        return Grid(cells, self.step * stride, self.start + (kernel - 1) / 2 * self.step)


def residual_levels(blueprint: Blueprint) -> ResidualLevels:
    """The last map of each size from stride 8 on, then blocks 6, 7, ... until a side is a single cell.

    Where the backbone tells what its first cell sees (`Backbone.first_centre`), priors stand at the centres
    of the receptive fields, as DSSD's do; otherwise evenly.
    """
    if blueprint.light:
        raise ConfigError(
            f"{blueprint.model} is of light width, and extras 'residual' of full width; leave out extras"
        )
    taken = _taken(blueprint)
    shapes = [blueprint.shapes[name] for name in taken]
    rows, columns = _grids(blueprint, shapes)
    extras = Chain()
    channels = [shape.channels for shape in shapes]
    for index in range(len(taken) - 1, len(rows) - 1):
        kernel, stride = zip(rows[index].window, columns[index].window, strict=True)
        extras[f"res{6 + len(extras)}"] = ResidualBlock(channels[-1], WIDTH, CHANNELS, kernel, stride)
        channels.append(CHANNELS)
    cells = [(row.cells, column.cells) for row, column in zip(rows, columns, strict=True)]
    if blueprint.first_centre is None:
        return ResidualLevels(taken, extras, channels, cells, even_steps(blueprint.image_size, cells), None)
    steps = [(column.step, row.step) for row, column in zip(rows, columns, strict=True)]
    starts = [(column.start, row.start) for row, column in zip(rows, columns, strict=True)]
    return ResidualLevels(taken, extras, channels, cells, steps, starts)


def _taken(blueprint: Blueprint) -> list[str]:
    last: dict[Cells, str] = {}
    rows, columns = blueprint.finest
    for name, shape in blueprint.shapes.items():
        if shape.rows <= rows and shape.columns <= columns:
            last[shape.cells] = name
    if not last:
        raise ConfigError(
            f"extras 'residual' needs maps of at most {rows} x {columns} cells; the backbone has"
            f" {_cells(blueprint.shapes)}"
        )
    return list(last.values())


def _cells(shapes: Mapping[str, MapShape]) -> str:
    return ", ".join(f"{name} of {shape.rows} x {shape.columns}" for name, shape in shapes.items())


def _grids(blueprint: Blueprint, shapes: Sequence[MapShape]) -> tuple[list[Grid], list[Grid]]:
    """Of every level, from top to bottom and from left to right."""
    width, height = blueprint.image_size
    start = blueprint.first_centre or 0.0
    rows = [Grid(shape.rows, _stride(height, shape.rows), start) for shape in shapes]
    columns = [Grid(shape.columns, _stride(width, shape.columns), start) for shape in shapes]
    while min(rows[-1].cells, columns[-1].cells) > 1:
        rows.append(rows[-1].coarser(height))
        columns.append(columns[-1].coarser(width))
    return rows, columns


def _stride(side: int, cells: int) -> float:
    """Pixels from cell to cell of a map that strides of 2 made: a power of two."""
    return float(2 ** round(math.log2(side / cells)))

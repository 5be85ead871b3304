"""The prior (default) boxes of each level.

A tuple of `Level` drives everything: priors, predictors and what exported files say of themselves. Numbers
are those of the released Caffe networks (SSD: weiliu89/caffe; FSSD: lzx1413/CAFFE_SSD, branch fssd), carried
on to other image sizes.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from fssd.config.bounds import finite_numbers
from fssd.errors import ConfigError, nearest

Pair = tuple[float, float]
Ratios = tuple[tuple[float, ...], ...]


class Level(NamedTuple):
    """One map of the pyramid.

    rows, columns: cells. step: (x, y) pixels between cell centres. shapes: (width, height) in pixels of the
    priors of a cell, in Caffe's order. centres: (x, y) of each prior's centre as a share of the cell; None
    for the middle. furthest: (x, y) pixels that no centre exceeds; None for no limit.
    """

    rows: int
    columns: int
    step: Pair
    shapes: tuple[Pair, ...]
    centres: tuple[Pair, ...] | None = None
    furthest: Pair | None = None

    @property
    def anchors(self) -> int:
        """Priors in each cell."""
        return len(self.shapes)


TABLES = ("voc", "coco")
CLIPS = ("none", "sides", "all")
RULES = ("ssd", "dssd")
# Percent of the image that the smallest prior of the coarsest level does not exceed, by rule.
HIGHEST = {"ssd": 90, "dssd": 95}


class Scale(NamedTuple):
    """Prior sizes in percent of the image: level 0 spans `first`, the others go from `lowest` by `step`."""

    first: tuple[int, int]
    lowest: int
    step: int


SCALES: dict[tuple[float, str], Scale] = {
    (300, "voc"): Scale((10, 20), 20, 17),
    (300, "coco"): Scale((7, 15), 15, 18),
    (512, "voc"): Scale((7, 15), 15, 15),
    (512, "coco"): Scale((4, 10), 10, 16),
}
# DSSD's scripts give 321 VOC and 513 COCO; the other two follow from its rule with SSD's first levels.
DSSD_SCALES: dict[tuple[float, str], Scale] = {
    (321, "voc"): Scale((10, 20), 20, 18),
    (321, "coco"): Scale((7, 15), 15, 20),
    (513, "voc"): Scale((7, 15), 15, 16),
    (513, "coco"): Scale((4, 10), 10, 17),
}
DSSD_RATIOS = (1.6, 2.0, 3.0)  # of every level: clusters of the boxes of VOC07+12
FIRST_PIXELS = {"voc": (30, 60), "coco": (21, 45)}  # level 0 at 300 px; also used for unpublished image sizes


def standard_ratios(levels: int, rule: str = "ssd") -> Ratios:
    """Aspect ratios beside 1 of each level: four priors a cell on the first and the last two, six between.

    DSSD has eight everywhere.
    """
    if rule == "dssd":
        return (DSSD_RATIOS,) * levels
    return ((2,), *((2, 3),) * (levels - 3), (2,), (2,))[:levels]


def table_scale(side: float, levels: int, table: str, rule: str = "ssd") -> Scale:
    """The percentages of a table: the published ones at 300 and 512 px, of DSSD at 321 and 513 px.

    At other sizes level 0 keeps its pixels of 300 px and the rest spreads evenly, by Caffe's rule for the
    step.
    """
    if table not in TABLES:
        raise ConfigError(f"there is no prior table {table!r}{nearest(str(table), TABLES)}")
    if rule not in RULES:
        raise ConfigError(f"there is no prior_rule {rule!r}{nearest(str(rule), RULES)}")
    published = SCALES if rule == "ssd" else DSSD_SCALES
    if (side, table) in published:
        return published[side, table]
    low, high = (max(1, round(100 * pixels / side)) for pixels in FIRST_PIXELS[table])
    return Scale((low, high), high, (HIGHEST[rule] - high) // max(1, levels - 2))


def prior_sizes(side: float, levels: int, scale: Scale) -> list[float]:
    """The levels + 1 borders between prior sizes in pixels: level i spans borders i to i + 1."""
    percents = [scale.first[0], scale.first[1]]
    percents += [scale.lowest + scale.step * i for i in range(1, levels)]
    return [side * percent / 100 for percent in percents]


def make_levels(
    cells: Sequence[tuple[int, int]],
    steps: Sequence[Pair],
    image_size: tuple[int, int],
    table: str = "voc",
    *,
    ratios: Ratios | None = None,
    truncate: bool = True,
    clip: str = "none",
    rule: str = "ssd",
    starts: Sequence[Pair] | None = None,
) -> tuple[Level, ...]:
    """The levels of a published table.

    cells, steps, starts: see `Neck`. rule: whose percentages and ratios the table has, "ssd" or "dssd".
    image_size: (width, height) pixels; the table is that of the square of the same area. table: "voc" or
    "coco". ratios: per level, instead of the standard ones. truncate: cut prior sizes to whole pixels as
    Caffe does (its prior_box layer keeps them in an int; of 300 and 512 px this touches 512). clip: "none" as
    in Caffe; "sides" makes no prior longer than the image (torchvision); "all" also moves centres that lie
    beyond the image onto its border (ssd.pytorch, PytorchSSD). Corners may stay outside.

    Raises ConfigError for an unknown table or clip, or a list of ratios of the wrong length.
    """
    if clip not in CLIPS:
        raise ConfigError(f"there is no clip {clip!r}{nearest(str(clip), CLIPS)}")
    width, height = (float(side) for side in image_size)
    side = width if width == height else math.sqrt(width * height)
    scale = table_scale(side, len(cells), table, rule)
    ratios = standard_ratios(len(cells), rule) if ratios is None else ratios
    if len(ratios) != len(cells):
        raise ConfigError(f"ratios lists {len(ratios)} levels but this pyramid has {len(cells)}")
    sizes = prior_sizes(side, len(cells), scale)
    if truncate:
        sizes = [float(int(size)) for size in sizes]
    longest = (math.inf, math.inf) if clip == "none" else (width, height)
    return tuple(
        Level(
            rows,
            columns,
            (float(step[0]), float(step[1])),
            cell_shapes(sizes[i], sizes[i + 1], ratios[i], longest),
            None if starts is None else (_share(starts[i], step),) * (2 + 2 * len(ratios[i])),
            furthest=(width, height) if clip == "all" else None,
        )
        for i, ((rows, columns), step) in enumerate(zip(cells, steps, strict=True))
    )


def fitted_levels(
    cells: Sequence[tuple[int, int]], steps: Sequence[Pair], fitted: Mapping[str, Any]
) -> tuple[Level, ...]:
    """The levels of priors that `fit_priors` chose, from their JSON form {"shapes": ..., "centres": ...}.

    Raises ConfigError if they are for another number of levels, or no pairs of numbers.
    """
    shapes, centres = fitted.get("shapes"), fitted.get("centres")
    lists = [rows for rows in (shapes, centres) if rows is not None]
    if not all(isinstance(rows, (list, tuple)) for rows in lists):
        raise ConfigError("the fitted priors are damaged: each level has a list; fit them again")
    if shapes is None or any(len(rows) != len(cells) for rows in lists):
        raise ConfigError(
            f"the fitted priors are not for the {len(cells)} levels of this network; fit them again"
        )
    try:
        pairs = [_pairs(row) for row in shapes]
        middles = [None] * len(cells) if centres is None else [_pairs(row) for row in centres]
    except (TypeError, ValueError) as error:
        raise _damaged(str(error)) from error
    for shape, middle in zip(pairs, middles, strict=True):
        if not shape or min(min(pair) for pair in shape) <= 0:
            raise _damaged("a level needs a shape, and each side of it lies above 0")
        if middle is not None and len(middle) != len(shape):
            raise _damaged(f"a level has {len(shape)} shapes and {len(middle)} centres")
    return tuple(
        Level(rows, columns, (float(step[0]), float(step[1])), shape, middle)
        for (rows, columns), step, shape, middle in zip(cells, steps, pairs, middles, strict=True)
    )


def _damaged(reason: str) -> ConfigError:
    return ConfigError(
        f"the fitted priors are damaged ({reason}): each is a width and a height; fit them again"
    )


def cell_shapes(
    least: float, most: float, ratios: Sequence[float], longest: Pair = (math.inf, math.inf)
) -> tuple[Pair, ...]:
    """(width, height) in pixels of the priors of one cell, in Caffe's order, rounded as in Caffe.

    The small square, the square of side sqrt(least * most), then each ratio and its inverse; none wider or
    higher than `longest`.
    """
    side, middle = np.float32(least), np.float32(math.sqrt(least * most))
    shapes = [(side, side), (middle, middle)]
    for root in (np.sqrt(np.float32(r)) for ratio in ratios for r in (ratio, 1 / ratio)):
        shapes.append((side * root, side / root))
    return tuple((min(float(width), longest[0]), min(float(height), longest[1])) for width, height in shapes)


def spread_level(level: Level, cells: tuple[int, int], step: Pair, image_size: tuple[int, int]) -> Level:
    """The priors of a level on more or fewer cells of the same layers.

    cells: (rows, columns). step: (x, y) pixels between what neighbouring cells see. Shapes stay. The mean
    centre of the old cells is kept: the layers have learned where objects are relative to priors, on average.
    """
    centres = tuple(
        (
            _moved_share(level.step[0], x, step[0], level.columns),
            _moved_share(level.step[1], y, step[1], level.rows),
        )
        for x, y in level.centres or ((0.5, 0.5),) * level.anchors
    )
    limit = float(image_size[0]), float(image_size[1])
    return level._replace(
        rows=cells[0],
        columns=cells[1],
        step=step,
        centres=centres,
        furthest=None if level.furthest is None else limit,
    )


def _moved_share(old: float, share: float, new: float, count: int) -> float:
    """Where in a cell of step `new` a prior lies whose mean over `count` cells of step `old` is to stay."""
    middle = (count - 1) / 2
    return (old * (middle + share)) / new - middle


def make_priors(levels: tuple[Level, ...]) -> Tensor:
    """All priors, (P, 4) float32 xyxy in pixels of the network input, which they may leave.

    Levels in order, cells row by row, shapes in the order of the level: index
    ((level offset) + (row * columns + column) * anchors + shape).
    """
    return torch.from_numpy(exact_priors(levels).astype(np.float32))


def exact_priors(levels: tuple[Level, ...]) -> npt.NDArray[np.float64]:
    """`make_priors` before its last rounding, (P, 4) float64.

    Centres and sizes are float32, as in Caffe's prior_box layer: which of several priors that overlap an
    object equally is matched depends on it.
    """
    return np.concatenate([_level_priors(level) for level in levels])


def _level_priors(level: Level) -> npt.NDArray[np.float64]:
    share = np.array(level.centres or ((0.5, 0.5),) * level.anchors, np.float32)  # (A, 2)
    x = (np.arange(level.columns)[:, None].astype(np.float32) + share[:, 0]) * np.float32(level.step[0])
    y = (np.arange(level.rows)[:, None].astype(np.float32) + share[:, 1]) * np.float32(level.step[1])
    if level.furthest is not None:
        x, y = np.minimum(x, level.furthest[0]), np.minimum(y, level.furthest[1])
    shape = (level.rows, level.columns, level.anchors)
    middle = np.stack((np.broadcast_to(x[None], shape), np.broadcast_to(y[:, None], shape)), axis=-1)
    half = np.array(level.shapes) / 2  # (A, 2)
    return np.concatenate((middle - half, middle + half), axis=-1).reshape(-1, 4)


def read_level(row: Mapping[str, Any]) -> Level:
    """A level from its JSON form in an exported file. Raises KeyError, TypeError or ValueError.

    Files of version 0.1 state a square map, the sizes of a table and its ratios.
    """
    if "min_size" not in row:
        centres, furthest = row["centres"], row["furthest"]
        return Level(
            int(row["rows"]),
            int(row["columns"]),
            _pair(row["step"]),
            _pairs(row["shapes"]),
            None if centres is None else _pairs(centres),
            None if furthest is None else _pair(furthest),
        )
    longest, furthest = row.get("longest"), row.get("furthest")
    shapes = cell_shapes(
        row["min_size"],
        row["max_size"],
        row["ratios"],
        (math.inf, math.inf) if longest is None else (longest, longest),
    )
    size, step = int(row["size"]), float(row["step"])
    return Level(size, size, (step, step), shapes, None, None if furthest is None else (furthest, furthest))


def _share(start: Pair, step: Pair) -> Pair:
    """The centre of the first cell as a share of the cell."""
    return start[0] / step[0], start[1] / step[1]


def _pair(values: Sequence[float]) -> Pair:
    first, second = values
    return float(first), float(second)


def _pairs(rows: Sequence[Sequence[float]]) -> tuple[Pair, ...]:
    return tuple(_pair(finite_numbers(row)) for row in rows)

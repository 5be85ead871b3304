"""The pyramid's table of levels and the prior (default) boxes that follow from it.

One tuple of `Level` drives everything: priors, heads and the checks on feature map sizes. Numbers are
those of the released Caffe networks (SSD: weiliu89/caffe; FSSD: lzx1413/CAFFE_SSD, branch fssd).
"""

from __future__ import annotations

import math
from typing import NamedTuple

import torch
from torch import Tensor

from fssd.errors import ConfigError, nearest


class Level(NamedTuple):
    """One map of the pyramid.

    size: cells along a side. step: pixels between cell centres. min_size, max_size: prior sides in
    pixels. ratios: aspect ratios beside 1; each also stands for its inverse. longest: pixels that no side
    of a prior exceeds. furthest: pixels that no coordinate of a centre exceeds.
    """

    size: int
    step: float
    min_size: float
    max_size: float
    ratios: tuple[float, ...]
    longest: float | None = None
    furthest: float | None = None

    @property
    def anchors(self) -> int:
        """Priors in each cell: two squares and two of each ratio."""
        return 2 + 2 * len(self.ratios)


MAP_SIZES = {300: (38, 19, 10, 5, 3, 1), 512: (64, 32, 16, 8, 4, 2, 1)}
CLIPS = ("none", "sides", "all")
SSD_STEPS = {300: (8, 16, 32, 64, 100, 300), 512: (8, 16, 32, 64, 128, 256, 512)}
RATIOS: dict[int, tuple[tuple[float, ...], ...]] = {
    300: ((2,), (2, 3), (2, 3), (2, 3), (2,), (2,)),
    512: ((2,), (2, 3), (2, 3), (2, 3), (2, 3), (2,), (2,)),
}
# The authors' PyTorch port of FSSD has six priors a cell at the finest level too.
PORT_RATIOS: dict[int, tuple[tuple[float, ...], ...]] = {
    300: ((2, 3), *RATIOS[300][1:]),
    512: ((2, 3), *RATIOS[512][1:]),
}


class Scale(NamedTuple):
    """Prior sizes in percent of the image: level 0 spans `first`, the others go from `lowest` by `step`."""

    first: tuple[int, int]
    lowest: int
    step: int


_VOC300 = Scale((10, 20), 20, 17)
_COCO300 = Scale((7, 15), 15, 18)
_VOC512 = Scale((7, 15), 15, 15)
_COCO512 = Scale((4, 10), 10, 16)

SCALES: dict[tuple[str, int, str], Scale] = {
    ("ssd", 300, "voc"): _VOC300,
    ("ssd", 300, "coco"): _COCO300,
    ("ssd", 512, "voc"): _VOC512,
    ("ssd", 512, "coco"): _COCO512,
    ("fssd", 300, "voc"): _VOC300,
    ("fssd", 300, "coco"): _COCO300,
    ("fssd", 512, "voc"): _VOC512,
    ("fssd", 512, "coco"): _VOC512,  # the released FSSD512-COCO has 35.84 / 76.8 px at its first level
}


def prior_sizes(image_size: int, levels: int, scale: Scale) -> list[float]:
    """The levels + 1 borders between prior sizes in pixels: level i spans borders i to i + 1."""
    percents = [scale.first[0], scale.first[1]]
    percents += [scale.lowest + scale.step * i for i in range(1, levels)]
    return [image_size * percent / 100 for percent in percents]


def make_levels(
    family: str,
    image_size: int,
    table: str = "voc",
    *,
    ratios: tuple[tuple[float, ...], ...] | None = None,
    truncate: bool = True,
    clip: str = "none",
) -> tuple[Level, ...]:
    """The level table of a network.

    family: "ssd" (steps 8, 16, 32, ...) or "fssd" (steps image_size / map size). image_size: 300 or 512.
    table: "voc" or "coco". ratios: per level, instead of the standard ones. truncate: cut prior sizes to
    whole pixels as Caffe does (its prior_box layer keeps them in an int; this touches the 512 tables only).
    clip: "none" as in Caffe; "sides" makes no prior longer than the image (torchvision); "all" also moves
    centres that lie beyond the image onto its border (ssd.pytorch, PytorchSSD). Corners may stay outside.

    Raises ConfigError for an unknown table or clip, or a list of ratios of the wrong length.
    """
    if (family, image_size, table) not in SCALES:
        raise ConfigError(f"there is no prior table {table!r}{nearest(table, ('voc', 'coco'))}")
    if clip not in CLIPS:
        raise ConfigError(f"there is no clip {clip!r}{nearest(str(clip), CLIPS)}")
    maps = MAP_SIZES[image_size]
    ratios = RATIOS[image_size] if ratios is None else ratios
    if len(ratios) != len(maps):
        raise ConfigError(
            f"ratios lists {len(ratios)} levels but the {image_size} px pyramid has {len(maps)}"
        )
    sizes = prior_sizes(image_size, len(maps), SCALES[family, image_size, table])
    if truncate:
        sizes = [float(int(size)) for size in sizes]
    steps = SSD_STEPS[image_size] if family == "ssd" else [image_size / size for size in maps]
    longest = None if clip == "none" else float(image_size)
    furthest = float(image_size) if clip == "all" else None
    return tuple(
        Level(maps[i], float(steps[i]), sizes[i], sizes[i + 1], tuple(ratios[i]), longest, furthest)
        for i in range(len(maps))
    )


def cell_shapes(level: Level) -> list[tuple[float, float]]:
    """(width, height) in pixels of the priors of one cell, in Caffe's order.

    The small square, the square of side sqrt(min * max), then each ratio and its inverse.
    """
    middle = math.sqrt(level.min_size * level.max_size)
    shapes = [(level.min_size, level.min_size), (middle, middle)]
    for ratio in level.ratios:
        root = math.sqrt(ratio)
        shapes += [
            (level.min_size * root, level.min_size / root),
            (level.min_size / root, level.min_size * root),
        ]
    if level.longest is None:
        return shapes
    return [(min(width, level.longest), min(height, level.longest)) for width, height in shapes]


def make_priors(levels: tuple[Level, ...]) -> Tensor:
    """All priors, (P, 4) float32 xyxy in pixels of the network input, which they may leave.

    Levels in order, cells row by row, shapes in the order of `cell_shapes`: index
    ((level offset) + (row * size + column) * anchors + shape).
    """
    return torch.cat([_level_priors(level) for level in levels])


def _level_priors(level: Level) -> Tensor:
    centers = (torch.arange(level.size, dtype=torch.float64) + 0.5) * level.step
    if level.furthest is not None:
        centers = centers.clamp(max=level.furthest)
    y, x = torch.meshgrid(centers, centers, indexing="ij")
    half = torch.tensor(cell_shapes(level), dtype=torch.float64) / 2  # (A, 2)
    middle = torch.stack((x, y), dim=-1)[:, :, None]  # (H, W, 1, 2)
    return torch.cat((middle - half, middle + half), dim=-1).reshape(-1, 4).float()

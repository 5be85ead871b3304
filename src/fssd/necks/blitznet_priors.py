"""The shapes of BlitzNet's priors (Dvornik et al. 2017; dvornikita/blitznet, boxer.py and config.py)."""

from __future__ import annotations

import math
from itertools import pairwise

# Sizes as shares of the image, by the number of levels: of the first level, and of the second; from there on
# they grow evenly to LARGEST on the last.
SIZES = {6: (0.1, 0.2), 7: (0.04, 0.1), 8: (0.02, 0.08)}
LARGEST = 0.95
RATIOS = (2, 3)


def blitznet_shapes(image_size: tuple[int, int], levels: int) -> list[list[list[float]]]:
    """[width, height] in pixels of the six priors of a cell, for each level.

    In BlitzNet's order: the square, ratios 2, 1/2, 3, 1/3, then the square of side sqrt(size * next size).
    Networks with fewer or more levels than published take the sizes of the nearest number.
    """
    side = math.sqrt(image_size[0] * image_size[1])
    first, second = SIZES[min(max(levels, min(SIZES)), max(SIZES))]
    step = (LARGEST - second) / (levels - 2)
    shares = [first, *(second + step * index for index in range(levels))]
    return [_cell_shapes(side * least, side * most) for least, most in pairwise(shares)]


def _cell_shapes(size: float, next_size: float) -> list[list[float]]:
    roots = [math.sqrt(ratio) for value in RATIOS for ratio in (value, 1 / value)]
    middle = math.sqrt(size * next_size)
    return [[size, size], *([size * root, size / root] for root in roots), [middle, middle]]

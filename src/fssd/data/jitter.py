"""Which part of an image YOLOv2 is trained on: its size, aspect ratio and position vary. No pixels here.

Source: pjreddie/darknet, data.c: `load_data_region` of 2016-11 and `load_data_detection` of 2017 on.
"""

from __future__ import annotations

import math

import numpy as np

from fssd.data.geometry import Geometry, Letterbox, Size

# (left, top, right, bottom) in whole pixels of the image, beyond which they may lie
Window = tuple[int, int, int, int]

STRETCH = 0.3  # of the aspect ratio, with letterbox
SHIFT = 0.2  # of each side, with warp


def sample_window(size: Size, geometry: Geometry, rng: np.random.Generator) -> Window:
    """The part of an image of (width, height) that is stretched to the input.

    With a letterbox, as of 2017 on: the whole image, its width and height changed by up to `STRETCH` before
    the aspect ratio is taken, as large as fits and at a random place. With a warp, as of 2016: each side
    moved in or out by up to `SHIFT`.
    """
    if not isinstance(geometry, Letterbox):
        return _moved_sides(size, rng)
    width, height = size
    wide = width + rng.uniform(-STRETCH, STRETCH) * width
    high = height + rng.uniform(-STRETCH, STRETCH) * height
    aspect = (wide / high) * (geometry.size[1] / geometry.size[0])  # as shares of the input
    share_x, share_y = min(1.0, aspect), min(1.0, 1 / aspect)  # of the input that the image takes
    left = -rng.uniform(0, 1 - share_x) / share_x * width
    top = -rng.uniform(0, 1 - share_y) / share_y * height
    return _whole((left, top, left + width / share_x, top + height / share_y))


def _moved_sides(size: Size, rng: np.random.Generator) -> Window:
    width, height = size
    left, right = rng.uniform(-SHIFT, SHIFT, 2) * width
    top, bottom = rng.uniform(-SHIFT, SHIFT, 2) * height
    return _whole((left, top, width - right, height - bottom))


def _whole(sides: tuple[float, float, float, float]) -> Window:
    left, top = math.floor(sides[0] + 0.5), math.floor(sides[1] + 0.5)
    right, bottom = (
        max(low + 1, math.floor(side + 0.5)) for low, side in ((left, sides[2]), (top, sides[3]))
    )
    return left, top, right, bottom

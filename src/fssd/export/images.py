"""The images on which an export is tested and calibrated, as the network's input."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TypeVar

import cv2
import numpy as np
import torch
from torch import Tensor

from fssd.data.decode import read_image
from fssd.data.geometry import Geometry
from fssd.data.sample import Image
from fssd.data.stored import PictureSource

Item = TypeVar("Item")

CHECKED = 33  # the least number of images an export is tested on: one alone and four batches of eight


def evenly_spaced(items: Sequence[Item], most: int = 300) -> Sequence[Item]:
    """At most `most` of the items.

    More than a few hundred images change neither a verdict nor the ranges of a quantisation.
    """
    return items[:: max(1, -(-len(items) // most))]


def read_pictures(files: Sequence[PictureSource], geometry: Geometry, most: int = 300) -> Tensor:
    """(N, 3, H, W) uint8 RGB of at most `most` evenly spaced files. Raises ImageError."""
    return _stack([geometry.apply(read_image(file)) for file in evenly_spaced(files, most)])


def make_pictures(count: int, size: tuple[int, int]) -> Tensor:
    """(count, 3, H, W) uint8 RGB: one black image, then random clouds with boxes and discs on them.

    size: (width, height), pixels.
    """
    rng = np.random.default_rng(0)
    black = np.zeros((size[1], size[0], 3), np.uint8)
    return _stack([black, *(_picture(rng, size) for _ in range(count - 1))])


def fill_up(images: Tensor | None, size: tuple[int, int]) -> Tensor:
    """`images`, filled up with synthetic ones to `CHECKED`. size: (width, height), pixels."""
    made = make_pictures(CHECKED, size)
    return made if images is None else torch.cat((images, made[: max(0, CHECKED - len(images))]))


def _picture(rng: np.random.Generator, size: tuple[int, int]) -> Image:
    least = min(size)
    grain = int(rng.integers(2, least // 3))
    clouds = rng.integers(0, 256, (grain, grain, 3), dtype=np.uint8)
    image = cv2.resize(clouds, size, interpolation=cv2.INTER_CUBIC)
    for _ in range(int(rng.integers(0, 8))):
        x, y, width, height = rng.integers(4, least, 4).tolist()
        color = rng.integers(0, 256, 3).tolist()
        if rng.random() < 0.5:
            cv2.rectangle(image, (x, y), (x + width // 2, y + height // 2), color, -1)
        else:
            cv2.circle(image, (x, y), width // 4 + 1, color, -1)
    return np.asarray(image, np.uint8)


def _stack(images: Sequence[Image]) -> Tensor:
    return torch.from_numpy(np.stack(images)).permute(0, 3, 1, 2)

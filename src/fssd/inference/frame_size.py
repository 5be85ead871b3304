"""Sizes of frames that video codecs can hold."""

from __future__ import annotations

import cv2
import numpy as np

from fssd.data.sample import Image

LONGEST_SIDE = 8190  # pixels: MPEG-4 holds up to 8191, of which pairs are coded


def writable_size(width: int, height: int) -> tuple[int, int]:
    """(width, height) that are even and fit MPEG-4, of the same shape where that is possible."""
    scale = min(1, LONGEST_SIDE / max(width, height))
    return max(2, int(scale * width) // 2 * 2), max(2, int(scale * height) // 2 * 2)


def sized(image: Image, size: tuple[int, int]) -> Image:
    """A frame of the size; a last odd row or column is cut off rather than scaled away."""
    width, height = size
    if (image.shape[1] // 2 * 2, image.shape[0] // 2 * 2) == size:
        return np.ascontiguousarray(image[:height, :width])
    return np.asarray(cv2.resize(image, size, interpolation=cv2.INTER_AREA), np.uint8)

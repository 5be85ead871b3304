"""Grey thumbnails, by which images that are almost the same are found.

Two images are near-duplicates if the correlation of their thumbnails is high, with or without mirroring.
That finds copies that were resized, recompressed, brightened or mirrored, and consecutive frames, but not
parts of an image.
"""

from __future__ import annotations

import cv2
import numpy as np
import numpy.typing as npt

from fssd.data.sample import Image

SIDE = 32  # pixels of a thumbnail
LEAST_CORRELATION = 0.96  # different photographs of one kind reach 0.95
LEAST_SPREAD = 2.0  # grey levels (standard deviation); flatter thumbnails, of blank images, match nothing

Thumbnail = npt.NDArray[np.uint8]


def thumbnail(image: Image) -> Thumbnail:
    """(H, W, 3) uint8 RGB -> (SIDE, SIDE) uint8 grey, whatever the shape of the image."""
    grey = cv2.cvtColor(image, cv2.COLOR_RGB2GRAY)
    return np.asarray(cv2.resize(grey, (SIDE, SIDE), interpolation=cv2.INTER_AREA), np.uint8)


def normalised(images: npt.NDArray[np.float32]) -> npt.NDArray[np.float32]:
    """(N, SIDE, SIDE) -> (N, SIDE * SIDE), mean 0 and length 1; all 0 for a blank image.

    The product of two rows is the correlation of their images.
    """
    flat = images.reshape(len(images), SIDE * SIDE)
    flat = flat - flat.mean(axis=1, keepdims=True)
    length = np.linalg.norm(flat, axis=1, keepdims=True)
    seen = length > LEAST_SPREAD * SIDE
    return np.asarray(np.where(seen, flat / np.where(seen, length, 1), 0), np.float32)

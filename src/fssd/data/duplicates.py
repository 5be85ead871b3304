"""Near-duplicates: images that are almost the same, within a split or in different splits.

Two images are near-duplicates if the correlation of their grey thumbnails is high, with or without mirroring.
That finds copies that were resized, recompressed, brightened or mirrored, and consecutive frames, but not
parts of an image.
"""

from __future__ import annotations

import io
from collections.abc import Iterator, Sequence
from itertools import combinations
from typing import NamedTuple

import cv2
import numpy as np
import numpy.typing as npt
from PIL import Image as Pillow

from fssd.data.sample import Image
from fssd.data.stored import PictureSource, StoredPicture
from fssd.errors import ConfigError

SIDE = 32  # pixels of a thumbnail
LEAST_CORRELATION = 0.96  # different photographs of one kind reach 0.95
LEAST_SPREAD = 2.0  # grey levels (standard deviation); flatter thumbnails, of blank images, match nothing
CHUNK = 1024  # images compared at a time

Thumbnail = npt.NDArray[np.uint8]
Ints = npt.NDArray[np.int64]


class Pair(NamedTuple):
    """Two images: their splits, their indices in the lists of these splits, and the correlation (up to 1)."""

    splits: tuple[str, str]
    indices: tuple[int, int]
    correlation: float
    mirrored: bool


def thumbnail(image: Image) -> Thumbnail:
    """(H, W, 3) uint8 RGB -> (SIDE, SIDE) uint8 grey, whatever the shape of the image."""
    grey = cv2.cvtColor(image, cv2.COLOR_RGB2GRAY)
    return np.asarray(cv2.resize(grey, (SIDE, SIDE), interpolation=cv2.INTER_AREA), np.uint8)


def read_thumbnail(picture: PictureSource) -> Thumbnail:
    """The thumbnail of a picture, from a reduced JPEG where it is one; blank if it cannot be read.

    Raises ConfigError where a folder of shards cannot be reached.
    """
    try:
        source = io.BytesIO(picture.read()) if isinstance(picture, StoredPicture) else picture
        with Pillow.open(source) as opened:
            opened.draft("L", (2 * SIDE, 2 * SIDE))
            grey = np.asarray(opened.convert("L"))
        return np.asarray(cv2.resize(grey, (SIDE, SIDE), interpolation=cv2.INTER_AREA), np.uint8)
    except ConfigError:
        raise
    except Exception:  # decoders raise any exception on damaged data; whoever uses the image reports it
        return np.zeros((SIDE, SIDE), np.uint8)


def alike(thumbnails: Sequence[Thumbnail], least: float = LEAST_CORRELATION) -> Iterator[Ints]:
    """For each image that has near-duplicates behind it in the list: its index, and theirs."""
    table = np.array(thumbnails, np.float32).reshape(-1, SIDE, SIDE)
    flat = normalised(table)
    for start in range(0, len(flat), CHUNK):
        part = table[start : start + CHUNK]
        for images in (part, part[:, :, ::-1]):
            found = normalised(images) @ flat[start:].T >= least
            for row in np.flatnonzero(found.any(axis=1)).tolist():
                others = np.flatnonzero(found[row, row + 1 :])
                if len(others):
                    yield start + row + np.array([0, *(others + 1)])


def near_duplicates(splits: dict[str, Sequence[Thumbnail]], least: float = LEAST_CORRELATION) -> list[Pair]:
    """For each image the most similar one of each earlier split, if similar enough; best pairs first."""
    tables = {name: np.array(images, np.float32).reshape(-1, SIDE, SIDE) for name, images in splits.items()}
    pairs = [
        pair
        for one, other in combinations(tables, 2)
        for pair in _between((one, other), tables[one], tables[other], least)
    ]
    return sorted(pairs, key=lambda pair: -pair.correlation)


def _between(
    names: tuple[str, str], first: npt.NDArray[np.float32], second: npt.NDArray[np.float32], least: float
) -> list[Pair]:
    """The pairs of two splits, at most one for each image of the second split."""
    others = normalised(second).T
    best = np.full(len(second), -1.0, np.float32)
    partner, turned = np.zeros(len(second), np.int64), np.zeros(len(second), bool)
    for start in range(0, len(first), CHUNK):
        part = first[start : start + CHUNK]
        for mirrored, images in ((False, part), (True, part[:, :, ::-1])):
            correlation = normalised(images) @ others
            row = correlation.argmax(axis=0)
            value = correlation.max(axis=0)
            better = value > best
            best[better], partner[better], turned[better] = value[better], start + row[better], mirrored
    return [
        Pair(names, (int(partner[index]), int(index)), float(best[index]), bool(turned[index]))
        for index in np.flatnonzero(best >= least)
    ]


def normalised(images: npt.NDArray[np.float32]) -> npt.NDArray[np.float32]:
    """(N, SIDE, SIDE) -> (N, SIDE * SIDE), mean 0 and length 1; all 0 for a blank image.

    The product of two rows is the correlation of their images.
    """
    flat = images.reshape(len(images), SIDE * SIDE)
    flat = flat - flat.mean(axis=1, keepdims=True)
    length = np.linalg.norm(flat, axis=1, keepdims=True)
    seen = length > LEAST_SPREAD * SIDE
    return np.asarray(np.where(seen, flat / np.where(seen, length, 1), 0), np.float32)

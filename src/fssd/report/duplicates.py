"""Near-duplicates: images that are almost the same although they belong to different splits.

See `fssd.data.thumbnail` for what is almost the same.
"""

from __future__ import annotations

from collections.abc import Sequence
from itertools import combinations
from typing import NamedTuple

import numpy as np
import numpy.typing as npt

from fssd.data.thumbnail import LEAST_CORRELATION, SIDE, Thumbnail, normalised

CHUNK = 1024  # images compared at a time


class Pair(NamedTuple):
    """Two images: their splits, their indices in the lists of these splits, and the correlation (up to 1)."""

    splits: tuple[str, str]
    indices: tuple[int, int]
    correlation: float
    mirrored: bool


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

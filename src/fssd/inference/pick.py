"""Chooses the images that are most worth labelling: least certain, and least alike: `fssd pick`."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import numpy.typing as npt

from fssd.data.duplicates import LEAST_CORRELATION, SIDE, Thumbnail, normalised


def uncertainty(scores: npt.NDArray[np.float32]) -> float:
    """The sum over an image's detections of 1 - |2p - 1|, where p is the score.

    A detection counts 1 at a score of 0.5, where it is as likely right as wrong, and 0 at scores of 0 and 1:
    the sum is about the number of objects that a person would have to decide.
    """
    return float(np.sum(1 - np.abs(2 * scores.astype(np.float64) - 1)))


def pick(uncertainties: Sequence[float], thumbnails: Sequence[Thumbnail], count: int) -> list[int]:
    """The indices of at most `count` images, the one most worth labelling first.

    Each in turn is the image with the largest product of its uncertainty and of 1 - its correlation with the
    most similar image picked before; of equal ones the first. Near-duplicates of picked images, see
    `fssd.data.duplicates`, are not picked. Once nothing uncertain is left, the least similar comes next.
    """
    worth = np.asarray(uncertainties, np.float64)
    tables = np.array(thumbnails, np.float32).reshape(-1, SIDE, SIDE)
    rows = normalised(tables)
    likeness = np.zeros(len(rows))
    left = np.ones(len(rows), bool)
    picked: list[int] = []
    while len(picked) < count and left.any():
        novelty = 1 - likeness
        value = worth * novelty if np.any(worth[left] > 0) else novelty
        best = int(np.argmax(np.where(left, value, -1.0)))
        picked.append(best)
        mirrored = normalised(tables[best : best + 1, :, ::-1])[0]
        correlation = np.maximum(rows @ rows[best], rows @ mirrored)
        likeness = np.maximum(likeness, correlation)
        left &= correlation < LEAST_CORRELATION
        left[best] = False
    return picked

"""The boxes of a data set by size, and how many of each size or class a prior matches."""

from __future__ import annotations

from itertools import pairwise

import numpy as np

from fssd.evaluation.pairing import Floats, Ints
from fssd.heads.multibox.match import MATCHED

BANDS = (0.0, 8.0, 16.0, 32.0, 64.0, 128.0, 256.0, np.inf)  # px of the network's input, lower limit included


def band_names() -> list[str]:
    """Names of the size ranges: `under 8`, `8 to 16`, ..."""
    inner = [f"{low:.0f} to {high:.0f}" for low, high in pairwise(BANDS[1:-1])]
    return [f"under {BANDS[1]:.0f}", *inner, f"{BANDS[-2]:.0f} and more"]


def bands(boxes: Floats) -> Ints:
    """(N, 4) xyxy pixels -> (N,) index of the size range, by the side of a square of the same area."""
    return np.searchsorted(np.array(BANDS[1:-1]), sides(boxes), side="right").astype(np.int64)


def sides(boxes: Floats) -> Floats:
    """(N, 4) xyxy -> (N,) side of a square of the same area."""
    return np.asarray(np.sqrt((boxes[:, 2:] - boxes[:, :2]).clip(0).prod(axis=1)))


def shares(groups: Ints, overlap: Floats, count: int) -> tuple[Ints, Floats]:
    """(count,) boxes in each group, and the share of them that a prior matches, nan without a box."""
    totals = np.bincount(groups, minlength=count)
    hits = np.bincount(groups, overlap >= MATCHED, minlength=count)
    return totals, hits / np.where(totals, totals, np.nan)

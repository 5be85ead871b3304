"""Do scores mean what they say: of detections that score about 0.7, are seven in ten right?"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np

from fssd.evaluation.pairing import Bools, Floats, Ints


class Calibration(NamedTuple):
    """Detections sorted by score into B bins of equal width from 0 to 1; the last one includes 1.

    detections: (B,) how many. score: (B,) their mean score. right: (B,) share of them that is right; both nan
    in an empty bin. error: mean over the detections of |score - right| of their bin (expected calibration
    error, Naeini et al. 2015); nan without any.
    """

    detections: Ints
    score: Floats
    right: Floats
    error: float


def calibrate(score: Floats, right: Bools, bins: int = 10) -> Calibration:
    """score: (D,) in 0..1. right: (D,)."""
    place = np.minimum((score * bins).astype(np.int64), bins - 1)
    count = np.bincount(place, minlength=bins)
    known = np.where(count, count, np.nan)
    mean_score = np.bincount(place, score, bins) / known
    share = np.bincount(place, right, bins) / known
    gap = np.nansum(count * np.abs(mean_score - share))
    return Calibration(count, mean_score, share, float(gap / len(score)) if len(score) else float("nan"))

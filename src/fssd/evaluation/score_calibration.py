"""Calibration of the scores: of the detections that score about 0.7, are seven in ten correct?"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np

from fssd.evaluation.pairing import Bools, Floats, Ints


class Calibration(NamedTuple):
    """Detections sorted by score into B bins of equal width from 0 to 1; the last one includes 1.

    detections: (B,) how many. score: (B,) their mean score. correct: (B,) the share of them that is correct;
    both are nan in an empty bin. error: expected calibration error (Naeini et al. 2015), which is the mean
    over the detections of |score - correct| of their bin; nan without a detection.
    """

    detections: Ints
    score: Floats
    correct: Floats
    error: float


def calibrate(score: Floats, correct: Bools, bins: int = 10) -> Calibration:
    """score: (D,) in 0..1. correct: (D,)."""
    index = np.minimum((score * bins).astype(np.int64), bins - 1)
    count = np.bincount(index, minlength=bins)
    known = np.where(count, count, np.nan)
    mean_score = np.bincount(index, score, bins) / known
    share = np.bincount(index, correct, bins) / known
    gap = np.nansum(count * np.abs(mean_score - share))
    return Calibration(count, mean_score, share, float(gap / len(score)) if len(score) else float("nan"))

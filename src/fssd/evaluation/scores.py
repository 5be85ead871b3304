"""What the scores mean: the threshold of each class with the best F1, and calibration."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np

from fssd.evaluation.pairing import Bools, Floats, Ints, Judgement

FALLBACK = 0.5  # for classes without a correct detection or without an object


class Sweep(NamedTuple):
    """Precision, recall and F1 of one class at each of its K distinct scores, highest first: all (K,)."""

    score: Floats
    precision: Floats
    recall: Floats
    f1: Floats


class BestThreshold(NamedTuple):
    """threshold: the lowest score to keep. precision, recall, f1: of the detections kept; nan if unknown."""

    threshold: float
    precision: float
    recall: float
    f1: float


def sweep(score: Floats, correct: Bools, objects: int) -> Sweep:
    """score, correct: (D,) of one class, in any order. objects: how many of the class there are."""
    order = np.argsort(-score, kind="stable")
    score, hits = score[order], np.cumsum(correct[order])
    # Detections with equal scores are kept or dropped together: only the last of them is a threshold.
    last = np.flatnonzero(np.append(np.diff(score) != 0, len(score) > 0))
    hits, shown = hits[last], last + 1.0
    recall = hits / objects if objects else np.full(len(last), np.nan)
    return Sweep(score[last], hits / shown, recall, 2 * hits / (shown + objects))


def best_threshold(curve: Sweep) -> BestThreshold:
    """The threshold with the best F1, the higher one of two equals; `FALLBACK` and nan if F1 is 0 at all."""
    if not len(curve.f1) or np.isnan(curve.recall[0]) or curve.f1.max() == 0:
        return BestThreshold(FALLBACK, float("nan"), float("nan"), float("nan"))
    best = int(curve.f1.argmax())
    return BestThreshold(*(float(column[best]) for column in curve))


def sweep_classes(judgement: Judgement) -> list[Sweep]:
    """One sweep for each class."""
    found = judgement.found
    objects = np.bincount(judgement.objects.label, minlength=len(judgement.classes))
    return [
        sweep(found.score[found.label == c], found.correct[found.label == c], int(objects[c]))
        for c in range(len(judgement.classes))
    ]


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
    """Compare scores, (D,) in 0..1, with how many of the detections are correct, (D,)."""
    index = np.minimum((score * bins).astype(np.int64), bins - 1)
    count = np.bincount(index, minlength=bins)
    known = np.where(count, count, np.nan)
    mean_score = np.bincount(index, score, bins) / known
    share = np.bincount(index, correct, bins) / known
    gap = np.nansum(count * np.abs(mean_score - share))
    return Calibration(count, mean_score, share, float(gap / len(score)) if len(score) else float("nan"))

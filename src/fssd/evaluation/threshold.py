"""The score threshold of each class with the best F1."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np

from fssd.evaluation.pairing import Bools, Floats, Judgement

FALLBACK = 0.5  # for classes without a correct detection or without an object


class Sweep(NamedTuple):
    """Precision, recall and F1 of one class at every score threshold, highest first.

    score, precision, recall, f1: (K,) one for each distinct score, which is the lowest score kept.
    """

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

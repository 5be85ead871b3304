"""Where to cut: the score above which detections of a class are worth showing."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np

from fssd.evaluation.pairing import Bools, Floats, Judgement

FALLBACK = 0.5  # for classes of which no detection is right, or which have no object to judge by


class Sweep(NamedTuple):
    """What detections of one class are worth if those below a score are dropped, best score first.

    score, precision, recall, f1: (K,) one for each distinct score.
    """

    score: Floats
    precision: Floats
    recall: Floats
    f1: Floats


class Cut(NamedTuple):
    """threshold: the least score to keep. precision, recall, f1: of what is kept; nan if unknown."""

    threshold: float
    precision: float
    recall: float
    f1: float


def sweep(score: Floats, right: Bools, objects: int) -> Sweep:
    """score, right: (D,) of one class, in any order. objects: how many of the class there are."""
    order = np.argsort(-score, kind="stable")
    score, hits = score[order], np.cumsum(right[order])
    last = np.flatnonzero(
        np.append(np.diff(score) != 0, len(score) > 0)
    )  # equal scores stand or fall together
    hits, shown = hits[last], last + 1.0
    recall = hits / objects if objects else np.full(len(last), np.nan)
    return Sweep(score[last], hits / shown, recall, 2 * hits / (shown + objects))


def best_cut(curve: Sweep) -> Cut:
    """The score with the best F1, the higher one of equals; `FALLBACK` and nan where F1 is never above 0."""
    if not len(curve.f1) or np.isnan(curve.recall[0]) or curve.f1.max() == 0:
        return Cut(FALLBACK, float("nan"), float("nan"), float("nan"))
    best = int(curve.f1.argmax())
    return Cut(*(float(column[best]) for column in curve))


def sweep_classes(judgement: Judgement) -> list[Sweep]:
    """One sweep for each class."""
    found = judgement.found
    objects = np.bincount(judgement.objects.label, minlength=len(judgement.classes))
    return [
        sweep(found.score[found.label == c], found.right[found.label == c], int(objects[c]))
        for c in range(len(judgement.classes))
    ]

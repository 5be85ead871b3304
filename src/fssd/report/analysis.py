"""Everything that a page says of one model on one data set, in numbers."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import NamedTuple, cast

import numpy as np

from fssd.config import Metric
from fssd.data.sample import DataSet
from fssd.evaluation.calibration import Calibration, calibrate
from fssd.evaluation.confusion import confusion_matrix
from fssd.evaluation.evaluate import Report, average_precisions, of_classes
from fssd.evaluation.mistakes import Errors, find_errors, gains
from fssd.evaluation.pairing import FREE, Floats, Ints, Judgement, judge
from fssd.evaluation.threshold import Cut, Sweep, best_cut, sweep_classes
from fssd.inference.detections import Detections


@dataclass(frozen=True)
class Analysis:
    """What `analyse` finds.

    report: of the metric. sizes: (C, 3) AP of small, medium and large objects. sweeps, cuts: of each class,
    what any threshold gives, and the best one. every: all detections, judged. shown: those at or above the
    best threshold of their class, which is what a user would see. errors: of `shown`. gains: mAP lost to each
    kind of mistake, of `every`. calibration: of `every`. confusion: (C + 1, C + 1), of `shown`.
    """

    report: Report
    sizes: Floats
    sweeps: tuple[Sweep, ...]
    cuts: tuple[Cut, ...]
    every: Judgement
    shown: Judgement
    errors: Errors
    gains: dict[str, float]
    calibration: Calibration
    confusion: Ints


class Tally:
    """Right detections, false alarms and lost objects of each image, (I,) each."""

    def __init__(self, judgement: Judgement) -> None:
        found, objects = judgement.found, judgement.objects
        self.right: Ints = np.bincount(found.image[found.right], minlength=judgement.images)
        self.false: Ints = np.bincount(found.image[~found.right], minlength=judgement.images)
        self.lost: Ints = np.bincount(objects.image[objects.finder == FREE], minlength=judgement.images)

    @property
    def f1(self) -> Floats:
        """(I,) F1 of each image; nan where there is nothing to find and nothing was found."""
        total = 2 * self.right + self.false + self.lost
        known = np.where(total, total, np.nan)
        return np.asarray(2 * self.right / known)


class Totals(NamedTuple):
    """Right detections, false alarms and lost objects of a judgement."""

    right: int
    false: int
    lost: int

    @classmethod
    def of(cls, judgement: Judgement) -> Totals:
        right = int(judgement.found.right.sum())
        return cls(right, len(judgement.found.score) - right, len(judgement.objects.label) - right)

    @property
    def precision(self) -> float:
        """Share of the detections that is right; nan without any."""
        return _share(self.right, self.right + self.false)

    @property
    def recall(self) -> float:
        """Share of the objects that is found; nan without any."""
        return _share(self.right, self.right + self.lost)

    @property
    def f1(self) -> float:
        """Harmonic mean of the two; nan where there is nothing to find and nothing was found."""
        return _share(2 * self.right, 2 * self.right + self.false + self.lost)


def analyse(dataset: DataSet, detections: Sequence[Detections], report: Report) -> Analysis:
    """Look at one Detections per record, which `report` is the evaluation of.

    Beside the metric's own numbers everything is counted at one overlap: the metric's, or 0.5 for COCO's.
    """
    iou = 0.5 if report.iou is None else report.iou
    found = [of_classes(d, dataset.classes) for d in detections]
    every = judge(dataset, found, iou)
    sweeps = tuple(sweep_classes(every))
    cuts = tuple(map(best_cut, sweeps))
    shown = judge(dataset, above(found, [cut.threshold for cut in cuts]), iou)
    return Analysis(
        report,
        average_precisions(dataset, detections, cast("Metric", report.metric), iou),
        sweeps,
        cuts,
        every,
        shown,
        find_errors(shown),
        gains(every, find_errors(every)),
        calibrate(every.found.score, every.found.right),
        confusion_matrix(shown),
    )


def above(detections: Sequence[Detections], thresholds: Sequence[float]) -> list[Detections]:
    """The detections that reach the threshold of their class, (C,)."""
    least = np.array(thresholds, np.float64)
    kept = []
    for found in detections:
        rows = found.scores.astype(np.float64) >= least[found.labels]
        kept.append(Detections(found.boxes[rows], found.scores[rows], found.labels[rows], found.classes))
    return kept


def _share(part: int, whole: int) -> float:
    return part / whole if whole else math.nan

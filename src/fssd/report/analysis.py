"""All the numbers that a page shows about one model on one data set."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import NamedTuple, cast

import numpy as np

from fssd.config import Metric
from fssd.data.sample import DataSet
from fssd.evaluation.evaluate import Report, average_precisions, relabel
from fssd.evaluation.mistakes import Errors, confusion_matrix, find_errors, gains
from fssd.evaluation.pairing import FREE, Floats, Ints, Judgement, judge
from fssd.evaluation.scores import BestThreshold, Calibration, Sweep, best_threshold, calibrate, sweep_classes
from fssd.inference.detections import Detections
from fssd.report.layout import plural


@dataclass(frozen=True)
class Analysis:
    """The result of `analyse`.

    report: of the metric. sizes: (C, 3) AP of small, medium and large objects. sweeps, best: for each class,
    precision and recall at every threshold, and the best threshold. every: all detections, paired with the
    objects. shown: those at or above the best threshold of their class, which is what a user would see.
    errors: of `shown`. gains: mAP lost to each kind of mistake, of `every`. calibration: of `every`.
    confusion: (C + 1, C + 1), of `shown`.
    """

    report: Report
    sizes: Floats
    sweeps: tuple[Sweep, ...]
    best: tuple[BestThreshold, ...]
    every: Judgement
    shown: Judgement
    errors: Errors
    gains: dict[str, float]
    calibration: Calibration
    confusion: Ints


class Tally:
    """Correct detections, false positives and missed objects (false negatives) of each image, (I,) each."""

    def __init__(self, judgement: Judgement) -> None:
        found, objects = judgement.found, judgement.objects
        self.correct: Ints = np.bincount(found.image[found.correct], minlength=judgement.images)
        self.false_positives: Ints = np.bincount(found.image[~found.correct], minlength=judgement.images)
        self.missed: Ints = np.bincount(objects.image[objects.finder == FREE], minlength=judgement.images)

    @property
    def f1(self) -> Floats:
        """(I,) F1 of each image; nan where there is no object and no detection."""
        total = 2 * self.correct + self.false_positives + self.missed
        return np.asarray(2 * self.correct / np.where(total, total, np.nan))

    def words(self, image: int) -> str:
        false_positives = plural(int(self.false_positives[image]), "false positive")
        return f"{self.correct[image]} correct, {false_positives}, {self.missed[image]} missed"


class Totals(NamedTuple):
    """Correct detections, false positives and missed objects (false negatives) of a judgement.

    precision is nan without a detection, recall without an object, f1 without either.
    """

    correct: int
    false_positives: int
    missed: int

    @classmethod
    def of(cls, judgement: Judgement) -> Totals:
        correct = int(judgement.found.correct.sum())
        return cls(correct, len(judgement.found.score) - correct, len(judgement.objects.label) - correct)

    @property
    def precision(self) -> float:
        return _share(self.correct, self.correct + self.false_positives)

    @property
    def recall(self) -> float:
        return _share(self.correct, self.correct + self.missed)

    @property
    def f1(self) -> float:
        return _share(2 * self.correct, 2 * self.correct + self.false_positives + self.missed)


def analyse(dataset: DataSet, detections: Sequence[Detections], report: Report) -> Analysis:
    """Analyse one Detections per record. report: the evaluation of these detections.

    Apart from the numbers of the metric, everything is counted at one IoU: the metric's, or 0.5 for COCO's.
    """
    iou = 0.5 if report.iou is None else report.iou
    found = [relabel(d, dataset.classes) for d in detections]
    every = judge(dataset, found, iou)
    sweeps = tuple(sweep_classes(every))
    best = tuple(map(best_threshold, sweeps))
    shown = judge(dataset, above(found, [one.threshold for one in best]), iou)
    return Analysis(
        report,
        average_precisions(dataset, detections, cast("Metric", report.metric), iou),
        sweeps,
        best,
        every,
        shown,
        find_errors(shown),
        gains(every, find_errors(every)),
        calibrate(every.found.score, every.found.correct),
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

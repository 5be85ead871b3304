"""All the numbers that a page shows about one model on one data set."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import NamedTuple, cast

import numpy as np

from fssd.config.train_config import Metric
from fssd.counted import counted
from fssd.data.sample import DataSet
from fssd.evaluation.evaluate import Report, average_precisions, relabel
from fssd.evaluation.mistakes import Errors, confusion_matrix, find_errors, gains
from fssd.evaluation.pairing import FREE, Floats, Ints, Judgement, judge
from fssd.evaluation.scores import BestThreshold, Calibration, Sweep, best_threshold, calibrate, sweep_classes
from fssd.inference.detections import Detections


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


class Tally(NamedTuple):
    """Correct detections, false positives and missed objects (false negatives), arrays of one shape.

    precision is nan without a detection, recall without an object, f1 without either.
    """

    correct: Ints
    false_positives: Ints
    missed: Ints

    @classmethod
    def by_image(cls, judgement: Judgement) -> Tally:
        """(I,) each."""
        found, objects = judgement.found, judgement.objects
        images = (found.image[found.correct], found.image[~found.correct])
        groups = (*images, objects.image[objects.finder == FREE])
        return cls(*(np.bincount(group, minlength=judgement.images) for group in groups))

    @classmethod
    def total(cls, judgement: Judgement) -> Tally:
        """() each, over all images."""
        return cls(*(np.asarray(counts.sum()) for counts in cls.by_image(judgement)))

    @property
    def precision(self) -> Floats:
        return _share(self.correct, self.correct + self.false_positives)

    @property
    def recall(self) -> Floats:
        return _share(self.correct, self.correct + self.missed)

    @property
    def f1(self) -> Floats:
        return _share(2 * self.correct, 2 * self.correct + self.false_positives + self.missed)

    def words(self, image: int) -> str:
        false_positives = counted(int(self.false_positives[image]), "false positive")
        return f"{self.correct[image]} correct, {false_positives}, {self.missed[image]} missed"


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


def _share(part: Ints, whole: Ints) -> Floats:
    return np.asarray(part / np.where(whole, whole, np.nan))

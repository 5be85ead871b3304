"""Confidence interval of a difference in mAP: the paired bootstrap over images (Efron 1979).

The images are resampled many times with replacement, always as many as there are, and both models are
measured on every resample. The spread of the differences shows how the result could vary with other images of
the same kind. It does not show how it could vary with another training of the same models.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np

from fssd.config.train_config import Metric
from fssd.data.sample import DataSet
from fssd.evaluation.evaluate import relabel, voc_precision
from fssd.evaluation.known_classes import ignored_objects
from fssd.evaluation.pairing import Bools, Floats, Ints, judge
from fssd.evaluation.voc_ap import COCO_RECALLS, ELEVEN_RECALLS
from fssd.inference.detections import Detections

COCO_IOUS = np.linspace(0.5, 0.95, 10)
COCO_LIMIT = 100  # detections of a class in an image
CHUNK = 500_000  # weights in memory at a time


class Ranked(NamedTuple):
    """The detections of one class that are not ignored, best score first. correct: (K,). image: (K,)."""

    correct: Bools
    image: Ints


@dataclass(frozen=True)
class Rankings:
    """What is needed to compute the AP of one model again with other weights of the images.

    curves: for each overlap threshold of the metric, one `Ranked` per class. objects: (C, I) objects to find.
    recalls: where precision is read; None for the area under its envelope.
    """

    curves: tuple[tuple[Ranked, ...], ...]
    objects: Ints
    recalls: Floats | None

    def ap(self, weights: Ints) -> Floats:
        """(R, I) how often each image counts -> (R, C) AP; nan where a class has no object."""
        positives = weights @ self.objects.T  # (R, C)
        each = [
            np.stack([self._ap(ranked, weights, positives[:, c]) for c, ranked in enumerate(row)], axis=1)
            for row in self.curves
        ]
        return np.asarray(np.mean(each, axis=0))

    def _ap(self, ranked: Ranked, weights: Ints, positives: Ints) -> Floats:
        rows = max(1, CHUNK // max(1, len(ranked.correct)))
        parts = [
            _weighted_ap(ranked, weights[start : start + rows], positives[start : start + rows], self.recalls)
            for start in range(0, len(weights), rows)
        ]
        return np.concatenate(parts)


class Difference(NamedTuple):
    """B minus A; low, high: the middle 95 % of the resamples; share: of those with B above A; or nan."""

    value: float
    low: float
    high: float
    share: float


class Comparison(NamedTuple):
    """mean: of the mAP. classes: of the AP of each class. resamples: (R,) differences in mAP."""

    mean: Difference
    classes: tuple[Difference, ...]
    resamples: Floats


def rank(dataset: DataSet, detections: Sequence[Detections], metric: Metric, iou: float = 0.5) -> Rankings:
    """The rankings of one Detections per record. iou: for the VOC metrics only."""
    objects = np.zeros((len(dataset.classes), len(dataset)), np.int64)
    for image, record in enumerate(dataset.records):
        np.add.at(objects[:, image], record.labels[~ignored_objects(record)], 1)
    if metric == "coco":
        return Rankings(tuple(_coco_curves(dataset, detections)), objects, COCO_RECALLS)
    found = [relabel(d, dataset.classes) for d in detections]
    result = voc_precision(dataset, found, metric, iou)
    row = tuple(_ranked(curve.correct, curve.images) for curve in result.curves)
    return Rankings((row,), objects, ELEVEN_RECALLS if metric == "voc07" else None)


def compare_rankings(a: Rankings, b: Rankings, resamples: int = 1000, seed: int = 0) -> Comparison:
    """The difference between two models on the same images."""
    images = a.objects.shape[1]
    once = np.ones((1, images), np.int64)
    weights = np.random.default_rng(seed).multinomial(images, np.full(images, 1 / images), resamples)
    value_a, value_b = a.ap(once)[0], b.ap(once)[0]
    sampled_a, sampled_b = a.ap(weights), b.ap(weights)  # (R, C)
    means = _row_means(sampled_b) - _row_means(sampled_a)
    whole = float((_row_means(value_b[None]) - _row_means(value_a[None]))[0])
    classes = zip(value_b - value_a, (sampled_b - sampled_a).T, strict=True)
    return Comparison(_difference(whole, means), tuple(_difference(float(v), d) for v, d in classes), means)


def _coco_curves(dataset: DataSet, detections: Sequence[Detections]) -> Iterator[tuple[Ranked, ...]]:
    limited = [_limit(relabel(d, dataset.classes)) for d in detections]
    for iou in COCO_IOUS:
        found = judge(dataset, limited, float(iou), once=True).found
        order = np.argsort(-found.score, kind="stable")
        correct, image, label = found.correct[order], found.image[order], found.label[order]
        yield tuple(_ranked(correct[label == c], image[label == c]) for c in range(len(dataset.classes)))


def _limit(found: Detections) -> Detections:
    """The best detections of each class, as many as COCO uses."""
    order = np.argsort(-found.scores, kind="stable")
    keep = [order[found.labels[order] == label][:COCO_LIMIT] for label in np.unique(found.labels)]
    rows = np.concatenate([np.zeros(0, np.int64), *keep])
    return Detections(found.boxes[rows], found.scores[rows], found.labels[rows], found.classes)


def _ranked(correct: Bools, image: Ints) -> Ranked:
    """Drops the detections after the last correct one: AP does not depend on them."""
    end = int(np.flatnonzero(correct)[-1]) + 1 if correct.any() else 0
    return Ranked(correct[:end], image[:end])


def _weighted_ap(ranked: Ranked, weights: Ints, positives: Ints, recalls: Floats | None) -> Floats:
    """(R, I) weights and (R,) objects -> (R,) AP, as if each image occurred as often as its weight says."""
    known = np.where(positives, positives, np.nan)
    if not len(ranked.correct):
        return np.where(positives, 0.0, np.nan)
    # Precision is needed at the N correct detections only: first sum up the false positives between two.
    starts = np.append(0, np.flatnonzero(ranked.correct)[:-1] + 1)
    weight = np.ascontiguousarray(weights.T, np.float32)[ranked.image]  # (K, R); whole numbers, exact
    hits = np.cumsum(weight[ranked.correct], axis=0, dtype=np.float64)  # (N, R)
    shown = np.cumsum(np.add.reduceat(weight, starts, axis=0), axis=0, dtype=np.float64)
    precision = np.divide(hits, shown, out=np.zeros_like(hits), where=shown > 0)
    envelope = np.maximum.accumulate(precision[::-1], axis=0)[::-1]
    recall = hits / known
    if recalls is None:
        area = (np.diff(recall, axis=0, prepend=0.0) * envelope).sum(axis=0)
        return np.where(positives, area, np.nan)
    read = [
        np.append(best, 0.0)[np.searchsorted(reached, recalls, "left")].mean()
        for best, reached in zip(envelope.T, recall.T, strict=True)
    ]
    return np.where(positives, read, np.nan)


def _row_means(values: Floats) -> Floats:
    """(R, C) -> (R,) mean of the values that are not nan; nan for a row without any."""
    known = ~np.isnan(values)
    count = known.sum(axis=1)
    total: Floats = np.where(known, values, 0.0).sum(axis=1)
    return np.asarray(np.where(count, total, np.nan) / np.maximum(count, 1))


def _difference(value: float, resamples: Floats) -> Difference:
    resamples = resamples[~np.isnan(resamples)]
    if not len(resamples):
        return Difference(value, float("nan"), float("nan"), float("nan"))
    low, high = np.quantile(resamples, [0.025, 0.975])
    return Difference(value, float(low), float(high), float((resamples > 0).mean()))

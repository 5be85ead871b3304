"""Average precision as Pascal VOC measures it (VOCevaldet.m of the development kit), with numpy only.

A detection takes the object of its class that it overlaps most. It is right if that overlap reaches the
threshold and no detection with a better score took the object; otherwise it is a false alarm. Detections on
difficult objects count neither way.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt

Array = npt.NDArray[Any]
Floats = npt.NDArray[np.float64]
Ints = npt.NDArray[np.int64]
Bools = npt.NDArray[np.bool_]

# Written k / 10 so that a recall of exactly 3 of 10 counts as reached; 0:0.1:1 gives 0.30000000000000004.
ELEVEN_RECALLS: Floats = np.arange(11) / 10


@dataclass(frozen=True)
class AveragePrecision:
    """Average precision of each class, and the curves it was read from.

    ap: (C,) float64 in 0..1; nan for a class without an object that counts, since nothing can be said of it.
    mean: the mean of `ap` over the classes that have objects; nan if none has.
    positives: (C,) int64, objects that count, the difficult ones left out.
    recall, precision, scores: for each class (K,) float64, one point per detection that counts, best score
    first: what recall and precision are if the detector stops at that score. Empty where `ap` is nan.
    right: for each class (K,) bool, whether the detection is right. images: (K,) int64, the image it is in.
    """

    ap: Floats
    mean: float
    positives: Ints
    recall: tuple[Floats, ...]
    precision: tuple[Floats, ...]
    scores: tuple[Floats, ...]
    right: tuple[Bools, ...]
    images: tuple[Ints, ...]


class _Curve(NamedTuple):
    """One class of an `AveragePrecision`, (K,) each."""

    recall: Floats
    precision: Floats
    scores: Floats
    right: Bools
    images: Ints


@dataclass(frozen=True)
class _Objects:
    """Boxes of all images in one table. boxes: (N, 4). image: (N,), ascending. flags: (N,). scores: (N,)."""

    boxes: Floats
    image: Ints
    flags: Bools
    scores: Floats

    def __getitem__(self, rows: Ints) -> _Objects:
        return _Objects(self.boxes[rows], self.image[rows], self.flags[rows], self.scores[rows])


def voc_average_precision(
    *,
    truth_boxes: Sequence[Array],
    truth_labels: Sequence[Array],
    truth_difficult: Sequence[Array],
    boxes: Sequence[Array],
    scores: Sequence[Array],
    labels: Sequence[Array],
    classes: int,
    iou: float = 0.5,
    eleven_points: bool = False,
    spared: Sequence[Array] | None = None,
) -> AveragePrecision:
    """Average precision of each class over I images; every sequence has one array per image.

    truth_boxes: (G, 4) xyxy pixels. truth_labels: (G,) in 0..classes-1. truth_difficult: (G,) bool.
    boxes: (D, 4) xyxy pixels. scores, labels: (D,). G and D differ from image to image and may be 0.
    iou: an object counts as found from this overlap on (inclusive), in 0..1.
    eleven_points: True for the eleven-point mean of VOC 2007, False for the area under the precision envelope
    (VOC 2010 and later).
    spared: (D,) bool, detections that are no false alarm even if they find nothing; none by default.

    Detections with equal scores stay in the order given. Boxes follow the kit's pixel convention: the last
    row and column belong to the box, so its width is x2 - x1 + 1.
    """
    if not 0 < iou <= 1:
        raise ValueError(f"iou is {iou}, but an overlap threshold lies above 0 and at most at 1")
    if len(truth_boxes) != len(boxes):
        raise ValueError(f"truths of {len(truth_boxes)} images, but detections of {len(boxes)}")
    if spared is None:
        spared = [np.zeros(len(s), bool) for s in scores]
    truths = _table(truth_boxes, truth_labels, truth_difficult, None, classes)
    found = _table(boxes, labels, spared, scores, classes)
    curves = [_curve(f, t, iou) for f, t in zip(found, truths, strict=True)]
    summarise = _eleven_point_mean if eleven_points else _area_under_envelope
    positives = np.array([np.count_nonzero(~t.flags) for t in truths], np.int64)
    ap = np.array(
        [summarise(c.recall, c.precision) if n else np.nan for c, n in zip(curves, positives, strict=True)],
        np.float64,
    )
    return AveragePrecision(
        ap,
        float(ap[positives > 0].mean()) if positives.any() else float("nan"),
        positives,
        tuple(c.recall for c in curves),
        tuple(c.precision for c in curves),
        tuple(c.scores for c in curves),
        tuple(c.right for c in curves),
        tuple(c.images for c in curves),
    )


def _table(
    boxes: Sequence[Array],
    labels: Sequence[Array],
    flags: Sequence[Array],
    scores: Sequence[Array] | None,
    classes: int,
) -> list[_Objects]:
    """One table per class from one array per image, image after image."""
    sizes = [len(b) for b in boxes]
    for name, column in (
        ("labels", labels),
        ("flags", flags),
        ("scores", boxes if scores is None else scores),
    ):
        if [len(c) for c in column] != sizes:
            raise ValueError(f"boxes and {name} differ in length in some image")
    label = _joined(labels, np.int64)
    if label.size and not 0 <= label.min() <= label.max() < classes:
        raise ValueError(f"a label lies outside 0..{classes - 1}")
    table = _Objects(
        _joined(boxes, np.float64).reshape(-1, 4),
        np.repeat(np.arange(len(sizes)), sizes),
        _joined(flags, np.bool_),
        np.zeros(len(label)) if scores is None else _joined(scores, np.float64),
    )
    by_class = np.argsort(label, kind="stable")
    ends = np.cumsum(np.bincount(label, minlength=classes))
    return [table[rows] for rows in np.split(by_class, ends[:-1])]


def _joined(arrays: Sequence[Array], dtype: Any) -> Array:
    return np.concatenate([np.zeros(0, dtype), *(np.asarray(a, dtype).ravel() for a in arrays)])


def _curve(found: _Objects, truths: _Objects, iou: float) -> _Curve:
    """The curve of one class; empty if no object counts."""
    positives = np.count_nonzero(~truths.flags)
    if not positives:
        return _Curve(np.zeros(0), np.zeros(0), np.zeros(0), np.zeros(0, bool), np.zeros(0, np.int64))
    found = found[np.argsort(-found.scores, kind="stable")]
    overlap, match = _best_overlap(found, truths)
    right, counts = _judge(overlap >= iou, match, truths.flags, found.flags)
    right = right[counts]  # (K,)
    hits = np.cumsum(right)
    precision = hits / np.arange(1, len(hits) + 1)
    return _Curve(hits / positives, precision, found.scores[counts], right, found.image[counts])


def _best_overlap(found: _Objects, truths: _Objects) -> tuple[Floats, Ints]:
    """For each of D detections: the largest IoU with a truth of its image, (D,), and its row in `truths`.

    The first of equal overlaps wins, as in the kit. Without a truth in the image: 0 and -1.
    """
    start = np.searchsorted(truths.image, found.image, "left")
    count = np.searchsorted(truths.image, found.image, "right") - start
    best = np.zeros(len(start))
    match = np.full(len(start), -1, np.int64)
    # Round k compares every detection with the k-th truth of its image: the memory stays (D,), however many
    # objects the fullest image has.
    active = np.flatnonzero(count > 0)
    k = 0
    while active.size:
        rival = start[active] + k
        overlap = _iou(found.boxes[active], truths.boxes[rival])
        better = overlap > best[active]
        best[active[better]] = overlap[better]
        match[active[better]] = rival[better]
        k += 1
        active = active[count[active] > k]
    return best, match


def _iou(a: Floats, b: Floats) -> Floats:
    """(N, 4) and (N, 4) xyxy, last pixel included -> (N,) intersection over union of each pair."""
    sides = np.minimum(a[:, 2:], b[:, 2:]) - np.maximum(a[:, :2], b[:, :2]) + 1
    common = np.where((sides > 0).all(1), sides[:, 0] * sides[:, 1], 0.0)
    areas = (a[:, 2:] - a[:, :2] + 1).prod(1) + (b[:, 2:] - b[:, :2] + 1).prod(1)
    return np.asarray(common / (areas - common), np.float64)


def _judge(hit: Bools, match: Ints, difficult: Bools, spared: Bools) -> tuple[Bools, Bools]:
    """Which detections, (D,) best score first, are right, and which count at all."""
    rows = np.flatnonzero(hit)
    _, first = np.unique(match[rows], return_index=True)  # the best score on each object
    on_difficult = np.zeros(len(hit), bool)
    on_difficult[rows] = difficult[match[rows]]
    right = np.zeros(len(hit), bool)
    right[rows[first]] = True
    right &= ~on_difficult
    return right, right | ~(on_difficult | spared)


def _envelope(precision: Floats) -> Floats:
    """The best precision at this recall or any higher one, (K,)."""
    return np.asarray(np.maximum.accumulate(precision[::-1])[::-1])


def _eleven_point_mean(recall: Floats, precision: Floats) -> float:
    """Mean of the best precision at recall 0, 0.1, ... 1 or above (VOC 2007); 0 where not reached."""
    best = np.append(_envelope(precision), 0.0)
    return float(best[np.searchsorted(recall, ELEVEN_RECALLS, "left")].mean())


def _area_under_envelope(recall: Floats, precision: Floats) -> float:
    """Area under the envelope of precision over recall (VOC 2010 and later)."""
    return float(np.sum(np.diff(recall, prepend=0.0) * _envelope(precision)))

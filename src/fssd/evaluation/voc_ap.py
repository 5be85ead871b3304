"""Average precision as Pascal VOC measures it (VOCevaldet.m of the development kit), with numpy only.

A detection takes the object of its class that it overlaps most. It is correct if that overlap reaches the
threshold and no detection with a better score took the object; otherwise it is a false positive. Detections
on difficult objects are ignored: neither a hit nor a false positive.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt

Array = npt.NDArray[Any]
Floats = npt.NDArray[np.float64]
Ints = npt.NDArray[np.int64]
Bools = npt.NDArray[np.bool_]

# Written k / 10 so that a recall of exactly 3 of 10 counts as reached; 0:0.1:1 gives 0.30000000000000004.
ELEVEN_RECALLS: Floats = np.arange(11) / 10
COCO_RECALLS: Floats = np.linspace(0, 1, 101)


class PrecisionCurve(NamedTuple):
    """The detections of a class that are not ignored, best score first, (K,) each.

    recall, precision: if this score is the threshold. correct: whether it is correct. images: its image.
    Empty if there is no object to find.
    """

    recall: Floats
    precision: Floats
    correct: Bools
    images: Ints


class AveragePrecision(NamedTuple):
    """Average precision of each class, and the curves it was read from.

    ap: (C,) float64 in 0..1; nan for a class without an object to find, for which AP is not defined.
    mean: the mean of `ap` over the classes that have objects; nan if none has.
    """

    ap: Floats
    mean: float
    curves: list[PrecisionCurve]


class _Objects(NamedTuple):
    """Boxes of all images in one table. boxes: (N, 4). image: (N,), ascending. flags: (N,) to be ignored:
    difficult objects, or detections that are no false positive. scores: (N,).
    """

    boxes: Floats
    image: Ints
    flags: Bools
    scores: Floats

    def rows(self, rows: Ints) -> _Objects:
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
    ignored: Sequence[Array] | None = None,
) -> AveragePrecision:
    """Average precision of each class over I images; every sequence has one array per image.

    truth_boxes: (G, 4) xyxy pixels. truth_labels: (G,) in 0..classes-1. truth_difficult: (G,) bool.
    boxes: (D, 4) xyxy pixels. scores, labels: (D,). G and D differ from image to image and may be 0.
    iou: the least overlap of a found object (inclusive), in 0..1.
    eleven_points: True for the eleven-point mean of VOC 2007, False for the area under the precision envelope
    (VOC 2010 and later).
    ignored: (D,) bool, detections that are no false positive even if they find nothing; none by default.

    Detections with equal scores stay in the order given. Boxes follow the kit's pixel convention: the last
    row and column belong to the box, so its width is x2 - x1 + 1.
    """
    if not 0 < iou <= 1:
        raise ValueError(f"iou is {iou}, but an overlap threshold lies above 0 and at most at 1")
    if len(truth_boxes) != len(boxes):
        raise ValueError(f"truths of {len(truth_boxes)} images, but detections of {len(boxes)}")
    if ignored is None:
        ignored = [np.zeros(len(s), bool) for s in scores]
    truths = _table(truth_boxes, truth_labels, truth_difficult, None, classes)
    found = _table(boxes, labels, ignored, scores, classes)
    curves = [_curve(f, t, iou) for f, t in zip(found, truths, strict=True)]
    recalls = ELEVEN_RECALLS if eleven_points else None
    known = np.array([not t.flags.all() for t in truths], bool)
    ap = np.array([mean_precision(curve.recall, curve.precision, recalls) for curve in curves], np.float64)
    ap[~known] = np.nan
    return AveragePrecision(ap, float(ap[known].mean()) if known.any() else float("nan"), curves)


def _table(
    boxes: Sequence[Array],
    labels: Sequence[Array],
    flags: Sequence[Array],
    scores: Sequence[Array] | None,
    classes: int,
) -> list[_Objects]:
    """One table per class, made of one array per image, image after image."""
    sizes = [len(b) for b in boxes]
    columns = {"labels": labels, "flags": flags, "scores": boxes if scores is None else scores}
    for name, column in columns.items():
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
    return [table.rows(rows) for rows in np.split(by_class, ends[:-1])]


def _joined(arrays: Sequence[Array], dtype: Any) -> Array:
    return np.concatenate([np.zeros(0, dtype), *(np.asarray(a, dtype).ravel() for a in arrays)])


def _curve(found: _Objects, truths: _Objects, iou: float) -> PrecisionCurve:
    positives = np.count_nonzero(~truths.flags)
    if not positives:
        return PrecisionCurve(np.zeros(0), np.zeros(0), np.zeros(0, bool), np.zeros(0, np.int64))
    found = found.rows(np.argsort(-found.scores, kind="stable"))
    overlap, match = _best_overlap(found, truths)
    correct, counts = _judge(overlap >= iou, match, truths.flags, found.flags)
    correct = correct[counts]  # (K,)
    hits = np.cumsum(correct)
    precision = hits / np.arange(1, len(hits) + 1)
    return PrecisionCurve(hits / positives, precision, correct, found.image[counts])


def _best_overlap(found: _Objects, truths: _Objects) -> tuple[Floats, Ints]:
    """For each of D detections: the largest IoU with a truth of its image, (D,), and its row in `truths`.

    The first of equal overlaps wins, as in the kit. Without a truth in the image: 0 and -1.
    """
    start = np.searchsorted(truths.image, found.image, "left")
    count = np.searchsorted(truths.image, found.image, "right") - start
    best = np.zeros(len(start))
    match = np.full(len(start), -1, np.int64)
    # Round k compares every detection with the k-th truth of its image, so that memory stays (D,) however
    # many objects an image has.
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


def _judge(hit: Bools, match: Ints, difficult: Bools, ignored: Bools) -> tuple[Bools, Bools]:
    """For D detections, best score first: whether each is correct, and whether it is not ignored, (D,)."""
    rows = np.flatnonzero(hit)
    _, first = np.unique(match[rows], return_index=True)  # the best score on each object
    on_difficult = np.zeros(len(hit), bool)
    on_difficult[rows] = difficult[match[rows]]
    correct = np.zeros(len(hit), bool)
    correct[rows[first]] = True
    correct &= ~on_difficult
    return correct, correct | ~(on_difficult | ignored)


def mean_precision(recall: Floats, precision: Floats, recalls: Floats | None) -> float:
    """The mean of the precision's envelope, which is the best precision at a recall or any higher one.

    recall, precision: (K,), one point per detection. recalls: where to read the envelope (VOC 2007 and COCO);
    it is 0 where a recall is not reached. None for the area under the envelope (VOC 2010 and later).
    """
    envelope = np.maximum.accumulate(precision[::-1])[::-1]
    if recalls is None:
        return float(np.sum(np.diff(recall, prepend=0.0) * envelope))
    return float(np.append(envelope, 0.0)[np.searchsorted(recall, recalls, "left")].mean())

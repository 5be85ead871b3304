"""Pairs detections with objects by COCO's rule: which detections are correct, which objects are found.

Detections choose in order of their scores. Each takes the free object of its class that it overlaps most, if
that overlap reaches the threshold. A detection without an object is a false positive, unless it lies on a
difficult object or a crowd of its class: these take any number of detections, and both are ignored. In
COCO's own numbers a difficult object takes one, like any other.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
import numpy.typing as npt

from fssd.boxes import areas, intersections, overlaps
from fssd.data.sample import DataSet, Record
from fssd.evaluation.evaluate import relabel
from fssd.evaluation.known_classes import ignored_objects
from fssd.inference.detections import Detections

Floats = npt.NDArray[np.float64]
Ints = npt.NDArray[np.int64]
Bools = npt.NDArray[np.bool_]

FREE = -1  # instead of a row index: no partner


class PairedDetections(NamedTuple):
    """The D detections that are not ignored, image after image, best score first in each image.

    image: (D,) index of the record. boxes: (D, 4) xyxy pixels. score: (D,). label: (D,) in the data set.
    object: (D,) row of the object it found, -1 for a false positive.
    """

    image: Ints
    boxes: Floats
    score: Floats
    label: Ints
    object: Ints

    @property
    def correct(self) -> Bools:
        return np.asarray(self.object != FREE)


class PairedObjects(NamedTuple):
    """The G objects that are not ignored, image after image, in the order of the label files.

    image, boxes, label: as in `PairedDetections`. finder: (G,) row of the detection that found it, or -1.
    """

    image: Ints
    boxes: Floats
    label: Ints
    finder: Ints


class Judgement(NamedTuple):
    """classes: names by label. iou: the least overlap of a found object. images: how many there are."""

    found: PairedDetections
    objects: PairedObjects
    classes: tuple[str, ...]
    iou: float
    images: int


def judge(
    dataset: DataSet, detections: Sequence[Detections], iou: float = 0.5, *, once: bool = False
) -> Judgement:
    """Pair the detections of each record with its objects by class name; other classes are left out.

    once: a difficult object takes one detection, not any number.
    """
    nothing, no_box = np.zeros(0, np.int64), np.zeros((0, 4))
    found_parts = [PairedDetections(nothing, no_box, np.zeros(0), nothing, nothing)]
    object_parts = [PairedObjects(nothing, no_box, nothing, nothing)]
    found_rows = object_rows = 0
    for image, (record, given) in enumerate(zip(dataset.records, detections, strict=True)):
        found = relabel(given, dataset.classes)
        order = np.argsort(-found.scores, kind="stable")
        boxes, labels = found.boxes[order].astype(np.float64), found.labels[order]
        taken, ignored = _pair(boxes, labels, record, iou, once)
        kept, counted = np.flatnonzero(~ignored), np.flatnonzero(~ignored_objects(record))
        # From indices among all objects of the image to rows of the table of objects that are not ignored.
        partner = np.searchsorted(counted, taken[kept]) + object_rows
        partner[taken[kept] == FREE] = FREE
        finder = np.full(len(counted), FREE, np.int64)
        hits = np.flatnonzero(partner != FREE)
        finder[partner[hits] - object_rows] = hits + found_rows
        scores, own = found.scores[order][kept].astype(np.float64), record.boxes[counted].astype(np.float64)
        images = np.full(len(kept), image)
        found_parts.append(PairedDetections(images, boxes[kept], scores, labels[kept], partner))
        object_parts.append(PairedObjects(np.full(len(own), image), own, record.labels[counted], finder))
        found_rows += len(kept)
        object_rows += len(counted)
    detected = PairedDetections(*map(np.concatenate, zip(*found_parts, strict=True)))
    objects = PairedObjects(*map(np.concatenate, zip(*object_parts, strict=True)))
    return Judgement(detected, objects, dataset.classes, iou, len(dataset))


def rows_of(images: Ints, image: int) -> Ints:
    """The rows of one image. images: (N,), ascending."""
    return np.arange(*np.searchsorted(images, [image, image + 1]))


def _pair(boxes: Floats, labels: Ints, record: Record, iou: float, once: bool) -> tuple[Ints, Bools]:
    """For D detections, best first: the object each takes, (D,), -1 for none; whether it is ignored, (D,)."""
    taken = np.full(len(boxes), FREE, np.int64)
    ignored = np.zeros(len(boxes), bool)
    counted = ~ignored_objects(record)
    overlap = overlaps(boxes, record.boxes.astype(np.float64))
    if record.crowd.any():  # COCO: overlap with a crowd is the share of the detection's own area inside it
        crowd = record.boxes[record.crowd].astype(np.float64)
        own = np.maximum(areas(boxes), np.finfo(np.float64).tiny)[:, None]
        overlap[:, record.crowd] = intersections(boxes, crowd) / own
    hit = (overlap >= iou) & (labels[:, None] == record.labels[None])  # (D, G)
    free, used = counted.copy(), np.zeros(len(counted), bool)
    for row in np.flatnonzero(hit.any(axis=1)):
        rivals = np.flatnonzero(hit[row] & free)
        if len(rivals):
            taken[row] = rivals[np.argmax(overlap[row, rivals])]
            free[taken[row]] = False
            continue
        passed = np.flatnonzero(hit[row] & ~counted & ~used)
        ignored[row] = len(passed) > 0
        if once and len(passed):
            best = passed[np.argmax(overlap[row, passed])]
            used[best] = not record.crowd[best]
    return taken, ignored

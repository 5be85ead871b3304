"""The kind of each mistake, as TIDE (Bolya et al. 2020) defines them.

Let f be the least overlap of a found object and b the largest overlap of a detection on background. A false
positive is the first of these that fits:

    localisation     overlaps an object of its class by b to f: the class is correct, the box is not
    classification   overlaps an object of another class by f or more: the box is correct, the class is not
    duplicate        overlaps an object of its class by f or more, which a better score had taken
    background       overlaps no object by more than b
    both             anything else: neither class nor box is correct

An object that no detection found is missed, unless a classification or localisation error is about it:
correcting that error would find the object.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np

from fssd.boxes import overlaps
from fssd.evaluation.pairing import FREE, Ints, Judgement, PairedDetections, PairedObjects, rows_of
from fssd.evaluation.voc_ap import COCO_RECALLS, Bools, mean_precision

KINDS = ("classification", "localisation", "both", "duplicate", "background")
MISSED = "missed"
CLASSIFICATION, LOCALISATION, BOTH, DUPLICATE, BACKGROUND = range(len(KINDS))
RIGHT = -1

BACKGROUND_IOU = 0.1  # TIDE's


class Errors(NamedTuple):
    """kind: (D,) index into KINDS, -1 for a correct detection. partner: (D,) row of the object that the
    mistake is about, -1 for background. missed: (G,) bool.
    """

    kind: Ints
    partner: Ints
    missed: Bools

    def counts(self) -> dict[str, int]:
        """How many mistakes of each kind, `missed` last."""
        kinds = {name: int((self.kind == number).sum()) for number, name in enumerate(KINDS)}
        return {**kinds, MISSED: int(self.missed.sum())}


def find_errors(judgement: Judgement, background: float = BACKGROUND_IOU) -> Errors:
    """The mistakes of a judgement. background: b of the definitions, in 0..1."""
    found, objects = judgement.found, judgement.objects
    kind = np.full(len(found.score), RIGHT, np.int64)
    partner = np.full(len(found.score), FREE, np.int64)
    for image in range(judgement.images):
        rows, own = rows_of(found.image, image), rows_of(objects.image, image)
        wrong = rows[found.object[rows] == FREE]
        if len(wrong):
            kind[wrong], index = _kinds(found, wrong, objects, own, judgement.iou, background)
            partner[wrong] = np.where(index == FREE, FREE, index + (own[0] if len(own) else 0))
    explained = np.zeros(len(objects.label), bool)
    explained[partner[(kind == CLASSIFICATION) | (kind == LOCALISATION)]] = True
    return Errors(kind, partner, (objects.finder == FREE) & ~explained)


def gains(judgement: Judgement, errors: Errors) -> dict[str, float]:
    """How much mAP (in 0..1) would rise if all mistakes of one kind were corrected and the others kept.

    A classification or localisation error becomes correct if its object was not found and no error of these
    two kinds with a better score is about the same object. All other mistakes are removed, and missed objects
    are removed from the objects to find. AP is COCO's 101-point AP at the overlap of the judgement; nan if
    there is no object.
    """
    objects = np.bincount(judgement.objects.label, minlength=len(judgement.classes))
    base = _mean_ap(judgement.found, objects)
    gained = {
        name: _mean_ap(_corrected(judgement, errors, number), objects) - base
        for number, name in enumerate(KINDS)
    }
    missed = np.bincount(judgement.objects.label[errors.missed], minlength=len(judgement.classes))
    left = np.where(objects > missed, objects - missed, objects)  # AP needs at least one object
    gained[MISSED] = _mean_ap(judgement.found, left) - base
    return gained


def _mean_ap(found: PairedDetections, objects: Ints) -> float:
    """Mean AP over the classes that have objects. objects: (C,) how many there are to find."""
    order = np.argsort(-found.score, kind="stable")
    correct, label = found.correct[order], found.label[order]
    aps = []
    for c in np.flatnonzero(objects):
        hits = np.cumsum(correct[label == c])
        aps.append(mean_precision(hits / objects[c], hits / np.arange(1, len(hits) + 1), COCO_RECALLS))
    return float(np.mean(aps)) if aps else float("nan")


def _kinds(
    found: PairedDetections, wrong: Ints, objects: PairedObjects, own: Ints, iou: float, background: float
) -> tuple[Ints, Ints]:
    """For each false positive of an image: its kind, and the index of its object in `own` (-1: none)."""
    if not len(own):
        return np.full(len(wrong), BACKGROUND), np.full(len(wrong), FREE)
    overlap = overlaps(found.boxes[wrong], objects.boxes[own])  # (W, G)
    same = found.label[wrong][:, None] == objects.label[own][None]
    of_class, of_other = np.where(same, overlap, 0), np.where(same, 0, overlap)
    best, best_other = of_class.max(axis=1), of_other.max(axis=1)
    near = (best >= background) & (best < iou)
    tests = [near, best_other >= iou, best >= iou, overlap.max(axis=1) <= background]
    kind = np.select(tests, [LOCALISATION, CLASSIFICATION, DUPLICATE, BACKGROUND], BOTH)
    own_class, other_class = of_class.argmax(axis=1), of_other.argmax(axis=1)
    partners = [own_class, other_class, own_class, np.full(len(wrong), FREE)]
    return kind, np.select(tests, partners, overlap.argmax(axis=1))


def _corrected(judgement: Judgement, errors: Errors, kind: int) -> PairedDetections:
    """The detections with the mistakes of one kind corrected or removed."""
    found, objects = judgement.found, judgement.objects
    keep = errors.kind != kind
    label, taken = found.label.copy(), found.object.copy()
    if kind in (CLASSIFICATION, LOCALISATION):
        near = np.flatnonzero((errors.kind == CLASSIFICATION) | (errors.kind == LOCALISATION))
        best_first = near[np.argsort(-found.score[near], kind="stable")]
        targets, first = np.unique(errors.partner[best_first], return_index=True)
        rows = best_first[first]
        mended = (objects.finder[targets] == FREE) & (errors.kind[rows] == kind)
        rows, targets = rows[mended], targets[mended]
        label[rows], taken[rows], keep[rows] = objects.label[targets], targets, True
    return PairedDetections(found.image[keep], found.boxes[keep], found.score[keep], label[keep], taken[keep])


def kinds_by_class(judgement: Judgement, errors: Errors) -> Ints:
    """(C, 6) counts: KINDS by the predicted class, then missed objects by their own class."""
    classes = len(judgement.classes)
    table = np.zeros((classes, len(KINDS) + 1), np.int64)
    wrong = errors.kind != RIGHT
    np.add.at(table, (judgement.found.label[wrong], errors.kind[wrong]), 1)
    table[:, -1] = np.bincount(judgement.objects.label[errors.missed], minlength=classes)
    return table


def confusion_matrix(judgement: Judgement) -> Ints:
    """(C + 1, C + 1) counts: rows are the labelled class, columns the predicted one; the last is "nothing".

    Classes do not matter for pairing here: in order of their scores, detections take the free object of any
    class that they overlap most, if the overlap reaches the IoU of the judgement. An object without a
    detection counts in the last column, a detection without an object in the last row.
    """
    found, objects = judgement.found, judgement.objects
    nothing = len(judgement.classes)
    matrix = np.zeros((nothing + 1, nothing + 1), np.int64)
    for image in range(judgement.images):
        rows, own = rows_of(found.image, image), rows_of(objects.image, image)
        overlap = overlaps(found.boxes[rows], objects.boxes[own])
        free = np.ones(len(own), bool)
        for row, predicted in zip(overlap, found.label[rows], strict=True):
            rivals = np.flatnonzero(free & (row >= judgement.iou))
            if not len(rivals):
                matrix[nothing, predicted] += 1
                continue
            taken = rivals[np.argmax(row[rivals])]
            free[taken] = False
            matrix[objects.label[own[taken]], predicted] += 1
        matrix[:nothing, nothing] += np.bincount(objects.label[own[free]], minlength=nothing)
    return matrix

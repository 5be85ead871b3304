"""Confusion matrix: which class is predicted for the objects of each class."""

from __future__ import annotations

import numpy as np

from fssd.evaluation.pairing import Ints, Judgement, overlaps


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
        rows = np.arange(*np.searchsorted(found.image, [image, image + 1]))
        own = np.arange(*np.searchsorted(objects.image, [image, image + 1]))
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

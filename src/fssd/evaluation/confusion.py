"""Which class is taken for which."""

from __future__ import annotations

import numpy as np

from fssd.evaluation.pairing import Ints, Judgement, overlaps


def confusion_matrix(judgement: Judgement) -> Ints:
    """(C + 1, C + 1) counts: rows are what is there, columns what was said; the last of each is "nothing".

    Here classes do not matter for pairing: in order of their scores, detections take the free object that
    they overlap most, of whatever class, if the overlap reaches the judgement's. An object that nobody took
    counts in the last column, a detection that took none in the last row.
    """
    found, objects = judgement.found, judgement.objects
    nothing = len(judgement.classes)
    matrix = np.zeros((nothing + 1, nothing + 1), np.int64)
    for image in range(judgement.images):
        rows = np.arange(*np.searchsorted(found.image, [image, image + 1]))
        own = np.arange(*np.searchsorted(objects.image, [image, image + 1]))
        overlap = overlaps(found.boxes[rows], objects.boxes[own])
        free = np.ones(len(own), bool)
        for row, said in zip(overlap, found.label[rows], strict=True):
            rivals = np.flatnonzero(free & (row >= judgement.iou))
            if not len(rivals):
                matrix[nothing, said] += 1
                continue
            taken = rivals[np.argmax(row[rivals])]
            free[taken] = False
            matrix[objects.label[own[taken]], said] += 1
        matrix[:nothing, nothing] += np.bincount(objects.label[own[free]], minlength=nothing)
    return matrix

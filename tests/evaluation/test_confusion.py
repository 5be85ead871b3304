"""The confusion matrix, by hand."""

from __future__ import annotations

from typing import Any

from fssd.evaluation.confusion import confusion_matrix
from fssd.evaluation.pairing import judge

A, B, C = [0, 0, 10, 10], [100, 0, 110, 10], [200, 0, 210, 10]


def test_matrix(make_set: Any) -> None:
    images = [
        # The cat is called a dog first; the correct detection comes second and gets no object.
        ([(0, A), (1, B)], [(1, 0.9, A), (0, 0.8, A), (1, 0.7, B)]),
        ([(0, C)], [(1, 0.5, A)]),
        ([], []),
    ]
    assert confusion_matrix(judge(*make_set(images))).tolist() == [
        [0, 1, 1],  # one cat called a dog, one without a detection
        [0, 1, 0],
        [1, 1, 0],  # a cat and a dog where no object was free
    ]

"""Which detections are correct: greedy by score, free objects only, difficult objects and crowds ignored."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from fssd.evaluation.pairing import judge
from fssd.inference.detections import Detections

BOX = [0, 0, 10, 10]


def test_the_better_score_takes_the_object(make_set: Any) -> None:
    # The second one overlaps more, but the first one chooses first.
    data = make_set([([(0, BOX)], [(0, 0.5, BOX), (0, 0.9, [0, 0, 10, 6])])])
    found, objects, *_ = judge(*data)
    assert found.score.tolist() == pytest.approx([0.9, 0.5])
    assert found.object.tolist() == [0, -1]
    assert found.correct.tolist() == [True, False]
    assert objects.finder.tolist() == [0]


def test_a_taken_object_leaves_the_next_best(make_set: Any) -> None:
    # Both overlap object 0 most; the second one also reaches object 1 (overlap 0.6).
    near = [0, 0, 10, 6]
    data = make_set([([(0, BOX), (0, near)], [(0, 0.9, BOX), (0, 0.8, BOX)])])
    assert judge(*data).found.object.tolist() == [0, 1]
    assert judge(*data, iou=0.7).found.object.tolist() == [0, -1]


def test_classes_and_threshold(make_set: Any) -> None:
    half = [0, 0, 10, 5]
    data = make_set([([(0, BOX), (1, [50, 50, 60, 60])], [(0, 0.9, half), (0, 0.8, [50, 50, 60, 60])])])
    assert judge(*data).found.object.tolist() == [0, -1]
    assert judge(*data, iou=0.51).found.object.tolist() == [-1, -1]


def test_rows_are_counted_over_all_images(make_set: Any) -> None:
    images = [
        ([(0, BOX), (1, BOX)], [(1, 0.9, BOX)]),
        ([], [(0, 0.8, BOX)]),
        ([(0, BOX), (0, [50, 0, 60, 10])], [(0, 0.7, [50, 0, 60, 10])]),
    ]
    result = judge(*make_set(images))
    assert result.images == 3
    assert result.found.image.tolist() == [0, 1, 2]
    assert result.found.object.tolist() == [1, -1, 3]
    assert result.objects.image.tolist() == [0, 0, 2, 2]
    assert result.objects.finder.tolist() == [-1, 0, -1, 2]


def test_difficult_objects_are_ignored(make_set: Any) -> None:
    # Two detections lie on the difficult object 0, one on object 1; only the last one counts.
    other = [50, 50, 60, 60]
    rows = [(0, 0.9, BOX), (0, 0.8, BOX), (0, 0.7, other)]
    result = judge(*make_set([([(0, BOX), (0, other)], rows)], difficult=[0]))
    assert result.found.score.tolist() == pytest.approx([0.7])
    assert result.found.object.tolist() == [0]
    assert result.objects.boxes.tolist() == [other]


def test_a_part_of_a_crowd_is_ignored(make_set: Any) -> None:
    # Its overlap with the crowd is 0.01; but all of it lies in the crowd.
    result = judge(*make_set([([(0, [0, 0, 100, 100])], [(0, 0.9, BOX), (1, 0.8, BOX)])], crowd=[0]))
    assert result.found.label.tolist() == [1]
    assert not len(result.objects.label)


def test_a_free_object_goes_before_a_difficult_one(make_set: Any) -> None:
    result = judge(*make_set([([(0, BOX), (0, [0, 0, 10, 8])], [(0, 0.9, BOX)])], difficult=[0]))
    assert result.found.object.tolist() == [0]


def test_classes_are_compared_by_name(make_set: Any) -> None:
    dataset, _ = make_set([([(1, BOX)], [])])
    boxes, scores = np.array([BOX, BOX], np.float32), np.array([0.9, 0.8], np.float32)
    given = Detections(boxes, scores, np.array([0, 1]), ("dog", "bird"))
    result = judge(dataset, [given])
    assert result.found.object.tolist() == [0]
    assert result.found.label.tolist() == [1]

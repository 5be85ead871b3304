"""The best threshold and bins of scores, by hand."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import pytest

from fssd.evaluation.pairing import judge
from fssd.evaluation.scores import best_threshold, calibrate, sweep, sweep_classes


def test_sweep() -> None:
    score = np.array([0.7, 0.9, 0.3, 0.8, 0.7])
    correct = np.array([True, True, True, False, False])
    curve = sweep(score, correct, objects=4)
    # Equal scores are kept or dropped together: at 0.7 four are kept, two of them correct.
    assert curve.score.tolist() == [0.9, 0.8, 0.7, 0.3]
    assert curve.precision == pytest.approx([1, 1 / 2, 2 / 4, 3 / 5])
    assert curve.recall == pytest.approx([1 / 4, 1 / 4, 2 / 4, 3 / 4])
    assert curve.f1 == pytest.approx([2 / 5, 2 / 6, 4 / 8, 6 / 9])
    assert best_threshold(curve) == pytest.approx((0.3, 3 / 5, 3 / 4, 6 / 9))


def test_the_higher_of_two_equal_thresholds_wins() -> None:
    # F1 is 2/3 with the first one alone, and again with all four.
    curve = sweep(np.array([0.9, 0.8, 0.7, 0.6]), np.array([True, False, False, True]), objects=2)
    assert curve.f1 == pytest.approx([2 / 3, 2 / 4, 2 / 5, 4 / 6])
    assert best_threshold(curve).threshold == pytest.approx(0.9)


@pytest.mark.parametrize(("correct", "objects"), [([False, False], 3), ([False, False], 0), ([], 2), ([], 0)])
def test_without_a_correct_detection(correct: list[bool], objects: int) -> None:
    best = best_threshold(sweep(np.linspace(0.9, 0.1, len(correct)), np.array(correct, bool), objects))
    assert best.threshold == 0.5
    assert all(math.isnan(value) for value in best[1:])


def test_by_class(make_set: Any) -> None:
    box, other = [0, 0, 10, 10], [50, 0, 60, 10]
    data = make_set([([(0, box), (1, other)], [(0, 0.9, box), (1, 0.8, box), (1, 0.6, other)])])
    cat, dog = map(best_threshold, sweep_classes(judge(*data)))
    assert cat == pytest.approx((np.float32(0.9), 1, 1, 1))
    assert dog == pytest.approx((np.float32(0.6), 1 / 2, 1, 2 / 3))


def test_bins() -> None:
    score = np.array([0.05, 0.15, 0.95, 1.0])
    result = calibrate(score, np.array([False, True, True, False]))
    assert result.detections.tolist() == [1, 1, 0, 0, 0, 0, 0, 0, 0, 2]
    assert result.score[[0, 1, 9]] == pytest.approx([0.05, 0.15, 0.975])
    assert result.correct[[0, 1, 9]] == pytest.approx([0, 1, 0.5])
    assert np.isnan(result.score[2:9]).all()
    assert np.isnan(result.correct[2:9]).all()
    # One detection is 0.05 off, one 0.85, two 0.475.
    assert result.error == pytest.approx((0.05 + 0.85 + 2 * 0.475) / 4)


def test_two_bins() -> None:
    result = calibrate(np.array([0.2, 0.4, 0.5]), np.array([True, False, True]), bins=2)
    assert result.detections.tolist() == [2, 1]
    assert result.score == pytest.approx([0.3, 0.5])
    assert result.correct == pytest.approx([0.5, 1])


def test_nothing() -> None:
    result = calibrate(np.zeros(0), np.zeros(0, bool))
    assert not result.detections.any()
    assert math.isnan(result.error)

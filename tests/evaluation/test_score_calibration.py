"""Bins of scores, by hand."""

from __future__ import annotations

import math

import numpy as np
import pytest

from fssd.evaluation.score_calibration import calibrate


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

"""Boxes by size, by hand."""

from __future__ import annotations

import math

import numpy as np
import pytest

from fssd.report.shapes import band_names, bands, shares, sides


def test_bands() -> None:
    def square(side: float) -> list[float]:
        return [10, 10, 10 + side, 10 + side]

    boxes = np.array([*map(square, (1, 7.9, 8, 15, 16, 255, 256, 300)), [0, 0, 64, 16]], float)
    assert sides(boxes)[-1] == 32
    names = band_names()
    assert [names[band] for band in bands(boxes)] == [
        *("under 8", "under 8", "8 to 16", "8 to 16", "16 to 32", "128 to 256"),
        *("256 and more", "256 and more", "32 to 64"),
    ]


def test_shares() -> None:
    boxes, matched = shares(np.array([0, 0, 0, 2]), np.array([0.5, 0.49, 0.9, 0.1]), 3)
    assert boxes.tolist() == [3, 0, 1]
    assert matched[[0, 2]] == pytest.approx([2 / 3, 0])
    assert math.isnan(matched[1])

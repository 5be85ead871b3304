"""Boxes and priors, by hand."""

from __future__ import annotations

import math

import numpy as np
import pytest

from fssd.heads.multibox.priors import Level
from fssd.model.build import model_levels
from fssd.report.shapes import band_names, bands, best_overlaps, prior_shapes, shares, sides

# One cell of 100 px: squares of 60 and of sqrt(60 * 60) px around (50, 50), and 84.9 x 42.4 both ways.
LEVELS = (Level(1, 100.0, 60.0, 60.0, (2.0,)),)


def test_best_overlaps() -> None:
    boxes = [
        [20, 20, 80, 80],  # the square itself
        [20, 20, 80, 50],  # half of it; of the wide prior it covers 60 x 21.2
        [50, 50, 52, 52],  # inside, 4 of 3600 px; the square is the smallest prior as well
        [200, 200, 260, 260],  # beside it
    ]
    low, high = 50 - 30 * math.sqrt(2) / 2, 50 + 30 * math.sqrt(2) / 2
    wide = 60 * (50 - low) / (60 * 30 + 3600 - 60 * (50 - low))
    assert high > 50
    assert best_overlaps(np.array(boxes, float), LEVELS) == pytest.approx(
        [1, max(0.5, wide), 4 / 3600, 0], rel=1e-5
    )
    assert len(best_overlaps(np.zeros((0, 4)), LEVELS)) == 0


def test_more_boxes_than_one_chunk() -> None:
    boxes = np.tile([[20.0, 20, 80, 80], [200, 200, 260, 260]], (200, 1))
    assert best_overlaps(boxes, LEVELS).tolist() == pytest.approx([1, 0] * 200)


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
    found = shares(np.array([0, 0, 0, 2]), np.array([0.5, 0.49, 0.9, 0.1]), 3)
    assert [share.boxes for share in found] == [3, 0, 1]
    assert [found[0].matched, found[2].matched] == pytest.approx([2 / 3, 0])
    assert math.isnan(found[1].matched)


def test_every_prior_matches_itself() -> None:
    size, levels = model_levels("ssd300-vgg16")
    assert size == 300
    shapes = prior_shapes(levels)
    # 4, 6, 6, 6, 4 and 4 priors a cell (SSD 2.1); the first is 30 px, SSD300's smallest on VOC.
    assert len(shapes) == 30
    assert shapes[0].tolist() == [30, 30]
    # Around a centre of the coarsest map, which is that of the image.
    boxes = np.array([[150 - w / 2, 150 - h / 2, 150 + w / 2, 150 + h / 2] for w, h in shapes[-4:]])
    assert best_overlaps(boxes, levels) == pytest.approx([1] * 4, abs=1e-5)

"""Boxes and priors, by hand."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch

from fssd.heads.multibox.coverage import best_overlaps
from fssd.heads.multibox.priors import Level, cell_shapes, make_priors
from fssd.model.build import build_model

# One cell of 100 px: squares of 60 and of sqrt(60 * 60) px around (50, 50), and 84.9 x 42.4 both ways.
PRIORS = make_priors((Level(1, 1, (100.0, 100.0), cell_shapes(60, 60, (2.0,))),))


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
    assert best_overlaps(np.array(boxes, float), PRIORS) == pytest.approx(
        [1, max(0.5, wide), 4 / 3600, 0], rel=1e-5
    )
    assert len(best_overlaps(np.zeros((0, 4)), PRIORS)) == 0


def test_more_boxes_than_are_looked_at_together() -> None:
    boxes = np.tile([[20.0, 20, 80, 80], [200, 200, 260, 260]], (200, 1))
    assert best_overlaps(boxes, PRIORS).tolist() == pytest.approx([1, 0] * 200)


def test_every_prior_matches_itself() -> None:
    with torch.device("meta"):
        head = build_model("ssd300-vgg16", 20).heads
    shapes = head.prior_shapes()
    # 4, 6, 6, 6, 4 and 4 priors a cell (SSD 2.1); the first is 30 px, SSD300's smallest on VOC.
    assert len(shapes) == 30
    assert shapes[0].tolist() == [30, 30]
    # Around a centre of the coarsest map, which is that of the image.
    boxes = np.array([[150 - w / 2, 150 - h / 2, 150 + w / 2, 150 + h / 2] for w, h in shapes[-4:]])
    assert head.best_overlaps(boxes) == pytest.approx([1] * 4, abs=1e-5)

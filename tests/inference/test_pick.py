"""Which images are worth labelling, on cases worked out by hand."""

from __future__ import annotations

from typing import Any

import cv2
import numpy as np
import pytest

from fssd.data.duplicates import thumbnail
from fssd.inference.pick import pick, uncertainty


def test_uncertainty() -> None:
    # 1 - |2 * 0.5 - 1| = 1; 1 - |2 * 0.75 - 1| = 0.5; 1 - |2 * 0.25 - 1| = 0.5; 1 - |2 - 1| = 0
    assert uncertainty(np.array([0.5, 0.75, 0.25, 1.0], np.float32)) == pytest.approx(2)
    assert uncertainty(np.zeros(0, np.float32)) == 0


def noise(seed: int) -> Any:
    """A picture that is as smooth as photographs are."""
    pixels = np.random.default_rng(seed).integers(0, 255, (12, 16, 3), np.uint8)
    return cv2.resize(pixels, (160, 120), interpolation=cv2.INTER_CUBIC)


def stripes(*weights: float) -> Any:
    """A weighted sum of patterns that are orthogonal: (32, 32) uint8."""
    column = np.indices((32, 32))[1]
    waves = [20 * (-1.0) ** (column // width) for width in (1, 2, 4)]
    return (128 + sum(w * wave for w, wave in zip(weights, waves, strict=False))).astype(np.uint8)


def test_least_certain_first() -> None:
    pictures = [stripes(1), stripes(0, 1), stripes(0, 0, 1)]
    assert pick([0.2, 3.0, 1.0], pictures, 3) == [1, 2, 0]
    assert pick([0.2, 3.0, 1.0], pictures, 1) == [1]


def test_least_alike() -> None:
    # The second correlates with the first by 1 / sqrt(2): 0.9 * 0.29 is less than 0.5 * 1 of the third.
    pictures = [stripes(1), stripes(1, 1), stripes(0, 0, 1)]
    assert pick([1.0, 0.9, 0.5], pictures, 2) == [0, 2]
    assert pick([1.0, 0.9, 0.2], pictures, 2) == [0, 1]


def test_near_duplicates_are_picked_once() -> None:
    image = noise(1)
    copies = [image, cv2.resize(image, (90, 70)), np.ascontiguousarray(image[:, ::-1]), noise(2)]
    assert pick([2.0, 3.0, 2.5, 1.0], [thumbnail(copy) for copy in copies], 4) == [1, 3]


def test_images_without_a_detection_come_last_and_the_unlike_ones_first() -> None:
    pictures = [stripes(1), stripes(1, 1), stripes(0, 0, 1)]
    assert pick([0.1, 0.0, 0.0], pictures, 3) == [0, 2, 1]


def test_equal_images_are_taken_in_order() -> None:
    pictures = [stripes(1), stripes(0, 1), stripes(0, 0, 1)]
    assert pick([1.0, 1.0, 1.0], pictures, 2) == [0, 1]
    blank = [np.full((32, 32), 7, np.uint8)] * 3  # blank images match nothing
    assert pick([0.0, 0.0, 0.0], blank, 9) == [0, 1, 2]


def test_nothing_to_pick_from() -> None:
    assert pick([], [], 3) == []

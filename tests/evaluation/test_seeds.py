"""The interval of a gain: worked by hand, and against resampling written out."""

from __future__ import annotations

import numpy as np

from fssd.evaluation.seeds import gain, image_weights, interval


def test_the_first_row_counts_every_image_once() -> None:
    weights = image_weights(7, 50)
    assert weights.shape == (51, 7)
    assert (weights[0] == 1).all()
    assert (weights.sum(axis=1) == 7).all()
    assert (weights == image_weights(7, 50)).all()
    assert (weights[1:] != 1).any()


def test_the_value_is_the_difference_of_the_means_over_the_seeds() -> None:
    first = [np.full(101, 0.50), np.full(101, 0.54)]
    other = [np.full(101, 0.60), np.full(101, 0.62), np.full(101, 0.64)]
    gains = gain(first, other)
    assert np.isclose(gains[0], 0.62 - 0.52)
    # Of two seeds a draw takes one or both: their mean is 0.50, 0.52 or 0.54.
    assert set(np.round(0.62 - gain(first, [np.full(101, 0.62)])[1:], 6)) == {0.50, 0.52, 0.54}


def test_images_vary_together_and_seeds_apart() -> None:
    # What the images add is the same in both, so it cancels; one seed of each leaves no other spread.
    shared = np.random.default_rng(0).normal(size=1001)
    assert np.allclose(gain([0.5 + shared], [0.6 + shared]), 0.1)
    # Two seeds of each, 0.02 apart: a draw's mean is -0.01, 0 or 0.01 from the middle with 1/4, 1/2, 1/4, and
    # the difference of two draws beyond 0.015 in 1/8 of the cases.
    first, other = ([np.full(20001, m - 0.01), np.full(20001, m + 0.01)] for m in (0.5, 0.6))
    far = np.abs(gain(first, other)[1:] - 0.1) > 0.015
    assert abs(far.mean() - 1 / 8) < 0.01


def test_an_interval_holds_the_middle_95_percent() -> None:
    found = interval(np.concatenate([[0.25], np.arange(-100, 901) / 1000]))
    assert found.value == 0.25
    assert np.isclose(found.low, -0.075)
    assert np.isclose(found.high, 0.875)
    assert np.isclose(found.share, 900 / 1001)

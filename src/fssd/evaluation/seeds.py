"""Confidence interval of what one way of training gains over another, from several seeds of each.

A result varies with the images it is measured on and with the seed it was trained with. Both are resampled
with replacement: the images together for all models (the paired bootstrap, see `bootstrap`), the seeds of
each of the two on their own. With one seed only the images vary.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from fssd.evaluation.bootstrap import Difference
from fssd.evaluation.pairing import Floats, Ints


def image_weights(images: int, resamples: int = 1000, seed: int = 0) -> Ints:
    """(1 + R, I) how often each image counts: once in the first row, then resampled."""
    rng = np.random.default_rng(seed)
    drawn = rng.multinomial(images, np.full(images, 1 / images), resamples)
    return np.concatenate([np.ones((1, images), np.int64), drawn])


def gain(first: Sequence[Floats], other: Sequence[Floats], seed: int = 0) -> Floats:
    """(1 + R,) the mean over the seeds of `other` minus that of `first`; row 0 is the value itself.

    first, other: for each seed (1 + R,) the mAP with the weights of `image_weights`.
    """
    resamples = len(first[0]) - 1
    rng = np.random.default_rng((2, seed))
    return _resampled_mean(other, resamples, rng) - _resampled_mean(first, resamples, rng)


def interval(gains: Floats) -> Difference:
    """(1 + R,), as `gain` returns it or the mean of several, to the value and its middle 95 %."""
    low, high = np.quantile(gains[1:], [0.025, 0.975])
    return Difference(float(gains[0]), float(low), float(high), float((gains[1:] > 0).mean()))


def _resampled_mean(values: Sequence[Floats], resamples: int, rng: np.random.Generator) -> Floats:
    """(1 + R,): row 0 is the mean of all seeds, each other that of as many seeds, drawn with replacement."""
    table = np.stack(values)  # (S, 1 + R)
    drawn = rng.integers(len(table), size=(len(table), resamples))
    means = np.take_along_axis(table[:, 1:], drawn, axis=0).mean(axis=0)
    return np.concatenate([table[:, :1].mean(axis=0), means])

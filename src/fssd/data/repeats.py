"""Oversampling: images of rare classes are shown more than once in a pass.

Source: Gupta et al. 2019 (LVIS), repeat factor sampling.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from functools import lru_cache
from typing import NamedTuple

import numpy as np
import numpy.typing as npt

from fssd.data.class_counts import trained_labels
from fssd.data.sample import DataSet

Ints = npt.NDArray[np.int64]
Floats = npt.NDArray[np.float64]


class Pass(NamedTuple):
    """What one pass shows. order: (L,) indices of records. turn: (L,) how often each came before in it."""

    order: Ints
    turn: Ints


@dataclass(frozen=True, eq=False)
class Repeats:
    """How often the images are shown in a pass. factors: (N,) means, 1 or more.

    Every pass has the same number of views, the sum of the factors rounded up. An image is shown as often as
    its factor says, rounded down or up: which of the two is drawn for each pass, so that the mean is right.
    """

    factors: Floats

    def __len__(self) -> int:
        return math.ceil(math.fsum(self.factors) - 1e-6)

    def of_pass(self, seed: int, epoch: int) -> Pass:
        """The views of a pass in their order; it depends on nothing else."""
        return _pass_of(self, seed, epoch)


@lru_cache(maxsize=4)
def _pass_of(repeats: Repeats, seed: int, epoch: int) -> Pass:
    """Systematic sampling: a comb of one tooth a view is laid over the factors in a random order."""
    # The leading 4 keeps this stream apart from those of the loader, in all runs but of seed 4.
    rng = np.random.default_rng((4, seed, epoch))
    records = rng.permutation(len(repeats.factors))
    ends = np.cumsum(repeats.factors[records])
    ends *= len(repeats) / ends[-1]
    ends[-1] = len(repeats)
    teeth = np.floor(np.concatenate(([0.0], ends)) + rng.random()).astype(np.int64)
    counts = np.diff(teeth)
    turn = np.arange(len(repeats)) - np.repeat(np.cumsum(counts) - counts, counts)
    shuffled = rng.permutation(len(repeats))
    return Pass(np.repeat(records, counts)[shuffled], turn[shuffled])


def repeat_factors(dataset: DataSet, threshold: float, difficult: bool, crowds: bool) -> Floats:
    """(N,) how often each image is shown in a pass on average.

    A class in a share f of the images has the factor max(1, sqrt(threshold / f)); an image has the largest of
    its classes. difficult, crowds: whether objects with that flag count.
    """
    own = [np.unique(trained_labels(record, difficult, crowds)) for record in dataset.records]
    images = np.bincount(np.concatenate([np.zeros(0, np.int64), *own]), minlength=len(dataset.classes))
    share = np.maximum(images, 1) / max(len(own), 1)
    factors = np.maximum(1.0, np.sqrt(threshold / share))
    return np.array([factors[labels].max(initial=1.0) for labels in own])

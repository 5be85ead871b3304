"""Multi-scale training: which input size each batch has (YOLO9000, 2; darknet, `random=1`)."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

STEP = 32  # pixels between sides
UPDATES = 10  # of one side
LAST = 200  # updates at the network's own size, at the end


@dataclass(frozen=True)
class Scales:
    """The side of the input, pixels, of every view of a run by its position.

    smallest, largest: sides that are drawn, in steps of `STEP`. own: the network's. images: of an update, in
    all processes. updates: of the run; the last ones, `LAST` or a fifth of a short run, have the own side.
    The side depends on the seed and the position alone: it is the same in every process and after a resume.
    """

    smallest: int
    largest: int
    own: int
    seed: int
    images: int
    updates: int

    def side(self, position: int) -> int:
        """The side of the view at a position; all of an update have the same."""
        update = position // self.images
        if update >= self.updates - min(LAST, self.updates // 5):
            return self.own
        # The leading 2 keeps this stream apart from that of the order of images, and from those of
        # `sample_rng` in all runs but of seed 2.
        draw = np.random.default_rng((2, self.seed, update // UPDATES))
        return int(draw.integers(self.smallest // STEP, self.largest // STEP, endpoint=True)) * STEP

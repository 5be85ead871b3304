"""The batch size that gives the most images a second."""

from __future__ import annotations

from collections.abc import Callable

import torch

GAIN = 1.02  # a doubling that gives less is noise, and waits longer for every image
MOST = 1024


def best_batch(rate: Callable[[int], float], most: int = MOST) -> tuple[int, dict[int, float]]:
    """Double the batch until images a second stop rising, or memory or `most` is reached.

    rate: images a second at a batch size. Returns the best size and the rate of each that was tried.
    """
    rates = {1: rate(1)}
    batch = 1
    while 2 * batch <= most:
        try:
            rates[2 * batch] = rate(2 * batch)
        except torch.OutOfMemoryError:
            break
        if rates[2 * batch] < GAIN * rates[batch]:
            break
        batch *= 2
    return batch, rates

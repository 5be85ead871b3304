"""The stopwatch of everything that is timed here: steps in turn, medians, and how far they spread."""

from __future__ import annotations

import time
from collections.abc import Callable, Hashable, Mapping, Sequence
from typing import NamedTuple, TypeVar

import numpy as np

Step = Callable[[], object]
Key = TypeVar("Key", bound=Hashable)

WARM_UP = 3  # calls before the clock runs: the first ones choose kernels and claim memory


class Spread(NamedTuple):
    """A figure taken several times: its median, and the 10th and 90th percentile. number: of times."""

    median: float
    low: float
    high: float
    number: int


def spread(values: Sequence[float]) -> Spread:
    """The spread of at least one value; percentiles are interpolated linearly."""
    low, median, high = np.percentile(np.asarray(values, np.float64), [10, 50, 90]).tolist()
    return Spread(median, low, high, len(values))


def take_turns(
    steps: Mapping[Key, Step],
    repeats: int,
    warm_up: int = WARM_UP,
    clock: Callable[[], float] = time.perf_counter,
    rest: float = 0.0,
) -> dict[Key, list[float]]:
    """The times of each step, `repeats` of them, after calls that do not count. `clock` tells seconds.

    The steps take turns, so that what else the machine does slows all of them alike. rest: seconds before
    each step, for steps of different libraries: the threads of one go on waiting busily when it is done.
    """
    times: dict[Key, list[float]] = {key: [] for key in steps}
    for turn in range(warm_up + repeats):
        for key, step in steps.items():
            time.sleep(rest)
            start = clock()
            step()
            taken = clock() - start
            if turn >= warm_up:
                times[key].append(taken)
    return times


def ratio(over: Sequence[float], under: Sequence[float]) -> Spread:
    """How many times as long one step took as another, round by round of the same turns."""
    return spread([a / b for a, b in zip(over, under, strict=True)])


def rates(times: Sequence[float], work: float = 1.0) -> Spread:
    """`work` a second, such as the images of a batch, from the seconds that each took."""
    return spread([work / seconds for seconds in times])

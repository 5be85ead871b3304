"""Timing: steps in turn, medians with their spread, and figures as text and JSON."""

from __future__ import annotations

import time
from collections.abc import Callable, Hashable, Mapping, Sequence
from typing import Any, NamedTuple, TypeVar

import numpy as np

Step = Callable[[], object]
Key = TypeVar("Key", bound=Hashable)

WARM_UP = 3  # untimed calls: the first ones choose kernels and allocate memory


class Spread(NamedTuple):
    """A figure measured `number` times: its median, and the 10th and 90th percentile."""

    median: float
    low: float
    high: float
    number: int


def spread(values: Sequence[float]) -> Spread:
    """The spread of at least one value, with linear interpolation."""
    low, median, high = np.percentile(np.asarray(values, np.float64), [10, 50, 90]).tolist()
    return Spread(median, low, high, len(values))


def take_turns(
    steps: Mapping[Key, Step],
    repeats: int,
    warm_up: int = WARM_UP,
    clock: Callable[[], float] = time.perf_counter,
    rest: float = 0.0,
) -> dict[Key, list[float]]:
    """Seconds of each step, `repeats` times, after `warm_up` untimed calls.

    The steps take turns, so that other load on the machine affects all of them equally. rest: seconds before
    each step, for steps of different libraries, whose threads keep spinning for a while after each call.
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
    """The time of one step divided by that of another, turn by turn."""
    return spread([a / b for a, b in zip(over, under, strict=True)])


def rates(times: Sequence[float], work: float = 1.0) -> Spread:
    """`work` per second, for example images of a batch, from seconds."""
    return spread([work / seconds for seconds in times])


def line(name: str, figure: Spread, unit: str, digits: int = 2) -> str:
    """A figure with its spread, such as `ours   1.20 ms  (1.10 to 1.50)`."""
    low, high = f"{figure.low:.{digits}f}", f"{figure.high:.{digits}f}"
    return f"{name:52} {figure.median:10.{digits}f} {unit:9} ({low} to {high})"


def milliseconds(figure: Spread) -> Spread:
    """A figure in seconds converted to milliseconds."""
    return Spread(1e3 * figure.median, 1e3 * figure.low, 1e3 * figure.high, figure.number)


def plain(value: Any) -> Any:
    """`value` as JSON values: spreads as objects, keys as text."""
    if isinstance(value, Spread):
        return value._asdict()
    if isinstance(value, Mapping):
        return {str(key): plain(part) for key, part in value.items()}
    return value

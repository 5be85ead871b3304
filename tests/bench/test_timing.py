"""The stopwatch, on a clock that the test sets: nothing here depends on how fast the machine is."""

from __future__ import annotations

import pytest

from fssd.bench.timing import Spread, rates, ratio, spread, take_turns


def test_steps_take_turns_and_the_warm_up_does_not_count() -> None:
    now = 0.0
    order: list[str] = []
    costs = {"a": iter([100.0, 1.0, 5.0, 2.0]), "b": iter([100.0, 7.0, 8.0, 70.0])}

    def step(name: str) -> None:
        nonlocal now
        order.append(name)
        now += next(costs[name])

    steps = {"a": lambda: step("a"), "b": lambda: step("b")}
    times = take_turns(steps, repeats=3, warm_up=1, clock=lambda: now)
    assert times == {"a": [1.0, 5.0, 2.0], "b": [7.0, 8.0, 70.0]}
    assert order == ["a", "b"] * 4


def test_spread_of_eleven_values() -> None:
    values = [10.0, 0.0, 9.0, 1.0, 8.0, 2.0, 7.0, 3.0, 6.0, 4.0, 5.0]  # 10th percentile: the second of eleven
    assert spread(values) == Spread(5.0, 1.0, 9.0, 11)


def test_spread_between_values() -> None:
    assert spread([1.0, 2.0]) == Spread(1.5, 1.1, 1.9, 2)
    assert spread([3.0]) == Spread(3.0, 3.0, 3.0, 1)


def test_ratio_is_taken_round_by_round() -> None:
    # The machine is three times as slow in the second round; the ratio of the medians would be 2 / 3.
    assert ratio([2.0, 6.0, 2.0], [1.0, 3.0, 4.0]).median == 2.0


def test_ratio_needs_as_many_rounds_of_both() -> None:
    with pytest.raises(ValueError, match="shorter"):
        ratio([1.0, 2.0], [1.0])


def test_rates() -> None:
    assert rates([0.5, 0.25, 1.0], work=8).median == 16.0

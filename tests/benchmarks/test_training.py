"""The comparison of two checkouts: its interval by hand, and the turns that a training takes."""

from __future__ import annotations

import io
from argparse import Namespace
from collections.abc import Callable, Iterator
from itertools import islice
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
import pytest
import torch


def test_interval_of_a_median(script: Callable[[str], ModuleType]) -> None:
    interval = script("training").median_interval
    # The median of nine values sampled again is the smallest or the second with probability 0.0304, the
    # smallest with 0.0013, by the binomial distribution: 0.025 lies at the second.
    assert interval(np.array([9.0, 1, 8, 2, 7, 3, 6, 4, 5])) == (2, 8)
    # Of five values it is the smallest with probability 0.058.
    assert interval(np.array([1.0, 2, 3, 4, 5])) == (1, 5)


def test_a_folder_that_is_no_checkout(script: Callable[[str], ModuleType], tmp_path: Path) -> None:
    with pytest.raises(SystemExit, match="has no src/fssd"):
        script("training").compare_with(tmp_path, Namespace())


def test_a_training_waits_for_its_turn(
    script: Callable[[str], ModuleType], monkeypatch: pytest.MonkeyPatch
) -> None:
    side = script("training_side")
    asked: list[int] = []

    class Batch:
        def __init__(self, number: int) -> None:
            self.number, self.images = number, torch.full((2, 3, 4, 4), number, dtype=torch.uint8)

    def load(source: Any, positions: Any, workers: int) -> Iterator[Batch]:
        assert (source, positions, workers) == ("source", "positions", 0)
        for number in range(100):
            asked.append(number)
            yield Batch(number)

    monkeypatch.setattr(side, "load", load)
    monkeypatch.setattr("sys.stdin", io.StringIO("\n" * 6))
    answers = io.StringIO()
    batches = side.Turns(answers)("source", "positions", 3, pin=False)
    first = next(batches)
    assert len(answers.getvalue().split()) == 1, "a checksum, and no step is done yet"
    assert [batch.number for batch in (first, *islice(batches, 5))] == [0, 1, 2, 3, 0, 1]
    assert asked == [0, 1, 2, 3]
    assert answers.getvalue().split()[1:] == ["done"] * 5
    with pytest.raises(SystemExit):
        next(batches)

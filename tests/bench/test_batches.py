"""The search for the best batch size, on rates given by hand."""

from __future__ import annotations

import pytest
import torch

from fssd.bench.batches import best_batch


def test_doubles_until_the_rate_stops_rising() -> None:
    rates = {1: 10.0, 2: 15.0, 4: 18.0, 8: 18.2, 16: 100.0}
    best, tried = best_batch(rates.__getitem__)
    assert best == 4  # 8 is 1.1 % better, which is noise
    assert tried == {1: 10.0, 2: 15.0, 4: 18.0, 8: 18.2}


def test_a_single_image_can_be_best() -> None:
    assert best_batch({1: 10.0, 2: 9.0}.__getitem__) == (1, {1: 10.0, 2: 9.0})


def test_stops_at_the_largest_allowed() -> None:
    assert best_batch(float, most=12)[0] == 8


def test_stops_where_memory_ends() -> None:
    def rate(batch: int) -> float:
        if batch > 2:
            raise torch.OutOfMemoryError("CUDA out of memory")
        return float(batch)

    assert best_batch(rate) == (2, {1: 1.0, 2: 2.0})


def test_other_faults_are_not_hidden() -> None:
    def rate(batch: int) -> float:
        if batch > 2:
            raise RuntimeError("shapes do not fit")
        return float(batch)

    with pytest.raises(RuntimeError, match="shapes"):
        best_batch(rate)

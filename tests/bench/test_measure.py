"""A whole measurement of a small model, invalid settings, and the search for the best batch size."""

from __future__ import annotations

import json

import pytest
import torch

from fssd.bench import measure as module
from fssd.bench.measure import Setup, best_batch, measure, use_threads
from fssd.bench.photographs import Photographs
from fssd.bench.subject import Subject
from fssd.errors import ConfigError


def test_one_image_at_a_time(subject: Subject, pictures: Photographs, small_peak: None) -> None:
    report = measure(subject, pictures, Setup(repeats=2, warm_up=0))
    assert report.setup == {
        "mode": "latency",
        "batch": 1,
        "score": 0.5,
        "warm_up": 0,
        "images": "3 made JPEGs of 500 x 375",
    }
    assert report.model == {
        "name": "tiny",
        "runtime": "torch",
        "precision": "fp32",
        "weights": "random",
        "image_size": 300,
        "classes": 3,
    }
    assert report.machine["threads"] == 1
    assert report.share is not None and report.share > 0
    assert report.peak.ways["a"].number == 2 * module.PEAK_TURNS
    json.loads(report.to_json())


def test_a_batch_of_the_users(subject: Subject, pictures: Photographs, small_peak: None) -> None:
    report = measure(subject, pictures, Setup(batch=4, repeats=1, warm_up=0))
    assert (report.setup["batch"], report.setup["mode"]) == (4, None)
    assert len(report.timed.detections) == 4


def test_throughput_measures_at_the_best_batch(
    subject: Subject, pictures: Photographs, small_peak: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    def best(rate: object) -> tuple[int, dict[int, float]]:
        assert rate(2) > 0  # type: ignore[operator]
        return 2, {1: 3.0, 2: 4.0, 4: 4.0}

    monkeypatch.setattr(module, "best_batch", best)
    report = measure(subject, pictures, Setup(mode="throughput", repeats=1, warm_up=0))
    assert (report.setup["batch"], report.setup["mode"]) == (2, "throughput")
    assert report.batches == {1: 3.0, 2: 4.0, 4: 4.0}


@pytest.mark.parametrize("setup", [Setup(batch=0), Setup(repeats=0)])
def test_settings_below_one(subject: Subject, pictures: Photographs, setup: Setup) -> None:
    with pytest.raises(ConfigError, match="is 0; it must be 1 or more"):
        measure(subject, pictures, setup)


def test_threads() -> None:
    before = torch.get_num_threads()
    try:
        use_threads(1)
        assert torch.get_num_threads() == 1
        use_threads(None)
        assert torch.get_num_threads() == 1
        with pytest.raises(ConfigError, match="threads is 0"):
            use_threads(0)
    finally:
        use_threads(before)


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

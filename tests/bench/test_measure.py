"""A whole measurement of a small model, and settings that make no sense."""

from __future__ import annotations

import json

import pytest
import torch

from fssd.bench import measure as module
from fssd.bench.measure import Setup, measure, use_threads
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

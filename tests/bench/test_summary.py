"""Figures worked out by hand from times given by hand."""

from __future__ import annotations

import json

import pytest
from rich.console import Console

from fssd.bench.peak import Peak
from fssd.bench.stages import Timed
from fssd.bench.summary import BenchReport
from fssd.bench.timing import Spread

SECONDS = {  # of batches of two images, three turns
    "decode": [0.002, 0.004, 0.003],
    "preprocess": [0.001, 0.001, 0.002],
    "network": [0.1, 0.2, 0.4],
    "postprocess": [0.003, 0.009, 0.002],
    "arrays": [0.11, 0.22, 0.5],
    "files": [0.2, 0.25, 0.4],
}


def report(**changes: object) -> BenchReport:
    values = {
        "model": {
            "name": "m",
            "runtime": "torch",
            "precision": "fp32",
            "weights": "random",
            "image_size": 300,
            "classes": 20,
        },
        "machine": {"processor": "P", "cores": 2, "threads": 1, "load": 0.5, "gpu": None},
        "setup": {"mode": "latency", "batch": 2, "score": 0.5, "warm_up": 3, "images": "some images"},
        "multiply_adds": 3_000_000_000,
        "timed": Timed(SECONDS, [4, 0, 5, 6, 5, 5]),
        "peak": Peak("fp32", {"a": Spread(100.0, 90.0, 110.0, 4), "b": Spread(120.0, 90.0, 130.0, 4)}),
        "batches": {},
    }
    return BenchReport(**{**values, **changes})  # type: ignore[arg-type]


def test_milliseconds_are_of_one_image() -> None:
    assert report().milliseconds["network"].median == pytest.approx(100)  # 0.2 s for two
    assert report().milliseconds["network"].high == pytest.approx(180)  # 0.2 + 0.8 * (0.4 - 0.2) s for two


def test_frames_per_second() -> None:
    rates = report().frames_per_second
    assert {name: rate.median for name, rate in rates.items()} == {
        "network": pytest.approx(10),
        "arrays": pytest.approx(2 / 0.22),
        "files": pytest.approx(8),
    }


def test_overhead_is_taken_turn_by_turn() -> None:
    assert report().overhead.median == pytest.approx(0.04)  # of 0.04, 0.05 and 0.01


def test_share_of_the_peak() -> None:
    assert report().gflops == pytest.approx(60)  # 3 G multiply-adds are 6 GFLOP, ten times a second
    assert report().share == pytest.approx(0.5)  # of 120


def test_unknown_multiply_adds() -> None:
    unknown = report(multiply_adds=None)
    assert unknown.gflops is None
    assert unknown.share is None
    assert not any("GFLOP" in line for line in unknown.foot())


def test_json_holds_everything() -> None:
    document = json.loads(report(batches={1: 5.0, 2: 6.0}).to_json())
    assert document["format"] == 1
    assert document["model"]["multiply_adds"] == 3_000_000_000
    assert document["machine"]["processor"] == "P"
    assert document["setup"]["batch"] == 2
    assert set(document["milliseconds"]) == set(SECONDS)
    for figure in (*document["milliseconds"].values(), *document["frames_per_second"].values()):
        assert set(figure) == {"median", "low", "high", "number"}
        assert figure["low"] <= figure["median"] <= figure["high"]
        assert figure["number"] == 3
    assert document["overhead"]["median"] == pytest.approx(0.04)
    assert document["detections"]["median"] == 5
    assert document["peak"]["way"] == "b"
    assert document["peak"]["precision"] == "fp32"
    assert set(document["peak"]["ways"]) == {"a", "b"}
    assert document["share_of_peak"] == pytest.approx(0.5)
    assert document["batches"] == {"1": 5.0, "2": 6.0}


def test_text() -> None:
    console = Console(width=100)
    with console.capture() as capture:
        console.print(report().table())
    table = capture.get()
    assert "100.00" in table and "110.00" in table
    head, foot = " ".join(report().head()), " ".join(report().foot())
    assert "random weights" in head and "some images" in head and "detections over 0.5 in an image: 5" in head
    assert "4.0% of the network's time" in foot
    assert "3.00 G multiply-adds an image: 60 GFLOP/s, 50% of the 120 GFLOP/s that b reaches in fp32" in foot
    assert "not that of post-processing" in foot


def test_sides_that_differ() -> None:
    assert "300 x 300" in report().head()[0]
    assert "320 x 256" in report(model={**report().model, "image_size": [320, 256]}).head()[0]


def test_eight_bits_beside_an_fp32_peak_are_said_to_be_so() -> None:
    quantised = {**report().model, "precision": "int8", "weights": "trained"}
    foot = " ".join(report(model=quantised).foot())
    assert "which int8 may go beyond" in foot
    assert "random" not in foot
    assert "may go beyond" not in " ".join(report().foot())


def test_batches_that_were_tried() -> None:
    assert "1: 5.0, 2: 6.5" in " ".join(report(batches={1: 5.0, 2: 6.5}).foot())

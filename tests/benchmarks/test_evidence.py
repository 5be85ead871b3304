"""The table of the evidence: gains and their mean over the sets, worked by hand."""

from __future__ import annotations

import sys
from collections.abc import Callable
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
import pytest
from scipy.stats import ttest_ind

# mAP and AP on small objects of two seeds, by data set and row.
FOUND = {
    "boards": {"ssd": [(0.50, 0.10), (0.52, 0.12)], "fssd": [(0.55, 0.20), (0.57, 0.22)]},
    "buses": {"ssd": [(0.30, None), (0.30, None)], "fssd": [(0.29, None), (0.29, None)]},
}


def run(found: tuple[float, float | None]) -> dict[str, Any]:
    value, small = found
    return {
        "mAP": value,
        "AP75": 0.4,
        "small": small,
        "medium": 0.5,
        "large": None,
        "resampled": [value] * 101,
    }


def test_the_table(
    script: Callable[[str], ModuleType],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    evidence = script("evidence")
    measured = {name: {row: [*map(run, own)] for row, own in rows.items()} for name, rows in FOUND.items()}
    monkeypatch.setattr(evidence, "measured_runs", lambda folder, _: measured[folder.name])
    out = tmp_path / "table.md"
    monkeypatch.setattr(sys, "argv", ["evidence.py", "boards", "buses", "--markdown", str(out)])
    evidence.main()
    lines = out.read_text().splitlines()
    assert capsys.readouterr().out.splitlines() == lines
    assert lines[2] == "| boards | ssd | 2 | 51.0 ± 1.4 | 40.0 ± 0.0 | 11.0 ± 1.4 | 50.0 ± 0.0 | - |  |  |"
    # Two seeds of each, 2 points apart: either mean has a variance of 1 with one degree of freedom, so the
    # gain one of 2 with two, for which the quantile of Student's t is 4.303: 5 +- 4.303 * 1.414.
    assert lines[3].endswith("| 21.0 ± 1.4 | 50.0 ± 0.0 | - | +5.0 | -1.1 to +11.1 |")
    assert lines[5].endswith("| -1.0 | -1.0 to -1.0 |")
    assert lines[6] == "| mean of 2 | fssd |  |  |  | +10.0 |  |  | +2.0 | -1.0 to +5.0 |"


def test_another_model_of_the_same_size_is_measured_again(
    script: Callable[[str], ModuleType], tmp_path: Path
) -> None:
    what = script("evidence").what_is_measured
    (tmp_path / "config.yaml").write_text("val_split: val\nmetric: voc12\n")
    model = tmp_path / "final.safetensors"
    model.write_bytes(b"one")
    first = what(model, 1000)
    assert first == what(model, 1000) != what(model, 100)
    model.write_bytes(b"two")
    assert what(model, 1000) != first
    model.write_bytes(b"one")
    (tmp_path / "config.yaml").write_text("val_split: val\nmetric: coco\n")
    assert what(model, 1000) != first


def test_the_first_row_counts_every_image_once(script: Callable[[str], ModuleType]) -> None:
    image_weights = script("evidence").image_weights
    weights = image_weights(7, 50)
    assert weights.shape == (51, 7)
    assert (weights[0] == 1).all() and (weights[1:] != 1).any()
    assert (weights.sum(axis=1) == 7).all()
    assert (weights == image_weights(7, 50)).all()


def test_seeds_are_those_of_welchs_test(script: Callable[[str], ModuleType]) -> None:
    evidence = script("evidence")
    first, other = [0.50, 0.54, 0.49], [0.60, 0.62, 0.64, 0.59]
    sides = ([np.full(101, value) for value in side] for side in (first, other))
    found = evidence.gain_over(*sides)
    assert found.value == pytest.approx(0.6125 - 0.51) and found.images == pytest.approx(0)
    expected = ttest_ind(other, first, equal_var=False).confidence_interval(0.95)
    assert evidence.interval(found) == pytest.approx((expected.low, expected.high))


def test_images_vary_together(script: Callable[[str], ModuleType]) -> None:
    evidence = script("evidence")
    shared, own = np.random.default_rng(0).normal(size=(2, 1001))
    # What the images add to both cancels; what they add to one stays. One seed has no spread of its own.
    found = evidence.gain_over([0.5 + shared], [0.6 + shared])
    assert evidence.interval(found) == pytest.approx((found.value, found.value))
    found = evidence.gain_over([0.5 + shared], [0.6 + shared + own])
    half = 1.96 * own[1:].std()
    assert evidence.interval(found) == pytest.approx((found.value - half, found.value + half), rel=2e-3)


def test_an_interval_holds_the_truth_in_95_of_100_cases(script: Callable[[str], ModuleType]) -> None:
    """Three seeds on each of four sets, whose spreads differ."""
    evidence = script("evidence")
    rng = np.random.default_rng(1)
    held = 0
    for _ in range(1000):
        gains = []
        for spread in (1.0, 0.5, 2.0, 0.1):
            first, other = spread * rng.normal(size=(2, 3, 1))
            gains.append(evidence.gain_over(np.repeat(first, 3, axis=1), np.repeat(other, 3, axis=1)))
        low, high = evidence.interval(evidence.mean_gain(gains))
        held += low < 0 < high
    assert 930 <= held <= 980

"""Fitted priors: overlaps worked by hand, priors laid out by a plain loop, and real data sets."""

from __future__ import annotations

import json
import os
from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np
import numpy.typing as npt
import pytest
import torch

from fssd.boxes import Floats
from fssd.data.source import open_data
from fssd.errors import ConfigError
from fssd.heads.multibox.fit import _fit_priors, _fit_to_coverage, best_overlaps, fit_priors, fit_to_coverage
from fssd.heads.multibox.priors import Level
from fssd.model.build import build_model

REAL = os.environ.get("FSSD_TEST_DATA", "")
needs_data = pytest.mark.skipif(not REAL, reason="FSSD_TEST_DATA does not name a folder of data sets")


@pytest.fixture(autouse=True)
def empty_cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """No fit of an earlier run of the tests is taken."""
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))


@pytest.fixture
def few_updates(monkeypatch: pytest.MonkeyPatch) -> None:
    """For what does not depend on how good the priors are."""
    monkeypatch.setattr("fssd.heads.multibox.fit.UPDATES", 40)


MIDDLE = (0.5, 0.5)
MAPS = (38, 19, 10, 5, 3, 1)
LIMITS = (4, 6, 6, 6, 4, 4)
DEFAULT = (100.0, 50.0)
GRIDS = tuple(
    Level(size, size, (300 / size, 300 / size), (DEFAULT,) * limit)
    for size, limit in zip(MAPS, LIMITS, strict=True)
)

Boxes = npt.NDArray[np.float64]


def scatter(
    width: float, height: float, count: int, image: tuple[float, float] = (300, 300), seed: int = 0
) -> Boxes:
    """(count, 4) boxes of one shape at random places wholly inside an image of (width, height) pixels."""
    low = np.random.default_rng(seed).random((count, 2)) * (image[0] - width, image[1] - height)
    return np.concatenate((low, low + np.array([width, height])), axis=1)


def lay_out(levels: Sequence[Level]) -> torch.Tensor:
    """All priors of all cells, (P, 4) xyxy in pixels, one after another."""
    priors = []
    for level in levels:
        centres = level.centres or (MIDDLE,) * level.anchors
        for row in range(level.rows):
            for column in range(level.columns):
                for (width, height), (x, y) in zip(level.shapes, centres, strict=True):
                    left = (column + x) * level.step[0] - width / 2
                    top = (row + y) * level.step[1] - height / 2
                    priors.append((left, top, left + width, top + height))
    return torch.tensor(priors, dtype=torch.float32)


def coverage(boxes: Boxes, levels: Sequence[Level]) -> float:
    """Share of boxes with a prior at IoU 0.5."""
    return float((best_overlaps(boxes, lay_out(levels)) >= 0.5).mean())


def test_two_copies_of_a_shape_share_a_cell() -> None:
    # Squares of 16 on a grid of 10. From two priors a cell, at its corner and its middle, no box is further
    # away than (5, 0) or (2.5, 2.5) pixels: 11 * 16 / (512 - 176) = 0.52 and 13.5^2 / (512 - 182.25) = 0.55.
    # From one a cell it can be (5, 5): 11^2 / (512 - 121) = 0.31; and a larger prior does not help either:
    # one that always holds the box has a side of 26, which gives 256 / 676 = 0.38.
    one, two = (Level(20, 30, (10.0, 10.0), ((50.0, 50.0),) * limit) for limit in (1, 2))
    boxes, others = (scatter(16, 16, 2000, (300, 200), seed) for seed in (0, 1))
    fitted = fit_priors(boxes, [two])
    assert coverage(boxes, fitted) > 0.99
    assert coverage(others, fitted) > 0.99
    assert coverage(boxes, fit_priors(boxes, [one])) < 0.8


def test_priors_adapt_to_steps_that_differ() -> None:
    # A box of 30 x 12 on steps of 12 x 5 is at most (6, 2.5) pixels away from a centre:
    # 24 * 9.5 / (720 - 228) = 0.46 at the corner only, and a prior of 36 x 14.5 always holds it: 0.69.
    grid = Level(40, 25, (12.0, 5.0), ((50.0, 50.0),))
    boxes = scatter(30, 12, 2000, (300, 200))
    assert coverage(boxes, fit_priors(boxes, [grid])) > 0.99


def test_same_seed_same_priors(few_updates: None) -> None:
    boxes = scatter(20, 14, 300)
    grids = [Level(20, 30, (10.0, 10.0), ((50.0, 50.0),) * 2)]
    state = torch.get_rng_state()
    first = fit_priors(boxes, grids, seed=3)
    _fit_priors.cache_clear()
    assert fit_priors(boxes, grids, seed=3) == first
    assert fit_priors(boxes, grids, seed=4) != first
    assert torch.equal(torch.get_rng_state(), state)


def test_levels_keep_their_limit_and_their_range() -> None:
    boxes = np.concatenate([scatter(side, 1.5 * side, 200, seed=side) for side in (10, 20, 40, 80, 160)])
    fitted = fit_priors(boxes, GRIDS)
    assert fitted[-1].shapes == (DEFAULT,) * LIMITS[-1]  # from 0.75 * 300 pixels, which no box has
    for size, limit, level in list(zip(MAPS, LIMITS, fitted, strict=True))[:-1]:
        sides = [(width * height) ** 0.5 for width, height in level.shapes]
        assert level.centres is not None
        assert len(sides) == len(level.centres) == limit
        assert sides == sorted(sides)
        assert (0.25 if size == 38 else 0.75) * 300 / size - 0.01 <= sides[0]
        assert sides[-1] <= 6 * 300 / size + 0.01
        assert all(0 <= x <= 1 and 0 <= y <= 1 for x, y in level.centres)
    assert coverage(boxes, fitted) > 0.95


def test_side_stays_in_range_where_larger_boxes_abound() -> None:
    # On a step of 10 a prior has at most 60 x 60, though 72 x 72 would cover all of these boxes.
    grid = Level(30, 30, (10.0, 10.0), ((50.0, 50.0),))
    boxes = np.concatenate((scatter(55, 55, 50), scatter(90, 90, 950)))
    width, height = fit_priors(boxes, [grid])[0].shapes[0]
    assert (width * height) ** 0.5 == pytest.approx(60, abs=0.02)


def test_levels_without_boxes_keep_their_default(few_updates: None) -> None:
    default = list(GRIDS)
    assert list(fit_priors(np.zeros((0, 4)), GRIDS)) == default
    small = np.concatenate((scatter(16, 16, 995), scatter(250, 250, 5)))  # 0.5 % of large boxes are too few
    fitted = fit_priors(small, GRIDS)
    assert list(fitted[2:]) == default[2:]
    assert all(level.shapes != old.shapes for level, old in zip(fitted[:2], default[:2], strict=True))


@needs_data
@pytest.mark.parametrize(("name", "least"), [("deeppcb", 0.99), ("circuit", 0.77), ("bangkok-bus", 0.83)])
def test_coverage_of_real_data(name: str, least: float) -> None:
    folder = Path(REAL) / name
    if not folder.is_dir():
        pytest.skip(f"{folder} is absent")
    train, val = (_network_boxes(folder, split) for split in ("train", "val"))
    fitted = fit_priors(train, GRIDS)
    assert coverage(train, fitted) >= least
    assert coverage(val, fitted) >= least


def _network_boxes(folder: Path, split: str) -> Boxes:
    """(N, 4) boxes of a split after the warp to 300 x 300."""
    parts = []
    for record in open_data(folder, split).records:
        assert record.width is not None and record.height is not None
        parts.append(record.boxes * (300 / np.array([record.width, record.height] * 2)))
    return np.concatenate(parts)


def test_a_network_is_built_with_fitted_priors() -> None:
    boxes = scatter(14, 9, 500).astype(np.float32)
    options = build_model("fssd300-lite", 2).heads.fitted(boxes)
    options = json.loads(json.dumps(options))  # as a checkpoint holds them
    with torch.device("meta"):
        network = build_model("fssd300-lite", 2, **options)
    assert len(network.heads.priors) == 8732, "as many priors a cell as in the tables"
    torch.testing.assert_close(network.heads.priors, lay_out(network.heads.levels), rtol=0, atol=1e-4)
    assert (network.heads.best_overlaps(boxes) >= 0.5).mean() > 0.95
    with pytest.raises(ConfigError, match="fitted priors are not for the 7 levels"):
        build_model("fssd300-lite", 2, size=512, **options)
    with pytest.raises(ConfigError, match="ratios belongs to a table"):
        build_model("fssd300-lite", 2, ratios=[[2]] * 6, **options)


def test_as_many_priors_as_the_coverage_needs() -> None:
    # The squares of `test_two_copies_of_a_shape_share_a_cell`, which one prior a cell of 10 px cannot cover.
    one = Level(20, 30, (10.0, 10.0), ((50.0, 50.0),))
    boxes, others = (scatter(16, 16, 2000, (300, 200), seed) for seed in (0, 1))
    (fitted,) = fit_to_coverage(boxes, [one], 0.95)
    assert fitted.anchors == 3  # two are added at a time
    assert coverage(others, [fitted]) >= 0.95
    assert fit_to_coverage(boxes, [one], 0.5) == fit_priors(boxes, [one])


Fit = Callable[[Floats, list[Level]], tuple[Level, ...]]


@pytest.mark.parametrize("fit", [fit_priors, lambda boxes, levels: fit_to_coverage(boxes, levels, 0.5)])
def test_the_same_again_is_not_fitted_again(
    fit: Fit, monkeypatch: pytest.MonkeyPatch, few_updates: None
) -> None:
    one = Level(10, 10, (30.0, 30.0), ((50.0, 50.0),))
    boxes = scatter(40, 40, 300)
    fitted = fit(boxes, [one])

    def refuse(*_: object) -> None:
        raise AssertionError("it was fitted again")

    monkeypatch.setattr("fssd.heads.multibox.fit._optimise", refuse)
    assert fit(boxes.copy(), [one]) == fitted
    _fit_to_coverage.cache_clear()  # another process
    assert fit(boxes.copy(), [one]) == fitted
    boxes[0] += 1
    with pytest.raises(AssertionError):
        fit(boxes, [one])


def test_priors_are_added_on_the_level_that_needs_them() -> None:
    fine, coarse = (Level(n, n, (300 / n, 300 / n), ((50.0, 50.0),)) for n in (40, 10))
    boxes = scatter(9, 9, 2000)  # of steps of 7.5 and 30 px, whose priors have sides of 22.5 px and more
    fitted = fit_to_coverage(boxes, [fine, coarse], 0.95)
    assert fitted[0].anchors > 1
    assert fitted[1].anchors == 1


def test_coverage_out_of_reach(monkeypatch: pytest.MonkeyPatch, few_updates: None) -> None:
    monkeypatch.setattr("fssd.heads.multibox.fit.MOST_ANCHORS", 4)
    coarse = Level(3, 3, (100.0, 100.0), ((50.0, 50.0),))
    mixed = np.concatenate([scatter(120, 120, 100), scatter(2, 2, 400)])
    with pytest.raises(ConfigError, match=r"prior_coverage 0\.95 is out of reach: 3 priors a cell cover 0\."):
        fit_to_coverage(mixed, [coarse], 0.95)

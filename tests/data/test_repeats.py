"""Oversampling: the factors of the paper, and an order that depends on the seed and the pass alone."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from fssd.data.geometry import Warp
from fssd.data.loader import Views
from fssd.data.mixing import Mixing
from fssd.data.repeats import Repeats, repeat_factors
from fssd.data.sample import DataSet
from fssd.data.source import open_data

SIDE = (0, 0, 9, 9)


def test_factors_of_the_paper(make_set: Callable[..., Any]) -> None:
    """Of ten images all have a cat and two a dog; one dog is difficult."""
    rows = [[(0, SIDE)] * (2 if n == 9 else 1) + [(1, SIDE)] * (n < 2) for n in range(10)] + [[]] * 2
    dataset, _ = make_set([(row, []) for row in rows])
    # f(cat) = 10/12, f(dog) = 2/12; sqrt(0.5 / f(dog)) = sqrt(3), and sqrt(0.5 / f(cat)) is below 1.
    assert repeat_factors(dataset, 0.5, True, True) == pytest.approx([3**0.5] * 2 + [1.0] * 10)
    # All of them: f(cat) = 10/12 gives sqrt(12/10).
    factors = repeat_factors(dataset, 1.0, True, True)
    assert factors == pytest.approx([6**0.5] * 2 + [1.2**0.5] * 8 + [1.0] * 2)


def test_objects_that_are_not_trained_on_do_not_count(make_set: Callable[..., Any]) -> None:
    dataset, _ = make_set([([(0, SIDE), (1, SIDE)], []), ([(0, SIDE), (1, SIDE)], [])], difficult=[1])
    assert repeat_factors(dataset, 1.0, False, False).tolist() == [1.0, 1.0]


@given(st.lists(st.floats(1, 9), min_size=1, max_size=30), st.integers(0, 99), st.integers(0, 5))
def test_every_pass_is_whole(factors: list[float], seed: int, epoch: int) -> None:
    repeats = Repeats(np.array(factors))
    order, turn = repeats.of_pass(seed, epoch)
    assert len(order) == len(turn) == len(repeats) == int(np.ceil(sum(factors) - 1e-6))
    counts = np.bincount(order, minlength=len(factors))
    scale = len(repeats) / sum(factors)
    assert (counts >= np.floor(np.array(factors) - 1e-9)).all()
    assert (counts <= np.ceil(np.array(factors) * scale + 1e-9)).all()
    for index in range(len(factors)):
        assert sorted(turn[order == index]) == list(range(counts[index]))
    again = Repeats(np.array(factors)).of_pass(seed, epoch)
    assert np.array_equal(order, again.order) and np.array_equal(turn, again.turn)


def test_the_mean_over_many_passes_is_the_factor() -> None:
    factors = np.array([1.0, 1.25, 2.5, 1.0, 3.0, 1.25])
    repeats = Repeats(factors)  # the sum is 10
    counts = sum(np.bincount(repeats.of_pass(7, epoch).order, minlength=6) for epoch in range(400))
    assert counts / 400 == pytest.approx(factors, abs=0.1)
    assert counts[4] == 1200, "a whole factor is met in every pass"


@pytest.fixture(scope="module")
def views(scenes: Path) -> Views:
    dataset = open_data(scenes, "train")
    factors = np.ones(len(dataset))
    factors[3] = 3.0
    return Views(dataset, Warp((64, 64)), 5, "ssd", True, repeats=Repeats(factors))


def test_repeated_views_differ_and_the_others_are_those_of_a_plain_run(views: Views) -> None:
    count = len(views.dataset) + 2
    plain = replace(views, repeats=None)
    for epoch in (0, 1):
        shown = [views.sample(epoch * count + rank) for rank in range(count)]
        own = [plain.sample(epoch * (count - 2) + rank) for rank in range(count - 2)]
        known = {view.image.tobytes() for view in own}
        assert sum(view.image.tobytes() in known for view in shown) == count - 2
        assert len({view.image.tobytes() for view in shown}) == count, "no view is shown twice"


def test_other_images_of_a_mosaic_are_drawn_from_the_same_pass(views: Views) -> None:
    mixed = replace(views, mixing=Mixing(1.0, 0.0, 10**6))
    rare = Path(views.dataset.records[3].path).name
    names = [mixed.sample(position).name for position in range(60)]
    others = [name for view in names for name in view.split(" + ")[1:]]
    share = sum(Path(name).name == rare for name in others) / len(others)
    assert share > 2 / len(views.dataset), "three times as often as another one, which is in 1 of 14"


def test_without_objects_nothing_is_repeated(make_set: Callable[..., Any]) -> None:
    empty: DataSet = make_set([([], []), ([], [])])[0]
    assert repeat_factors(empty, 1.0, True, True).tolist() == [1.0, 1.0]

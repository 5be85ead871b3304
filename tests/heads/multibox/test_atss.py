"""ATSS against plain code, by hand, and as the targets of a head."""

from __future__ import annotations

import pickle

import numpy as np
import pytest
import torch
from plain_atss import plain_atss

from fssd.errors import ConfigError
from fssd.heads.multibox.atss import PriorGroup, match_atss
from fssd.heads.multibox.match import Floats
from fssd.heads.multibox.multibox_head import MultiboxHead
from fssd.heads.multibox.priors import Level, exact_priors
from fssd.heads.multibox.targets import MultiboxTargets
from fssd.model.build import build_model

LEVELS = (
    Level(8, 8, (10.0, 10.0), ((14.0, 14.0), (20.0, 10.0), (10.0, 20.0))),
    Level(4, 4, (20.0, 20.0), ((32.0, 32.0), (48.0, 24.0))),
    Level(1, 1, (80.0, 80.0), ((70.0, 70.0),)),
)
FITTED = (
    Level(8, 8, (10.0, 10.0), ((14.0, 14.0), (20.0, 10.0)), ((0.25, 0.5), (0.75, 0.5))),
    Level(4, 4, (20.0, 20.0), ((32.0, 32.0), (48.0, 24.0)), ((0.5, 0.5), (0.1, 0.9))),
)


def groups_of(levels: tuple[Level, ...]) -> list[PriorGroup]:
    return [PriorGroup(level.rows * level.columns, level.anchors) for level in levels]


def random_boxes(seed: int) -> Floats:
    """Objects of 2 to 80 px in an image of 80, at whole and half pixels, so that cells are equally near."""
    rng = np.random.default_rng(seed)
    count = int(rng.integers(1, 14))
    sides = np.round(2 * np.exp(rng.uniform(0, 3.6, (count, 2))))
    corner = np.round(rng.uniform(0, 1, (count, 2)) * (80 - sides).clip(0) * 2) / 2
    return np.concatenate((corner, corner + sides), axis=1).astype(np.float32)


@pytest.mark.parametrize("levels", [LEVELS, FITTED, LEVELS[2:]], ids=["table", "fitted", "one prior"])
@pytest.mark.parametrize("seed", range(20))
def test_equals_plain_code(levels: tuple[Level, ...], seed: int) -> None:
    priors, boxes, groups = exact_priors(levels).astype(np.float32), random_boxes(seed), groups_of(levels)
    assert match_atss(boxes, priors, groups).tolist() == plain_atss(boxes.tolist(), priors.tolist(), groups)


def test_by_hand() -> None:
    # Five cells of 10 px in a row, one prior of 10 x 10 in each. The object is 14 wide around the second:
    # IoU of the five: 2/22, 100/140, 2/22, 0, 0; mean 0.1792, deviation 0.3025: the second alone is over.
    level = Level(1, 5, (10.0, 10.0), ((10.0, 10.0),))
    priors = exact_priors((level,)).astype(np.float32)
    box = np.array([[8, 0, 22, 10]], np.float32)
    assert match_atss(box, priors, groups_of((level,))).tolist() == [-1, 0, -1, -1, -1]
    # Over three whole cells 1/3 each: mean 0.2, deviation 0.1826, so 0.3826 is asked and none has it; the
    # object then takes the best free one, of equal ones the first.
    wide = np.array([[10, 0, 40, 10]], np.float32)
    assert match_atss(wide, priors, groups_of((level,))).tolist() == [-1, 0, -1, -1, -1]


def test_a_prior_that_two_want_goes_to_the_one_it_overlaps_more() -> None:
    level = Level(1, 5, (10.0, 10.0), ((10.0, 10.0),))
    priors = exact_priors((level,)).astype(np.float32)
    boxes = np.array([[8, 0, 22, 10], [9, 0, 21, 10]], np.float32)
    owners = match_atss(boxes, priors, groups_of((level,)))
    assert owners[1] == 1
    assert sorted(owners.tolist()) == [-1, -1, -1, 0, 1], "the other one takes what is left"


def test_an_object_smaller_than_a_cell_is_not_lost() -> None:
    head = build("ssd300-lite")
    tiny = np.array([[101, 101, 103, 103]], np.float32)  # no centre of a cell lies in it
    assert int((head.targets(tiny, np.array([0]))["classes"] > 0).sum()) == 1


def build(name: str, **options: str) -> MultiboxHead:
    with torch.device("meta"):
        head = build_model(name, 3, matching="atss", **options).heads
    assert isinstance(head, MultiboxHead)
    return head


def test_targets_have_one_shape_and_travel() -> None:
    head = build("fssd300-lite")
    boxes, labels = np.array([[10, 10, 90, 90], [100, 120, 130, 150]], np.float32), np.array([1, 2])
    full, empty = (
        head.targets(boxes, labels),
        head.targets(np.zeros((0, 4), np.float32), np.zeros(0, np.int64)),
    )
    for made in (full, empty):
        assert {key: tuple(t.shape) for key, t in made.items()} == {"classes": (8732,), "offsets": (8732, 4)}
    assert set(full["classes"].unique().tolist()) == {0, 2, 3} and not empty["classes"].any()
    again = pickle.loads(pickle.dumps(head.targets))(boxes, labels)
    assert all(torch.equal(again[key], full[key]) for key in full)


def test_it_is_an_option_of_the_head() -> None:
    with torch.device("meta"):
        head = build_model("ssd300-lite", 1).heads
        assert head.targets.groups == () and "0.50" in head.matching
        with pytest.raises(ConfigError, match="there is no matching 'tal'; known: ssd, atss"):
            build_model("ssd300-lite", 1, matching="tal")
    own = build("ssd300-lite")
    assert len(own.targets.groups) == 6 and "0.50" not in own.matching
    own.change_size((416, 416), [(52, 52), (26, 26), (13, 13), (7, 7), (4, 4), (2, 2)], [(8.0, 8.0)] * 6)
    assert own.targets.groups[0] == (52 * 52, 4)


def test_targets_of_ssd_are_as_before() -> None:
    priors = exact_priors(LEVELS)
    made = MultiboxTargets.of_levels(LEVELS, (80, 80))
    assert made.groups == () and np.array_equal(made.priors, priors.astype(np.float32))

"""The plan of tiles, and their settings: given, kept in a model, or from the size of the objects."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from fssd.data.sample import Record
from fssd.data.tiles import Tiles, fitting_side, measure_objects, plan_tiles, read_tiles, stored_tiles
from fssd.errors import CheckpointError, ConfigError, ImageError

INPUT = (300, 300)


def test_the_plan_by_hand() -> None:
    # Steps of 480 - 96 = 384: 0, 384, and 768 would end at 1248, so the last begins at 1000 - 480.
    assert plan_tiles((1000, 500), (480, 480), 0.2) == [
        (0, 0, 480, 480),
        (384, 0, 864, 480),
        (520, 0, 1000, 480),
        (0, 20, 480, 500),
        (384, 20, 864, 500),
        (520, 20, 1000, 500),
    ]
    assert plan_tiles((960, 300), (480, 480), 0.0) == [(0, 0, 480, 300), (480, 0, 960, 300)]


@pytest.mark.parametrize("image", [(480, 480), (100, 480), (1, 1)])
def test_an_image_no_larger_than_a_tile_is_one(image: tuple[int, int]) -> None:
    assert plan_tiles(image, (480, 480), 0.2) == [(0, 0, *image)]
    assert Tiles(480).windows(image, INPUT) == [(0, 0, *image)]


@pytest.mark.parametrize("seed", range(20))
def test_tiles_cover_the_image_are_equal_and_overlap(seed: int) -> None:
    rng = np.random.default_rng(seed)
    image = int(rng.integers(1, 500)), int(rng.integers(1, 500))
    tile = int(rng.integers(32, 300)), int(rng.integers(32, 300))
    overlap = float(rng.choice([0, 0.1, 0.2, 0.5, 0.9]))
    plan = plan_tiles(image, tile, overlap)
    assert len(set(plan)) == len(plan)
    assert {(x2 - x1, y2 - y1) for x1, y1, x2, y2 in plan} == {
        (min(image[0], tile[0]), min(image[1], tile[1]))
    }
    seen = np.zeros(image[::-1], int)
    for x1, y1, x2, y2 in plan:
        assert x1 >= 0 and y1 >= 0 and x2 <= image[0] and y2 <= image[1]
        seen[y1:y2, x1:x2] += 1
    assert seen.min() >= 1
    starts = sorted({x1 for x1, *_ in plan})
    shared = [starts[i] + tile[0] - starts[i + 1] for i in range(len(starts) - 1)]
    assert all(one >= min(overlap * tile[0], tile[0] - 1) for one in shared)


def test_tiles_have_the_shape_of_the_input_and_the_whole_image_comes_last() -> None:
    assert Tiles(480).shape((400, 300)) == (480, 360)
    windows = Tiles(480, 0.2).windows((1000, 400), INPUT)
    assert windows[:-1] == plan_tiles((1000, 400), (480, 480), 0.2)
    assert windows[-1] == (0, 0, 1000, 400)
    assert Tiles(480, 0.2, whole_image=False).windows((1000, 400), INPUT) == windows[:-1]


def test_too_many_tiles_are_an_error_with_their_number() -> None:
    with pytest.raises(ImageError, match=r"1,000,000 x 1,000,000 px, which makes 6,780,816 tiles of 480 px"):
        Tiles(480, 0.2).windows((1_000_000, 1_000_000), INPUT)
    # 2 + 1 tiles by 2 + 1: (1000 - 480) / 384 = 1.35, so three in each direction.
    assert len(Tiles(480, 0.2, most=9).windows((1000, 1000), INPUT)) == 10
    with pytest.raises(ImageError, match=r"9 tiles of 480 px with overlap 0\.2, more than 8"):
        Tiles(480, 0.2, most=8).windows((1000, 1000), INPUT)


@pytest.mark.parametrize(
    ("values", "told"),
    [
        ({"side": 31}, "tiles are 31; give a whole number of pixels from 32"),
        ({"side": 48.5}, "tiles are 48.5"),
        ({"side": True}, "tiles are True"),
        ({"side": float("nan")}, "tiles are nan"),
        ({"side": 480, "overlap": 1.0}, r"overlap is 1\.0; it must be at least 0 and below 1"),
        ({"side": 480, "overlap": -0.1}, r"overlap is -0\.1"),
        ({"side": 480, "overlap": float("nan")}, "overlap is nan"),
        ({"side": 480, "whole_image": 1}, "whole_image is 1; it must be True or False"),
        ({"side": 480, "most": 0}, "most_tiles is 0; give a whole number from 1"),
    ],
)
def test_nonsense_is_an_error(values: dict[str, Any], told: str) -> None:
    with pytest.raises(ConfigError, match=told):
        Tiles(**values)


def test_settings_go_over_those_of_the_model() -> None:
    kept = stored_tiles({"tiles": Tiles(320, 0.3).facts()})
    assert kept == Tiles(320, 0.3)
    assert read_tiles({}, None, {}, INPUT) is None
    assert read_tiles({}, kept, {}, INPUT) == kept
    assert read_tiles({"tiles": "none"}, kept, {}, INPUT) is None
    assert read_tiles({"tiles": 480}, kept, {}, INPUT) == Tiles(480, 0.3)
    assert read_tiles({"tiles": "auto", "most_tiles": 9}, kept, {}, INPUT) == Tiles(320, 0.3, most=9)
    assert read_tiles({"whole_image": False}, kept, {}, INPUT) == Tiles(320, 0.3, whole_image=False)
    assert read_tiles(Tiles(64, 0.1).settings(), kept, {}, INPUT) == Tiles(64, 0.1)
    assert read_tiles({"tiles": Tiles(64)}, kept, {}, INPUT) == Tiles(64)


def test_auto_shows_objects_as_large_as_in_training() -> None:
    # Objects of 40 px were 12 px of an input of 300: the images were 1,000 px, and so are the tiles.
    facts = {"objects": {"image": 40.0, "input": 12.0}}
    assert read_tiles({"tiles": "auto"}, None, facts, INPUT) == Tiles(1000)
    with pytest.raises(ConfigError, match="does not say how large its training objects were; give a number"):
        read_tiles({"tiles": "auto"}, None, {}, INPUT)


@pytest.mark.parametrize(
    ("settings", "told"),
    [
        ({"overlap": 0.2}, "overlap is for tiles, and there are none"),
        ({"tiles": "none", "most_tiles": 3}, "most_tiles is for tiles, and there are none"),
        ({"tiles": "many"}, "tiles are 'many'; give a number of pixels, auto or none"),
        ({"tiles": Tiles(64), "overlap": 0.2}, "tiles are given as Tiles"),
    ],
)
def test_settings_without_effect_are_errors(settings: dict[str, Any], told: str) -> None:
    with pytest.raises(ConfigError, match=told):
        read_tiles(settings, None, {}, INPUT)


def test_damaged_tiles_of_a_model_are_an_error() -> None:
    for values in ({"side": 3}, {"size": 480}, 480):
        with pytest.raises(CheckpointError, match="of this model cannot be used"):
            stored_tiles({"tiles": values})


def test_the_median_object_gets_32_px_of_the_input() -> None:
    def record(width: int | None, *sides: float) -> Record:
        boxes = np.array([[5, 5, 5 + side, 5 + side] for side in sides], np.float32).reshape(-1, 4)
        flags = np.zeros(len(sides), bool)
        labels = np.zeros(len(sides), np.int64)
        return Record("a", Path("a"), Path("a"), width, width and 100, boxes, labels, flags, flags)

    assert measure_objects([record(1000, 10, 20), record(600, 40), record(None, 20)]) == (20.0, 800.0)
    assert measure_objects([record(1000)]) is None
    assert measure_objects([record(None, 10)]) is None
    assert fitting_side(20.0, 800.0, INPUT) == 188  # 300 * 20 / 32 = 187.5
    assert fitting_side(200.0, 800.0, INPUT) is None

"""Training on tiles: which ones, what the model keeps of them, and resuming."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from torch import nn

from fssd.config.train_config import TrainConfig
from fssd.data.geometry import Warp
from fssd.data.sample import DataSet, Record
from fssd.data.tiles import ObjectSides, Tiles
from fssd.errors import ConfigError
from fssd.inference.detector import Detector
from fssd.training.loop import train
from fssd.training.start import complete
from fssd.training.tiles_of_run import RunTiles

SQUARE = Warp((300, 300))


def objects(width: int, *sides: float) -> DataSet:
    boxes = np.array([[5, 5, 5 + side, 5 + side] for side in sides], np.float32).reshape(-1, 4)
    flags, labels = np.zeros(len(sides), bool), np.zeros(len(sides), np.int64)
    return DataSet(("a",), (Record("a", Path("a"), Path("a"), width, width, boxes, labels, flags, flags),))


def test_auto_gives_the_median_object_32_px() -> None:
    run = RunTiles.of(TrainConfig(tiles="auto"), objects(1000, 10, 20, 40), SQUARE)
    assert run.tiles == Tiles(188)  # 300 * 20 / 32 = 187.5
    assert run.sides == ObjectSides(20.0, 20 * 300 / 188)
    large = RunTiles.of(TrainConfig(tiles="auto"), objects(1000, 200), SQUARE)
    assert (large.tiles, large.sides) == (None, ObjectSides(200.0, 60.0))
    assert "none, for the median object of 200 px has 60 px" in (
        large.describe(TrainConfig(tiles="auto")) or ""
    )


def test_runs_on_whole_images_note_their_objects_too() -> None:
    run = RunTiles.of(TrainConfig(), objects(1000, 100), SQUARE)
    assert run.facts() == {"object_sides": {"image": 100.0, "input": 30.0}}
    assert run.describe(TrainConfig()) is None
    assert RunTiles.of(TrainConfig(tiles="64"), objects(1000), SQUARE).facts() == {}


def test_boxes_in_the_input() -> None:
    config = TrainConfig(tiles="150", tile_overlap=0.3)
    run = RunTiles.of(config, objects(1000, 10), SQUARE)
    assert run.tiles == Tiles(150, 0.3)
    assert run.input_boxes(objects(1000, 10), SQUARE).tolist() == [[10, 10, 30, 30]]
    # Tiles begin at 0, 105, 210, ..., 850 (the last one moved inside): 700 to 760 is whole in the one at 630,
    # 940 to 1,000 in that at 850. 60 to 220 is longer than a tile: that at 105 shows 105 to 220, that at 0
    # only 60 to 150. The input has twice the pixels of a tile.
    boxes = np.array([[700, 5, 760, 15], [940, 940, 1000, 1000], [60, 5, 220, 15]], np.float32)
    flags = np.zeros(3, bool)
    record = Record("a", Path("a"), Path("a"), 1000, 1000, boxes, np.zeros(3, np.int64), flags, flags)
    found = run.input_boxes(DataSet(("a",), (record,)), SQUARE)
    assert found.tolist() == [[140, 10, 260, 30], [180, 180, 300, 300], [0, 10, 230, 30]]


@pytest.mark.parametrize(
    ("values", "told"),
    [
        ({"tiles": "31"}, "tiles are '31'; give a number of pixels from 32, or auto"),
        ({"tiles": "many"}, "tiles are 'many'"),
        ({"tile_overlap": 0.2}, "--tile-overlap is for tiles"),
        ({"empty_tiles": 0.2}, "--empty-tiles is for tiles"),
        ({"tiles": "64", "tile_overlap": 1.0}, "tile_overlap"),
        ({"tiles": "64", "empty_tiles": 1.5}, "empty_tiles"),
    ],
)
def test_nonsense_is_an_error(values: dict[str, Any], told: str) -> None:
    with pytest.raises(ConfigError, match=told):
        complete(TrainConfig(data=Path("d"), out=Path("o"), **values))


def test_a_run_on_tiles(scenes: Path, tiny_backbone: Callable[[], nn.Module], tmp_path: Path) -> None:
    config = TrainConfig(
        data=scenes,
        out=tmp_path / "whole",
        model="fssd300-lite",
        iterations=2,
        batch_size=2,
        workers=0,
        tiles="160",
        tile_overlap=0.25,
        device="cpu",
        amp="off",
    )
    whole = train(config, backbone=tiny_backbone())
    assert whole.model is not None
    detector = Detector.load(whole.model, backbone=tiny_backbone())
    assert detector.tiles == Tiles(160, 0.25)
    assert detector.facts["metrics"]["images"] == 4
    halves = replace(config, out=tmp_path / "halves")
    assert not train(halves, minutes=0, backbone=tiny_backbone()).finished
    assert train(halves, resume=True, backbone=tiny_backbone()).finished
    names = ("final.safetensors",)
    for name in names:
        one, other = (tmp_path / run / name for run in ("whole", "halves"))
        ours, theirs = (Detector.load(file, backbone=tiny_backbone()) for file in (one, other))
        for key, tensor in ours.network.state_dict().items():
            assert tensor.equal(theirs.network.state_dict()[key]), key
        assert theirs.tiles == ours.tiles
        assert theirs.facts["object_sides"] == ours.facts["object_sides"]
    with pytest.raises(ConfigError, match="tiles"):
        train(replace(halves, tiles="200"), resume=True, backbone=tiny_backbone())

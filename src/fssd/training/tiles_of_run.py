"""The tiles that a run trains and is evaluated on: given, or from the size of its objects."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np

from fssd.boxes import intersections
from fssd.config.train_config import TrainConfig
from fssd.data.geometry import Geometry
from fssd.data.input_boxes import input_boxes, record_size
from fssd.data.sample import Boxes, DataSet
from fssd.data.tile_crops import TileCrops
from fssd.data.tiles import FACT, LEAST, OBJECTS, ObjectSides, Tiles, Window, plan_tiles, stored_tiles
from fssd.errors import ConfigError

GOAL = 32.0  # pixels of the input that `auto` gives to the median object: four cells of the finest level
EMPTY = 0.1  # share of tiles without an object


class RunTiles(NamedTuple):
    """tiles: None for a run on whole images. sides: of its objects, None where there are none.

    empty: share of the training tiles without an object.
    """

    tiles: Tiles | None
    sides: ObjectSides | None
    empty: float = EMPTY

    @classmethod
    def of(cls, config: TrainConfig, dataset: DataSet, geometry: Geometry) -> RunTiles:
        """Those of a new run. Raises ConfigError, ImageError."""
        check_tiles(config)
        own = np.concatenate(
            [np.zeros((0, 4), np.float32), *(record.boxes[~record.crowd] for record in dataset.records)]
        )
        empty = EMPTY if config.empty_tiles is None else config.empty_tiles
        if not len(own):
            return cls(None, None, empty)
        sides = ObjectSides(_median_side(own), _median_side(input_boxes(dataset, geometry)))
        if config.tiles is None:
            return cls(None, sides, empty)
        side = sides.tile(geometry.size, GOAL) if config.tiles == "auto" else int(config.tiles)
        if config.tiles == "auto" and side >= sides.tile(geometry.size):
            return cls(None, sides, empty)
        tiles = Tiles(side) if config.tile_overlap is None else Tiles(side, config.tile_overlap)
        return cls(tiles, ObjectSides(sides.image, sides.image * max(geometry.size) / side), empty)

    @classmethod
    def saved(cls, config: TrainConfig, document: dict[str, Any]) -> RunTiles:
        """Those of a run that goes on, from its state."""
        sides = document.get(OBJECTS)
        empty = EMPTY if config.empty_tiles is None else config.empty_tiles
        return cls(stored_tiles(document), None if sides is None else ObjectSides(**sides), empty)

    def facts(self) -> dict[str, Any]:
        """For the documents of the run's models; nothing for what there is not."""
        facts = {} if self.sides is None else {OBJECTS: self.sides._asdict()}
        return facts if self.tiles is None else {**facts, FACT: self.tiles.facts()}

    def crops(self, geometry: Geometry) -> TileCrops | None:
        """How views are cut."""
        return None if self.tiles is None else TileCrops(self.tiles.shape(geometry.size), self.empty)

    def input_boxes(self, dataset: DataSet, geometry: Geometry) -> Boxes:
        """(N, 4) pixels of the input, of all objects but crowds; each in the tile that shows most of it.

        Raises ImageError.
        """
        if self.tiles is None:
            return input_boxes(dataset, geometry)
        shape, overlap = self.tiles.shape(geometry.size), self.tiles.overlap
        rows = [np.zeros((0, 4), np.float32)]
        for record in dataset.records:
            windows = plan_tiles(record_size(record), shape, overlap)
            rows.append(_in_tiles(record.boxes[~record.crowd], windows, geometry))
        return np.concatenate(rows)

    def describe(self, config: TrainConfig) -> str | None:
        """A line on the tiles of a run; None where none were asked for."""
        if config.tiles is None or self.sides is None:
            return None
        median = f"the median object of {self.sides.image:.0f} px has {self.sides.input:.0f} px of the input"
        if self.tiles is None:
            return f"tiles auto: none, for {median} of whole images"
        share = f"about {self.empty:.0%} of those trained on without an object"
        return f"{self.tiles}; {median}, {share}"


def check_tiles(config: TrainConfig) -> None:
    """Raise ConfigError for settings of tiles that make no sense."""
    if config.tiles is None:
        for name in ("tile_overlap", "empty_tiles"):
            if getattr(config, name) is not None:
                flag = name.replace("_", "-")
                raise ConfigError(f"--{flag} is for tiles; give --tiles too, or leave it out")
    elif config.tiles != "auto" and not (str(config.tiles).isdecimal() and int(config.tiles) >= LEAST):
        raise ConfigError(f"tiles are {config.tiles!r}; give a number of pixels from {LEAST}, or auto")


def _in_tiles(boxes: Boxes, windows: Sequence[Window], geometry: Geometry) -> Boxes:
    """(N, 4) pixels of the image -> of the input that the best window of each box becomes, clipped to it.

    windows: all of equal size.
    """
    if not len(boxes):
        return boxes
    whole = np.array(windows, np.float32)
    best = whole[intersections(boxes, whole).argmax(axis=1)]
    width, height = windows[0][2] - windows[0][0], windows[0][3] - windows[0][1]
    inside = np.clip(boxes - np.tile(best[:, :2], 2), 0, np.array([width, height] * 2, np.float32))
    return geometry.apply_boxes(inside, (width, height))


def _median_side(boxes: Boxes) -> float:
    """The square root of the area of the median box, at least a thousandth of a pixel."""
    extent = np.maximum(boxes[:, 2:] - boxes[:, :2], 0).astype(np.float64)
    return max(1e-3, float(np.sqrt(np.median(extent.prod(axis=1)))))

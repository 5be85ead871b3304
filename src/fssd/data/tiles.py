"""Tiles: a large image is looked at in overlapping windows, so that small objects have enough pixels.

    tiles = Tiles(480, overlap=0.2)
    tiles.windows((2000, 1600), (300, 300))  # (x1, y1, x2, y2) of each tile, and of the whole image

The settings and the geometry. `fssd.inference.seams` merges what is found in the windows.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, fields
from typing import Any, NamedTuple

import numpy as np

from fssd.data.geometry import Size
from fssd.data.sample import Record
from fssd.errors import CheckpointError, ConfigError, ImageError

Window = tuple[int, int, int, int]  # x1, y1, x2, y2 in whole pixels of the image, x2 and y2 exclusive
LEAST = 32  # pixels of a tile's longer side
FACT = "tiles"  # the key of the settings in a model's document
TILE_SETTINGS = ("tiles", "overlap", "whole_image", "most_tiles")  # of a call of a detector
OBJECTS = "objects"  # the key of `ObjectSides` there
GOAL = 32.0  # pixels of the input that `auto` gives to the median object: four cells of the finest level
MOST_OBJECTS = 20_000  # that `measure_objects` looks at


@dataclass(frozen=True)
class Tiles:
    """How images are cut. Raises ConfigError for values that make no sense.

    side: the longer side of a tile in pixels of the image; its shape is that of the network's input.
    overlap: share of a tile that its neighbour repeats, 0..1 without 1; objects up to that size are whole in
    some tile. whole_image: look at the image as a whole too, for objects that no tile holds. most: tiles in
    an image above which there is an error.
    """

    side: int
    overlap: float = 0.2
    whole_image: bool = True
    most: int = 400

    def __post_init__(self) -> None:
        if not _is_number(self.side) or self.side != int(self.side) or self.side < LEAST:
            raise ConfigError(f"tiles are {self.side!r}; give a whole number of pixels from {LEAST}")
        if not _is_number(self.overlap) or not 0 <= self.overlap < 1:
            raise ConfigError(
                f"overlap is {self.overlap!r}; it must be at least 0 and below 1, a share of a tile"
            )
        if not isinstance(self.whole_image, bool):
            raise ConfigError(f"whole_image is {self.whole_image!r}; it must be True or False")
        if not _is_number(self.most) or self.most != int(self.most) or self.most < 1:
            raise ConfigError(f"most_tiles is {self.most!r}; give a whole number from 1")

    def shape(self, input_size: Size) -> Size:
        """(width, height) of a tile, in the shape of the network's input."""
        longer = max(input_size)
        width, height = (max(1, round(self.side * side / longer)) for side in input_size)
        return width, height

    def windows(self, image_size: Size, input_size: Size) -> list[Window]:
        """The tiles of an image, row by row, then with `whole_image` the whole, if there are several tiles.

        image_size, input_size: (width, height), of the image and of the network's input. Raises ImageError
        for too many tiles.
        """
        tiles = self._checked(image_size, input_size)
        whole = (0, 0, *image_size)
        return [*tiles, whole] if self.whole_image and len(tiles) > 1 else tiles

    def _checked(self, image_size: Size, input_size: Size) -> list[Window]:
        tile = self.shape(input_size)
        count = math.prod(len(_starts(*sides, self.overlap)) for sides in zip(image_size, tile, strict=True))
        if count > self.most:
            raise ImageError(
                f"is {image_size[0]:,} x {image_size[1]:,} px, which makes {count:,} tiles of {self.side} px"
                f" with overlap {self.overlap:g}, more than {self.most:,}; take larger tiles, less overlap,"
                " or a higher --most-tiles"
            )
        return plan_tiles(image_size, tile, self.overlap)

    def facts(self) -> dict[str, Any]:
        """As JSON values, for a model's document."""
        return {field.name: getattr(self, field.name) for field in fields(self)}

    def settings(self) -> dict[str, Any]:
        """As settings of a call of a detector."""
        return dict(zip(TILE_SETTINGS, self.facts().values(), strict=True))

    def __str__(self) -> str:
        whole = " and the whole image" if self.whole_image else ""
        return f"tiles of {self.side} px, overlap {self.overlap:g}{whole}"


def one_window(image_size: Size) -> list[Window]:
    """The whole image, without tiles."""
    return [(0, 0, *image_size)]


def plan_tiles(image: Size, tile: Size, overlap: float) -> list[Window]:
    """The windows of an image, row by row, all of equal size.

    image, tile: (width, height), pixels. overlap: share of a tile that its neighbour repeats, at least. The
    last window of a row or column is moved inside. Along a side that is no longer than the tile there is one
    window, as long as the image.
    """
    columns, rows = (_starts(*sides, overlap) for sides in zip(image, tile, strict=True))
    width, height = map(min, image, tile)
    return [(x, y, x + width, y + height) for y in rows for x in columns]


def _starts(length: int, side: int, overlap: float) -> range | list[int]:
    if length <= side:
        return [0]
    step = max(1, side - math.ceil(side * overlap))
    count = 1 + math.ceil((length - side) / step)
    starts = range(0, count * step, step)
    return starts if count > 100_000 else [min(start, length - side) for start in starts]


class ObjectSides(NamedTuple):
    """The median size of the training objects: the square root of a box's area.

    image: in pixels of the images. input: in pixels of the network's input, with the tiles of training.
    """

    image: float
    input: float


def measure_objects(records: Iterable[Record]) -> tuple[float, float] | None:
    """The median object (square root of the box's area) and the median longer side of the images, pixels.

    Images whose labels do not say their size count for objects only. None without an object or a size.
    """
    sides: list[float] = []
    longer: list[int] = []
    for record in records:
        if record.width and record.height:
            longer.append(max(record.width, record.height))
        extent = np.maximum(record.boxes[:, 2:] - record.boxes[:, :2], 0).astype(np.float64)
        sides += np.sqrt(extent.prod(axis=1)).tolist()
        if len(sides) > MOST_OBJECTS:
            break
    if not sides or not longer:
        return None
    return float(np.median(sides)), float(np.median(longer))


def read_tiles(
    settings: Mapping[str, Any], stored: Tiles | None, facts: Mapping[str, Any], input_size: Size
) -> Tiles | None:
    """The tiles of a detection; None for none.

    settings: tiles (pixels, "auto", "none", `Tiles`, or None for `stored`), overlap, whole_image and
    most_tiles, each None for that of `stored`, else of `Tiles`. facts: the document of the model. Raises
    ConfigError.
    """
    wanted = settings.get("tiles")
    names = {"overlap": "overlap", "whole_image": "whole_image", "most_tiles": "most"}
    others = {own: settings[name] for name, own in names.items() if settings.get(name) is not None}
    if isinstance(wanted, Tiles):
        if others:
            raise ConfigError("tiles are given as Tiles, which hold their overlap; leave the others out")
        return wanted
    if wanted == "none" or (wanted is None and stored is None):
        if others:
            name = next(name for name, own in names.items() if own in others)
            raise ConfigError(f"{name} is for tiles, and there are none; give tiles too, or leave it out")
        return None
    if wanted == "auto":
        wanted = _same_scale(facts, input_size) if stored is None else stored.side
    elif isinstance(wanted, str):
        raise ConfigError(f"tiles are {wanted!r}; give a number of pixels, auto or none")
    base = {} if stored is None else stored.facts()
    return Tiles(**{**base, **({} if wanted is None else {"side": wanted}), **others})


def stored_tiles(facts: Mapping[str, Any]) -> Tiles | None:
    """The tiles of a model's document. Raises CheckpointError for what no fssd has written."""
    if (values := facts.get(FACT)) is None:
        return None
    try:
        return Tiles(**values)
    except (TypeError, ConfigError) as error:
        raise CheckpointError(f"the tiles {values!r} of this model cannot be used ({error})") from error


def _same_scale(facts: Mapping[str, Any], input_size: Size) -> int:
    """The tile in which objects have the pixels of the input that they had in training."""
    try:
        objects = ObjectSides(**facts[OBJECTS])
        side = max(input_size) * objects.image / objects.input
    except (KeyError, TypeError, ZeroDivisionError):
        raise ConfigError(
            "tiles auto: this model does not say how large its training objects were; give a number of pixels"
        ) from None
    return max(LEAST, round(side))


def fitting_side(objects: float, longer: float, input_size: Size) -> int | None:
    """The tile with which the median object has `GOAL` pixels of the input; None where whole images do that.

    objects, longer: see `measure_objects`.
    """
    side = max(LEAST, round(max(input_size) * objects / GOAL))
    return None if side >= longer else side


def _is_number(value: Any) -> bool:
    kinds = (int, float, np.integer, np.floating)
    return isinstance(value, kinds) and not isinstance(value, bool) and math.isfinite(value)

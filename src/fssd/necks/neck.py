"""The contract of a neck: from a backbone's maps to the levels that a head predicts from."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping, Sequence
from typing import Any, ClassVar, NamedTuple

from torch import Tensor, nn

from fssd.backbones.backbone import MapShape
from fssd.layers.first_weights import xavier
from fssd.layers.folding import fold_sequences

Cells = tuple[int, int]  # rows, columns of a map
FINEST_STRIDE = 8  # input pixels per cell of the first level, in every network here


def finest_cells(image_size: tuple[int, int]) -> Cells:
    """Rows and columns of the first level of an input of (width, height) pixels."""
    return cells_at(FINEST_STRIDE, image_size)


def cells_at(stride: int, image_size: tuple[int, int]) -> Cells:
    """Rows and columns of a map with `stride` pixels to a cell, of an input of (width, height) pixels."""
    width, height = image_size
    return -(-height // stride), -(-width // stride)


class Blueprint(NamedTuple):
    """What a neck is built from.

    model: its name, for messages. image_size: (width, height) of the input, pixels. shapes: of the backbone's
    maps, finest first. light: separable blocks at light width, not the paper's. options: the user's, and
    those that they stand for. first_centre: see `Backbone`. more: names of maps that the backbone gives if
    `Neck.asks` for them.
    """

    model: str
    image_size: tuple[int, int]
    shapes: Mapping[str, MapShape]
    light: bool
    options: Mapping[str, Any]
    first_centre: float | None = None
    more: tuple[str, ...] = ()

    @property
    def finest(self) -> Cells:
        """Rows and columns of the first level, `FINEST_STRIDE` pixels to a cell."""
        return finest_cells(self.image_size)


class Neck(nn.Module):
    """One file holds all that a neck is: the class, how it is built, its options and their checks.

    known_options: names that `build` understands. channels, cells: width and (rows, columns) of each level,
    finest first. steps: (x, y) pixels of the input between the centres of neighbouring cells of each level.
    prior_scales: how many sizes of a table of priors each level takes: one, or more in necks of few levels.
    starts: (x, y) pixels of the centre of each level's first cell; None for half a step.
    """

    known_options: ClassVar[frozenset[str]] = frozenset()

    def __init__(
        self,
        channels: Sequence[int],
        cells: Sequence[Cells],
        steps: Sequence[tuple[float, float]],
        starts: Sequence[tuple[float, float]] | None = None,
    ) -> None:
        super().__init__()
        self.channels, self.cells, self.steps = list(channels), list(cells), list(steps)
        self.prior_scales = [1] * len(self.channels)
        self.starts = None if starts is None else list(starts)

    @classmethod
    def build(cls, blueprint: Blueprint) -> Neck:
        """The neck with fresh weights. Raises ConfigError for options or maps that do not fit."""
        raise NotImplementedError

    @classmethod
    def resolve(cls, blueprint: Blueprint) -> Mapping[str, Any]:
        """The options of the whole network, with what some of them stand for (a variant) filled in."""
        return blueprint.options

    @classmethod
    def asks(cls, options: Mapping[str, Any]) -> Collection[str]:  # noqa: ARG003 (for necks that do)
        """Names of maps that it takes by these resolved options, beside those that every backbone returns."""
        return ()

    def forward(self, features: dict[str, Tensor]) -> list[Tensor]:
        """Named maps (B, C, rows, columns) to one map a level, finest first."""
        raise NotImplementedError

    def initialise(self) -> None:
        """Draw fresh weights, by Caffe's Xavier rule unless the network has one of its own."""
        xavier(self)

    def fresh(self) -> Iterable[nn.Module]:
        """The modules that a trained SSD does not have; they learn at `--new-layers-lr`."""
        return self.children()

    def change_size(self, image_size: tuple[int, int]) -> None:
        """Prepare the same layers for maps of an input of (width, height) pixels, in place.

        For necks that keep sizes: cells and steps are set by the caller, and layers that read the sizes of
        their inputs need nothing.
        """

    def level_sources(self) -> list[tuple[str, ...]]:
        """For each level the names of the maps that it is made of, also of those that the neck appends.

        Empty for a neck that does not tell.
        """
        return []

    def merging(self) -> nn.Module:
        """The module that takes a dict of maps by name and merges them: the neck itself, or a part of it."""
        return self

    def shared_levels(self) -> Iterable[int]:
        """Indices of the levels that a trained SSD has too, as they are here.

        What their prediction modules have learned fits here as well.
        """
        return ()

    def fold(self) -> None:
        """Put fixed norms into convolutions, in place."""
        fold_sequences(self)


def even_steps(image_size: tuple[int, int], cells: Sequence[Cells]) -> list[tuple[float, float]]:
    """Cells spread evenly over the image, as FSSD's are: image size / map size."""
    width, height = image_size
    return [(width / columns, height / rows) for rows, columns in cells]

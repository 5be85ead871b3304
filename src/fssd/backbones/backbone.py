"""The contract of a backbone, and how to find the maps and stages of any module that is used as one."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from copy import deepcopy
from pathlib import Path
from typing import Any, ClassVar, NamedTuple

import torch
from torch import Tensor, nn

from fssd.errors import ConfigError
from fssd.layers.first_weights import xavier
from fssd.layers.shapes_alone import NEEDS_VALUES, ShapesAlone, without_memory


class MapShape(NamedTuple):
    """Of a feature map: width in channels, cells from top to bottom, cells from left to right."""

    channels: int
    rows: int
    columns: int

    @property
    def cells(self) -> tuple[int, int]:
        """(rows, columns)."""
        return self.rows, self.columns


class Backbone(nn.Module):
    """Images to a dict of feature maps by name, finest first. One file holds everything about a backbone.

    Configurations and checkpoints hold a name, or "package.module:Class", and options; without a `build` of
    its own, a class takes neither arguments nor options. Any module with such a `forward` can be used;
    everything else has a default.

    mean, std: RGB normalisation of images in 0..255. multiple: both sides of an input have to be a multiple.
    light: whether necks and heads are built from separable convolutions unless the model's name says
    otherwise. recipe: settings of a training that `TrainConfig` leaves open. may_lack: layers that a file of
    pretrained weights need not have; they keep their fresh weights. known_options: names that `build`
    understands. first_centre: pixels from the border of the image to the centre of what the first cell of
    every map sees, where all maps have the same. defaults: options that suit necks and heads on this
    backbone, for those that know them. more: names of maps that `forward` returns only if they are among
    `tapped`, see `tap`.
    """

    mean: ClassVar[tuple[float, float, float]] = (0.0, 0.0, 0.0)
    std: ClassVar[tuple[float, float, float]] = (1.0, 1.0, 1.0)
    multiple: ClassVar[int] = 1
    light: ClassVar[bool] = False
    recipe: ClassVar[Mapping[str, Any]] = {}
    may_lack: ClassVar[tuple[str, ...]] = ()
    more: ClassVar[tuple[str, ...]] = ()
    tapped: tuple[str, ...] = ()
    known_options: ClassVar[frozenset[str]] = frozenset()
    first_centre: ClassVar[float | None] = None
    defaults: ClassVar[Mapping[str, Any]] = {}

    @classmethod
    def build(cls, options: Mapping[str, Any]) -> Backbone:  # noqa: ARG003 (for backbones that have some)
        """The backbone with fresh weights. options: of the whole model. Raises ConfigError."""
        return cls()

    def forward(self, images: Tensor) -> dict[str, Tensor]:
        """(B, 3, H, W) float RGB, normalised, to maps (B, C, rows, columns), finest first."""
        raise NotImplementedError

    def shapes(self, width: int, height: int) -> dict[str, MapShape]:
        """The shape of each map of an input of so many pixels."""
        return probe_shapes(self, width, height)

    def tap(self, names: Collection[str]) -> None:
        """Also return those of the maps `more` that are named; the others are not kept, to save memory."""
        self.tapped = tuple(name for name in self.more if name in names)

    def stages(self) -> list[list[nn.Module]]:
        """The modules of each stage, first to last, for `--freeze`."""
        return []

    @classmethod
    def packaged_weights(cls) -> Path | None:
        """The file of pretrained weights that an installed package brings; None if there is none.

        Raises ConfigError, naming the package, if it is not installed.
        """
        return None

    def read(self, file: Path) -> Mapping[str, Tensor] | None:  # noqa: ARG002
        """The tensors, under the names of this module, of pretrained weights in a format of their own.

        None for any other file: that is read as safetensors or PyTorch's, and its tensors go to `adapt`.
        Raises CheckpointError.
        """
        return None

    def adapt(self, tensors: Mapping[str, Tensor]) -> Mapping[str, Tensor]:
        """The tensors of a file of pretrained weights under the names of this module."""
        return tensors

    def initialise(self) -> None:
        """Draw fresh weights, by Caffe's Xavier rule unless the network has one of its own."""
        xavier(self)

    def fold(self, std: Tensor) -> Tensor:
        """Put fixed norms, and the division by `std` (3, 1, 1), into convolutions, in place.

        Returns the standard deviation that is still to be divided by outside.
        """
        return std


def feature_shapes(backbone: nn.Module, width: int, height: int) -> dict[str, MapShape]:
    """The shape of each map that a backbone makes of an image of so many pixels.

    Raises ConfigError if the module does not return a dict of maps, finest first.
    """
    if isinstance(backbone, Backbone):
        return backbone.shapes(width, height)
    return probe_shapes(backbone, width, height)


def probe_shapes(backbone: nn.Module, width: int, height: int) -> dict[str, MapShape]:
    """`feature_shapes` found by running the module.

    On the meta device, which computes shapes alone, or where the module cannot do that, on a black image.
    """
    shape = (1, 3, height, width)
    with torch.no_grad():
        try:
            with ShapesAlone():
                features = without_memory(backbone).eval()(torch.zeros(shape, device="meta"))
        except NEEDS_VALUES:
            features = deepcopy(backbone).eval().cpu()(torch.zeros(shape, device="cpu"))
    if not isinstance(features, Mapping) or not features:
        raise ConfigError(
            f"a backbone returns a dict of feature maps by name, not a {type(features).__name__}"
        )
    for key, x in features.items():
        if not isinstance(x, Tensor) or x.ndim != 4:
            raise ConfigError(f"the backbone's map {key!r} is not a (B, C, rows, columns) tensor")
    shapes = {key: MapShape(*map(int, x.shape[1:])) for key, x in features.items()}
    sizes = [shape.cells for shape in shapes.values()]
    if sizes != sorted(sizes, reverse=True):
        raise ConfigError(f"a backbone lists its maps finest first; these have {sizes} rows and columns")
    return shapes


def backbone_stages(backbone: nn.Module) -> list[list[nn.Module]]:
    """The stages of any module that lists them; none for one that does not."""
    listed = getattr(type(backbone), "stages", None)
    return [] if listed is None else list(listed(backbone))

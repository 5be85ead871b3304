"""SSD: levels straight from the backbone and from appended layers (Liu et al. 2016)."""

from __future__ import annotations

from collections.abc import Iterable
from typing import TypeVar

from torch import Tensor, nn

from fssd.errors import ConfigError, nearest
from fssd.layers.blocks import Chain, L2Norm, LiteBlock
from fssd.necks.extras import make_extras, ssd_extras
from fssd.necks.neck import Blueprint, Neck, even_steps
from fssd.necks.pyramid import LIGHT_WIDTHS
from fssd.necks.residual_extras import residual_levels
from fssd.necks.windows import levels_from, nominal_steps, windows_below

AnySSD = TypeVar("AnySSD", bound="SSD")  # SSD, or a neck on top of it
EXTRAS = ("plain", "residual")


class SSD(Neck):
    """Levels from maps of the backbone and appended layers, conv4_3 scaled by L2Norm.

    taken: names of the maps to predict from, finest first. start: the map that `extras` reads.
    scale: normalisation of the first level.
    """

    known_options = frozenset({"extras"})
    taken: list[str]
    start: str
    extras: Chain
    scale: nn.Module

    @classmethod
    def build(cls: type[AnySSD], blueprint: Blueprint) -> AnySSD:
        """VGG16's own layers and convolutions below fc7, or a light backbone's maps and separable blocks.

        Option extras: "plain" is that; "residual" appends DSSD's residual blocks to the maps of a backbone of
        full width, see `residual_levels`.
        """
        extras = blueprint.options.get("extras", EXTRAS[0])
        if extras not in EXTRAS:
            raise ConfigError(f"there are no extras {extras!r}{nearest(str(extras), EXTRAS)}")
        if extras == "residual":
            return _residual(cls, blueprint)
        return _light(cls, blueprint) if blueprint.light else _vgg(cls, blueprint)

    def forward(self, features: dict[str, Tensor]) -> list[Tensor]:
        """See `Neck`."""
        features = features | self.extras(features[self.start])
        first, *rest = (features[name] for name in self.taken)
        return [self.scale(first), *rest]

    def fresh(self) -> Iterable[nn.Module]:
        """See `Neck`: nothing, this is an SSD."""
        return ()


def _vgg(cls: type[AnySSD], blueprint: Blueprint) -> AnySSD:
    """conv4_3 through L2Norm, fc7, and the appended conv6_2, conv7_2, ..."""
    shapes = blueprint.shapes
    if not {"conv4_3", "fc7"} <= set(shapes):
        raise ConfigError(
            f"{blueprint.model} predicts from VGG16's own layers; give a backbone to ssd300-lite instead"
        )
    rows = ssd_extras(shapes["fc7"].cells)
    predicted = [row for row in rows if row.name.endswith("_2")]
    channels = [shapes["conv4_3"].channels, shapes["fc7"].channels, *(row.outputs for row in predicted)]
    cells = [shapes["conv4_3"].cells, *levels_from(shapes["fc7"].cells)]
    neck = cls(channels, cells, nominal_steps(blueprint.image_size, cells))
    neck.taken, neck.start = ["conv4_3", "fc7", *(row.name for row in predicted)], "fc7"
    neck.extras, neck.scale = make_extras(rows), L2Norm(channels[0])
    return neck


def _residual(cls: type[AnySSD], blueprint: Blueprint) -> AnySSD:
    """SSD321 and SSD513 of DSSD: the backbone's maps as they are, then residual blocks below the last."""
    found = residual_levels(blueprint)
    neck = cls(found.channels, found.cells, found.steps, found.starts)
    neck.taken, neck.start = [*found.taken, *found.extras], found.taken[-1]
    neck.extras, neck.scale = found.extras, nn.Identity()
    return neck


def _light(cls: type[AnySSD], blueprint: Blueprint) -> AnySSD:
    """The backbone's maps as they are, then light blocks below them, with the steps of FSSD's light twin."""
    shapes, cells = blueprint.shapes, levels_from(blueprint.finest)
    taken = [name for name, shape in shapes.items() if shape.cells in cells]
    if [shapes[name].cells for name in taken] != cells[: len(taken)] or not taken:
        raise ConfigError(
            f"SSD needs maps of {cells[:3]} rows and columns; the backbone has"
            f" { ({name: shape.cells for name, shape in shapes.items()}) }"
        )
    channels = [shapes[name].channels for name in taken]
    blocks: dict[str, nn.Module] = {}
    for index, window in enumerate(windows_below(cells[len(taken) - 1]), start=len(taken)):
        blocks[f"ds_{2**index}"] = LiteBlock(channels[-1], LIGHT_WIDTHS[-1], *window)
        channels.append(LIGHT_WIDTHS[-1])
    neck = cls(channels, cells, even_steps(blueprint.image_size, cells))
    neck.taken, neck.start = [*taken, *blocks], taken[-1]
    neck.extras, neck.scale = Chain(blocks), nn.Identity()
    return neck

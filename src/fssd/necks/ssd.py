"""SSD: levels straight from the backbone and from appended layers (Liu et al. 2016)."""

from __future__ import annotations

from collections.abc import Iterable
from typing import TypeVar

from torch import Tensor, nn

from fssd.errors import ConfigError, nearest
from fssd.layers.blocks import Chain, LiteBlock
from fssd.layers.norms import L2Norm
from fssd.necks.extras import extras_below, make_extras, ssd_extras
from fssd.necks.neck import Blueprint, Cells, Neck, even_steps
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
        """VGG16's own layers and convolutions below fc7, or another backbone's maps and blocks below them.

        Option extras: "plain" is that; "residual" appends DSSD's residual blocks to the maps of a backbone of
        full width, see `residual_levels`.
        """
        extras = blueprint.options.get("extras", EXTRAS[0])
        if extras not in EXTRAS:
            raise ConfigError(f"there are no extras {extras!r}{nearest(str(extras), EXTRAS)}")
        if extras == "residual":
            return _residual(cls, blueprint)
        if not blueprint.light and {"conv4_3", "fc7"} <= set(blueprint.shapes):
            return _vgg(cls, blueprint)
        return _other(cls, blueprint)

    def forward(self, features: dict[str, Tensor]) -> list[Tensor]:
        """See `Neck`."""
        features = features | self.extras(features[self.start])
        first, *rest = (features[name] for name in self.taken)
        return [self.scale(first), *rest]

    def level_sources(self) -> list[tuple[str, ...]]:
        """See `Neck`: one map a level."""
        return [(name,) for name in self.taken]

    def fresh(self) -> Iterable[nn.Module]:
        """See `Neck`: nothing, this is an SSD."""
        return ()


def _vgg(cls: type[AnySSD], blueprint: Blueprint) -> AnySSD:
    """conv4_3 through L2Norm, fc7, and the appended conv6_2, conv7_2, ..."""
    shapes = blueprint.shapes
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


def _other(cls: type[AnySSD], blueprint: Blueprint) -> AnySSD:
    """The backbone's maps as they are, then SSD's convolutions, or light blocks, below the last.

    No scale on the first map: these backbones normalise. Steps are even, so that FSSD on the same backbone
    has the same priors.
    """
    shapes, taken = blueprint.shapes, own_levels(blueprint)
    last = shapes[taken[-1]]
    cells = [*(shapes[name].cells for name in taken), *levels_from(last.cells)[1:]]
    channels = [shapes[name].channels for name in taken]
    if blueprint.light:
        blocks: dict[str, nn.Module] = {}
        for index, window in enumerate(windows_below(last.cells), start=len(taken)):
            blocks[f"ds_{2**index}"] = LiteBlock(channels[-1], LIGHT_WIDTHS[-1], *window)
            channels.append(LIGHT_WIDTHS[-1])
        extras, predicted = Chain(blocks), list(blocks)
    else:
        rows = extras_below(last)
        extras, predicted = make_extras(rows), [row.name for row in rows if row.name.endswith("_2")]
        channels += [row.outputs for row in rows if row.name in predicted]
    neck = cls(channels, cells, even_steps(blueprint.image_size, cells))
    neck.taken, neck.start = [*taken, *predicted], taken[-1]
    neck.extras, neck.scale = extras, nn.Identity()
    return neck


def own_levels(blueprint: Blueprint) -> list[str]:
    """The maps of a backbone that are levels of SSD, finest first: of each size the last one.

    Their sizes may be a cell off those of `Blueprint.finest` and below (DenseNet rounds down). Raises
    ConfigError if there is none at its stride.
    """
    last_of: dict[Cells, str] = {}
    for name, shape in blueprint.shapes.items():
        if all(cells <= most for cells, most in zip(shape.cells, blueprint.finest, strict=True)):
            last_of[shape.cells] = name
    finest = max(last_of, default=(0, 0))
    if any(2 * cells <= most for cells, most in zip(finest, blueprint.finest, strict=True)):
        sizes = {name: shape.cells for name, shape in blueprint.shapes.items()}
        wanted = levels_from(blueprint.finest)[:3]
        raise ConfigError(f"SSD needs maps of {wanted} rows and columns; the backbone has {sizes}")
    return list(last_of.values())

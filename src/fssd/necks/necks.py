"""What lies between backbone and heads in each family, put together from a few numbers."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, NamedTuple

from torch import nn

from fssd.errors import ConfigError, nearest
from fssd.heads.multibox.priors import Level
from fssd.layers.blocks import Bottleneck, Chain, ConvReLU, L2Norm, LiteBlock, LiteBottleneck
from fssd.model.network import FusionNeck, SSDNeck
from fssd.necks.extras import FSSD_EXTRAS, PORT_EXTRAS, SSD_EXTRAS, make_extras
from fssd.necks.fusion import Fusion, Source
from fssd.necks.pyramid import LITE_PYRAMID, PYRAMIDS, Block, Pyramid

VGG_SOURCES = ("conv4_3", "fc7", "conv7_2")
LITE_WIDTH = 96  # channels of each transformed source; keeps the fusion under a tenth of the backbone's work
FRACTION = 0.999  # running statistics of the released network
PORT_FRACTION = 0.9  # and of the PyTorch port, which leaves PyTorch's default
LITE_FRACTION = 0.97  # those of short trainings; the paper's 0.999 needs tens of thousands of steps

Shapes = Mapping[str, tuple[int, int]]
Neck = tuple[nn.Module, list[int]]  # and the width of each level


class Plan(NamedTuple):
    """What a neck is built from.

    image_size: pixels. own_backbone: whether the backbone is the model's own, not the user's.
    shapes: (channels, cells a side) of each map of the backbone. levels: the pyramid's.
    options: the user's, and those that a variant stands for.
    """

    image_size: int
    own_backbone: bool
    shapes: Shapes
    levels: tuple[Level, ...]
    options: Mapping[str, Any]


def ssd_vgg(plan: Plan) -> Neck:
    """SSD on VGG16: conv4_3 through L2Norm, fc7, and the appended conv6_2 ... (Liu et al. 2016)."""
    shapes = plan.shapes
    rows = SSD_EXTRAS[plan.image_size]
    predicted = [row for row in rows if row.name.endswith("_2")]
    taken = ["conv4_3", "fc7", *(row.name for row in predicted)]
    channels = [shapes["conv4_3"][0], shapes["fc7"][0], *(row.outputs for row in predicted)]
    return SSDNeck(taken, "fc7", make_extras(rows), L2Norm(channels[0])), channels


def ssd_lite(plan: Plan) -> Neck:
    """SSD-lite: the backbone's maps as they are, then light blocks below them."""
    shapes, levels = plan.shapes, plan.levels
    taken = [name for name, (_, size) in shapes.items() if size in {level.size for level in levels}]
    sizes = [shapes[name][1] for name in taken]
    if sizes != [level.size for level in levels[: len(taken)]] or not taken:
        raise ConfigError(
            f"SSD needs maps of {[level.size for level in levels[:3]]} cells; the backbone has {dict(shapes)}"
        )
    rows = LITE_PYRAMID[len(taken) :]
    channels = [shapes[name][0] for name in taken]
    blocks: dict[str, nn.Module] = {}
    for row in rows:
        blocks[row.name] = LiteBlock(
            channels[-1] if not blocks else row.outputs, row.outputs, row.kernel, row.stride, row.padding
        )
        channels.append(row.outputs)
    return SSDNeck([*taken, *blocks], taken[-1], Chain(blocks), nn.Identity()), channels


def fssd_vgg(plan: Plan) -> Neck:
    """The paper's neck: conv4_3, fc7 and conv7_2 fused at 38 x 38 (64 x 64), and six (seven) levels."""
    shapes, levels, options = plan.shapes, plan.levels, plan.options
    own = plan.own_backbone
    names = tuple(options.get("sources", VGG_SOURCES if own else tuple(shapes)))
    needs_extras = own and "conv7_2" in names
    ported = options.get("variant") == "pytorchssd"
    rows = PORT_EXTRAS if ported else FSSD_EXTRAS
    if needs_extras:
        last = -(-(shapes["fc7"][1] - (2 if ported else 0)) // 2)
        shapes = dict(shapes) | {"conv7_2": (rows[-1].outputs, last)}
    # The released network takes conv3_3 and conv7_2, which have 256 channels already, as they are.
    as_is = {"conv3_3", "conv7_2"} if own and not options.get("reduce_all", False) else set()
    sources = _sources(names, shapes, as_is, levels[0].size)
    fusion = Fusion(
        sources,
        256,
        levels[0].size,
        options.get("merge", "concat"),
        options.get("norm", "batch"),
        PORT_FRACTION if ported else FRACTION,
        options.get("align_corners", True),
    )
    form = options.get("pyramid", "after")
    block: Block = Bottleneck if form == "bottleneck" else ConvReLU
    pyramid = Pyramid(fusion.channels, PYRAMIDS[plan.image_size], block, form == "with-fused")
    extras = make_extras(rows) if needs_extras else None
    return FusionNeck("fc7", extras, fusion, pyramid), pyramid.channels


def fssd_lite(plan: Plan) -> Neck:
    """The same fusion at light width, with light blocks for the pyramid."""
    shapes, levels, options = plan.shapes, plan.levels, plan.options
    names = tuple(options.get("sources", tuple(shapes)))
    sources = _sources(names, shapes, set(), levels[0].size)
    fusion = Fusion(
        sources,
        LITE_WIDTH,
        levels[0].size,
        options.get("merge", "concat"),
        options.get("norm", "batch"),
        LITE_FRACTION,
        options.get("align_corners", True),
    )
    form = options.get("pyramid", "after")
    block: Block = LiteBottleneck if form == "bottleneck" else LiteBlock
    pyramid = Pyramid(fusion.channels, LITE_PYRAMID, block, form == "with-fused")
    return FusionNeck("", None, fusion, pyramid), pyramid.channels


def _sources(names: tuple[str, ...], shapes: Shapes, as_is: set[str], size: int) -> tuple[Source, ...]:
    known = list(shapes)
    if not names:
        raise ConfigError(f"fusion needs at least one source; known: {', '.join(known)}")
    for name in names:
        if name not in shapes:
            raise ConfigError(f"there is no feature map {name!r} to fuse{nearest(name, known)}")
        if shapes[name][1] > 2 * size:
            raise ConfigError(
                f"the map {name!r} has {shapes[name][1]} cells a side, over twice the fused map's {size};"
                " fuse maps of stride 4 or more"
            )
    return tuple(Source(name, shapes[name][0], name not in as_is) for name in names)

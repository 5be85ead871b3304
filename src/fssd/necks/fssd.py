"""FSSD: extra layers, fusion, pyramid (paper 3.1, Fig. 2 b)."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping
from typing import Any

from torch import Tensor, nn

from fssd.backbones.backbone import MapShape
from fssd.errors import ConfigError, nearest
from fssd.layers.blocks import Bottleneck, Chain, ConvReLU, LiteBlock, LiteBottleneck
from fssd.layers.folding import fold_sequences
from fssd.necks.extras import fssd_extras, make_extras
from fssd.necks.fusion import Fusion
from fssd.necks.fusion_forms import (
    FORMS,
    LIGHT_WIDTH,
    OPTIONS,
    check_fusion,
    fused_cells,
    make_fusion,
    with_form,
)
from fssd.necks.neck import FINEST_STRIDE, Blueprint, Neck, cells_at, even_steps
from fssd.necks.pyramid import LIGHT_WIDTHS, WIDTHS, Block, Pyramid, pyramid_rows
from fssd.necks.windows import HALVE, SAME, VALID, levels_from, nominal_steps

VGG_SOURCES = ("conv4_3", "fc7", "conv7_2")
FRACTION = 0.999  # of the running statistics kept at each step, in the released network
PORT_FRACTION = 0.9  # the same in the PyTorch port, which leaves PyTorch's default
LIGHT_FRACTION = 0.97  # the same for short trainings; the paper's 0.999 needs tens of thousands of steps

PYRAMID_FORMS = ("after", "with-fused", "bottleneck")  # Fig. 3 (b), (a), (c)
NARROW = "narrow"
VARIANTS = ("released", "pytorchssd", *FORMS, NARROW)
LIGHT_REDUCED = 64  # channels after the 1x1 of each other source of the light form
LARGEST_AS_IS = 256  # channels of a map that the light form takes without a 1x1; the width of the paper's
# The light form of 0.1: a 1x1 before every map, and a pyramid of its own width after the fused map.
NARROW_OPTIONS = {"as_is": (), "pyramid": "after", "width": LIGHT_WIDTH}
FINER = "stride4"  # a backbone's map of twice the rows and columns of the first level, where it has one
PORT_RATIOS: dict[tuple[int, int], tuple[tuple[float, ...], ...]] = {
    (300, 300): ((2, 3), (2, 3), (2, 3), (2, 3), (2,), (2,)),
    (512, 512): ((2, 3), (2, 3), (2, 3), (2, 3), (2, 3), (2,), (2,)),
}
# Differences of the authors' PyTorch port, lzx1413/PytorchSSD, that options can express. The others (SSD's
# prior steps, a conv6_2 without padding) have no option and come only with the variant.
PORT_OPTIONS = {"reduce_all": True, "norm": "batch-affine", "truncate": False, "clip": "all"}
OF_TABLE = ("ratios", "truncate", "clip")  # options of a table of priors


class FSSD(Neck):
    """Fuses maps of the backbone once and makes every level from the fused map.

    start: the map that `extras` reads. extras: None where no source needs appended layers. stride: pixels of
    the input to a cell of the fused map.
    """

    known_options = OPTIONS | {"pyramid", "variant"}
    start: str
    extras: Chain | None
    fusion: Fusion
    pyramid: Pyramid
    image_size: tuple[int, int]
    stride: int

    @classmethod
    def resolve(cls, blueprint: Blueprint) -> Mapping[str, Any]:
        """See `Neck`."""
        options = dict(blueprint.options)
        released_512 = blueprint.image_size == (512, 512) and not blueprint.light
        variant = options.get("variant")
        if variant == "pytorchssd":
            if blueprint.image_size not in PORT_RATIOS:
                raise ConfigError(
                    "the variant 'pytorchssd' has 300 or 512 px; leave out --size or the variant"
                )
            form = {**PORT_OPTIONS, "ratios": PORT_RATIOS[blueprint.image_size]}
            if isinstance(options.get("priors"), Mapping):  # fitted ones have no table
                form = {key: value for key, value in form.items() if key not in OF_TABLE}
            return {**form, **options}
        if isinstance(variant, str) and variant in FORMS:
            options = with_form(FORMS[variant], options)
        if blueprint.light:
            form = NARROW_OPTIONS if variant == NARROW else _light(blueprint)
            void = {"width", "as_is"} if options.get("transform", "1x1") != "1x1" else set()
            options = {key: value for key, value in form.items() if key not in void} | options
        if released_512 and options.get("priors") == "coco":
            options["priors"] = "voc"  # the released FSSD512-COCO has 35.84 / 76.8 px at its first level
        return options

    @classmethod
    def asks(cls, options: Mapping[str, Any]) -> Collection[str]:
        """See `Neck`: the sources."""
        sources = options.get("sources", ())
        return sources if isinstance(sources, (list, tuple)) else ()

    @classmethod
    def build(cls, blueprint: Blueprint) -> FSSD:
        """The paper's neck, or the same at light width with light blocks."""
        _check(blueprint)
        options, light = blueprint.options, blueprint.light
        ported = options.get("variant") == "pytorchssd"
        of_vgg = not light and {"conv4_3", "fc7"} <= set(blueprint.shapes)
        names = tuple(options.get("sources", VGG_SOURCES if of_vgg else tuple(blueprint.shapes)))
        shapes, extras = _with_extras(blueprint, names, of_vgg, ported)
        # The released network takes conv3_3 and conv7_2, which have 256 channels already, as they are.
        as_is = {"conv3_3", "conv7_2"} if of_vgg and not options.get("reduce_all", False) else set()
        as_is |= _as_is(options, names)
        fraction = LIGHT_FRACTION if light else PORT_FRACTION if ported else FRACTION
        fusion = make_fusion(blueprint, names, shapes, as_is, fraction)
        pyramid = _pyramid(blueprint, fusion.channels)
        cells = levels_from(blueprint.finest)
        steps = (nominal_steps if ported else even_steps)(blueprint.image_size, cells)
        neck = cls(pyramid.channels, cells, steps)
        neck.start, neck.extras, neck.fusion, neck.pyramid = "fc7", extras, fusion, pyramid
        neck.image_size = blueprint.image_size
        neck.stride = options.get("fused_stride", FINEST_STRIDE)
        return neck

    def forward(self, features: dict[str, Tensor]) -> list[Tensor]:
        """See `Neck`."""
        if self.extras is not None:
            features = features | self.extras(features[self.start])
        fused = self.fusion(features)
        return self.pyramid(fused)  # type: ignore[no-any-return]

    def level_sources(self) -> list[tuple[str, ...]]:
        """See `Neck`: every level is made of the fused map."""
        return [tuple(self.fusion.names) for _ in self.channels]

    def merging(self) -> nn.Module:
        """See `Neck`: the fusion, which reads the appended conv7_2 too."""
        return self.fusion

    def fresh(self) -> Iterable[nn.Module]:
        """See `Neck`. At 300 px conv7_2 counts as new too, as in the released training from an SSD."""
        yield from (self.fusion, self.pyramid)
        if self.extras is not None and self.image_size == (300, 300):
            yield self.extras["conv7_2"]

    def change_size(self, image_size: tuple[int, int]) -> None:
        """See `Neck`: the sources are fused at the finest size, or twice that."""
        self.fusion.size = cells_at(self.stride, image_size)

    def fold(self) -> None:
        """See `Neck`."""
        fold_sequences(self)
        self.fusion.fold()


def _check(blueprint: Blueprint) -> None:
    """Raise ConfigError for an option that no FSSD takes."""
    options = blueprint.options
    form, variant = options.get("pyramid", "after"), options.get("variant", "released")
    if form not in PYRAMID_FORMS:
        raise ConfigError(f"there is no pyramid {form!r}{nearest(str(form), PYRAMID_FORMS)}")
    if variant not in VARIANTS:
        raise ConfigError(f"there is no variant {variant!r}{nearest(str(variant), VARIANTS)}")
    if variant == NARROW and not blueprint.light:
        raise ConfigError(f"the variant {NARROW!r} is of light networks; use fssd300-lite, or light=true")
    if variant not in ("released", NARROW) and (blueprint.light or "fc7" not in blueprint.shapes):
        raise ConfigError(
            f"the variant {variant!r} is one of VGG16's own layers; use fssd300-vgg16 without backbone="
        )
    check_fusion(blueprint)


def _as_is(options: Mapping[str, Any], names: tuple[str, ...]) -> set[str]:
    """The sources that the user takes without a 1x1. Raises ConfigError for one that is none."""
    asked = tuple(options.get("as_is", ()))
    for name in asked:
        if name not in names:
            raise ConfigError(f"as_is names {name!r}, which is not fused{nearest(name, names)}")
    return set(asked)


def _light(blueprint: Blueprint) -> dict[str, Any]:
    """What the light form is where the user does not say otherwise.

    The first level is the fused map itself, and the source of its size goes in as it is: pretrained features
    reach the predictors of small objects through no layer that starts from random weights, as in SSD. A map
    of half the stride is fused too where the backbone has one. The blocks below are as wide as the fused map,
    so that they start as averages of it.
    """
    options, shapes = blueprint.options, blueprint.shapes
    found: dict[str, Any] = {"width": LIGHT_REDUCED}
    if options.get("fused_stride", FINEST_STRIDE) == FINEST_STRIDE:
        found["pyramid"] = "with-fused"
    if "sources" not in options and FINER in blueprint.more:
        found["sources"] = (FINER, *shapes)
    sources = options.get("sources", tuple(shapes))
    if options.get("reduce_all") or "as_is" in options or not isinstance(sources, (list, tuple)):
        return found
    for name in sources:
        shape = shapes.get(name) if isinstance(name, str) else None
        if shape is None or shape.cells != blueprint.finest or shape.channels > LARGEST_AS_IS:
            continue
        if options.get("merge") != "sum":
            return {**found, "as_is": (name,)}
        # A sum needs sources of one width: that of the map, unless the user wants another or it is narrow.
        if options.get("width", shape.channels) == shape.channels >= LIGHT_REDUCED:
            return {**found, "as_is": (name,), "width": shape.channels}
    return found


def _with_extras(
    blueprint: Blueprint, names: tuple[str, ...], of_vgg: bool, ported: bool
) -> tuple[Mapping[str, MapShape], Chain | None]:
    """The maps to choose sources from, and the appended layers if conv7_2 is a source, else None."""
    if not of_vgg or "conv7_2" not in names:
        return blueprint.shapes, None
    rows = fssd_extras(padded=not ported)
    cells = HALVE.shrink((VALID if ported else SAME).shrink(blueprint.shapes["fc7"].cells))
    return {**blueprint.shapes, "conv7_2": MapShape(rows[-1].outputs, *cells)}, make_extras(rows)


def _pyramid(blueprint: Blueprint, inputs: int) -> Pyramid:
    form = blueprint.options.get("pyramid", "after")
    if blueprint.light:
        block: Block = LiteBottleneck if form == "bottleneck" else LiteBlock
    else:
        block = Bottleneck if form == "bottleneck" else ConvReLU
    halved = fused_cells(blueprint) != blueprint.finest
    widths: tuple[int, ...] = WIDTHS
    if blueprint.light:  # as wide as the fused map, so that the blocks' shortcuts need no 1x1
        widths = LIGHT_WIDTHS if blueprint.options.get("variant") == NARROW else (inputs,)
    rows = pyramid_rows(blueprint.finest, widths, halved)
    return Pyramid(inputs, rows, block, form == "with-fused")

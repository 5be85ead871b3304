"""`build_model`: from a name and a few options to a network."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from numbers import Integral
from typing import Any

from torch import nn

from fssd.backbones import BACKBONES
from fssd.backbones.backbone import Backbone, feature_shapes
from fssd.config.bounds import finite_numbers
from fssd.data.geometry import make_geometry
from fssd.errors import ConfigError, nearest
from fssd.heads.head import Head, HeadBlueprint
from fssd.layers.norms import CaffeBatchNorm
from fssd.model.designs import Design, backbone_class, find_design, head_class, neck_class
from fssd.model.network import Network, Spec
from fssd.necks.neck import Blueprint

COMMON_OPTIONS = {"size", "geometry", "backbone", "neck", "head", "light", "mean", "std", "norm_fraction"}


def build_model(name: str, num_classes: int, **options: Any) -> Network:
    """A network with fresh weights, in training mode.

    name: one of `DESIGNS`, or another of the same form, such as fssd416-lite: a neck, a side in pixels, a
    backbone; or one of `SYSTEMS` and a side: yolov2-416. num_classes: without background. Options of all:
        size: side of the input in pixels, or [width, height], 128 to 1,024. geometry: "warp" stretches images
        to the input, "letterbox" keeps their aspect ratio (the default of YOLOv2).
        backbone, neck, head: a name, or "package.module:Class", instead of the model's own. backbone may also
        be a module that maps normalised images (B, 3, H, W) to a dict of feature maps, finest first; it keeps
        its weights. mean, std: RGB normalisation (else the backbone's, else 0 and 1).
        light: whether neck and heads are separable and narrow, instead of what the name's backbone has.
        norm_fraction: how much of their running statistics Caffe's batch norms keep at each step. The papers'
        0.999 needs thousands of updates; 0.97 suits short trainings.
    Options of the multibox head, such as priors, ratios, loc_loss, conf_loss: see `MultiboxHead.build`.
    Options of FSSD (paper, Tables 1 and 2):
        sources: names of the maps to fuse; VGG16 has conv3_3, conv4_3, fc7, conv7_2.
        merge: "concat" or "sum". norm: "batch", "batch-affine" or "none".
        pyramid: "after" (Fig. 3 b), "with-fused" (a) or "bottleneck" (c).
        reduce_all: a 1x1 on every source, conv7_2 and conv3_3 too, as in the paper's text and unlike the
        released network. as_is: sources without one, instead of the light form's or besides VGG16's.
        align_corners: resize as Caffe does (True), or as PyTorch does by default (False).
        variant: "released", the Caffe network, or for VGG16 "pytorchssd", the authors' PyTorch port, whose
        weights fit no other: conv6_2 without padding (conv7_2 9 x 9, or 15 x 15), reduce_all, norm
        "batch-affine", SSD's prior steps and sizes, 6-6-6-6(-6)-4-4 priors a cell, clip "all", no truncation.
        "narrow": the light form of version 0.1. Options that are also given override those of the variant.
        Forms of fusion and the variants "parsenet", "hypernet", "ion": see `fssd.necks.fusion_forms`.
    Options of the other necks and heads: see their `build`, such as `FPN.build` and `YOLOv2Head.build`.

    Raises ConfigError for an unknown name, option or value, or choices that do not fit together.
    """
    _check_classes(num_classes)
    design = find_design(name, options)
    module = options.get("backbone")
    filled = _with_defaults(name, design, options)
    geometry = make_geometry(filled.get("geometry", "warp"), design.size)
    backbone = module if isinstance(module, nn.Module) else _fresh_backbone(design, filled)
    _check_multiple(backbone, design)
    neck, heads = _neck_and_head(name, design, backbone, num_classes, filled)
    mean, std = (
        _three(key, filled.get(key), backbone, default) for key, default in (("mean", 0), ("std", 1))
    )
    plain = {key: value for key, value in options.items() if not isinstance(value, nn.Module)}
    network = Network(
        backbone, neck, heads, geometry, mean, std, Spec(name, num_classes, plain, backbone is module)
    )
    if "norm_fraction" in options:
        _set_fraction(network, options["norm_fraction"])
    return network


def _check_classes(count: Any) -> None:
    if isinstance(count, bool) or not isinstance(count, Integral) or int(count) < 1:
        raise ConfigError(f"a model needs at least one class, not {count!r}; background is added by itself")


def _with_defaults(name: str, design: Design, options: Mapping[str, Any]) -> Mapping[str, Any]:
    """The options over the defaults of backbone and design. Raises ConfigError for an unknown one.

    A backbone that is given as a module takes no options and has no defaults.
    """
    known = COMMON_OPTIONS | neck_class(design.neck).known_options | head_class(design.head).known_options
    defaults, module = design.options, options.get("backbone")
    if not isinstance(module, nn.Module):
        backbone = backbone_class(design.backbone)
        known |= backbone.known_options
        defaults = {**backbone.defaults, **defaults}
    for key in options:
        if key not in known:
            raise ConfigError(f"{name} has no option {key!r}{nearest(key, sorted(known))}")
    return {**{key: value for key, value in defaults.items() if key in known}, **options}


def _neck_and_head(
    name: str, design: Design, backbone: nn.Module, num_classes: int, options: Mapping[str, Any]
) -> tuple[Any, Head]:
    if isinstance(backbone, Backbone):
        backbone.tap(())  # a module may come from another network
    shapes = feature_shapes(backbone, *design.size)
    first_centre = getattr(backbone, "first_centre", None)
    more = backbone.more if isinstance(backbone, Backbone) else ()
    blueprint = Blueprint(name, design.size, shapes, design.light, dict(options), first_centre, more)
    neck_type = neck_class(design.neck)
    resolved = neck_type.resolve(blueprint)
    if isinstance(backbone, Backbone) and more:
        backbone.tap(neck_type.asks(resolved))
        blueprint = blueprint._replace(shapes=feature_shapes(backbone, *design.size))
    neck = neck_type.build(blueprint._replace(options=resolved))
    heads = head_class(design.head).build(
        HeadBlueprint(
            name,
            design.size,
            neck.channels,
            neck.cells,
            neck.steps,
            neck.prior_scales,
            num_classes,
            design.light,
            {"priors": design.priors, **resolved},
            neck.starts,
        )
    )
    neck.initialise()
    heads.initialise()
    return neck, heads


def _fresh_backbone(design: Design, options: Mapping[str, Any]) -> Backbone:
    backbone = backbone_class(design.backbone).build(options)
    if design.backbone in BACKBONES:  # others keep the weights that they come with
        backbone.initialise()
    return backbone


def _set_fraction(network: Network, fraction: Any) -> None:
    if not isinstance(fraction, (int, float)) or isinstance(fraction, bool) or not 0 < fraction < 1:
        raise ConfigError(f"norm_fraction is {fraction!r}; it is a number above 0 and below 1")
    norms = [module for module in network.modules() if isinstance(module, CaffeBatchNorm)]
    if not norms:
        raise ConfigError(f"{network.spec.name} has no batch norm of Caffe's kind; leave out norm_fraction")
    for norm in norms:
        norm.fraction = float(fraction)


def _check_multiple(backbone: nn.Module, design: Design) -> None:
    multiple = int(getattr(backbone, "multiple", 1))
    for side in design.size:
        if side % multiple:
            near = max(1, round(side / multiple)) * multiple
            raise ConfigError(
                f"size has a side of {side} px; {design.backbone} needs multiples of {multiple}: {near}"
            )


def _three(name: str, given: Any, backbone: nn.Module, default: float) -> tuple[float, ...]:
    values: Sequence[float] = getattr(backbone, name, (default,) * 3) if given is None else given
    try:
        numbers = finite_numbers(values)
    except (TypeError, ValueError) as error:
        wants = "three finite numbers, for red, green and blue"
        raise ConfigError(f"{name} is {values!r}; it takes {wants}") from error
    if len(numbers) != 3:
        raise ConfigError(f"{name} has {len(numbers)} numbers; it takes three, for red, green and blue")
    if name == "std" and min(numbers) <= 0:
        raise ConfigError(f"std is {values!r}; its numbers must be above 0")
    return numbers

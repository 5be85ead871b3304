"""`build_model`: from a name and a few options to a network. The one place that knows all families."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from copy import deepcopy
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from fssd.backbones.efficientnet_lite import EfficientNetLite0
from fssd.backbones.vgg import VGG16Reduced
from fssd.errors import ConfigError, nearest
from fssd.heads.multibox.head import Heads, Predictor, conv_predictor
from fssd.heads.multibox.priors import PORT_RATIOS, Level, make_levels
from fssd.layers.blocks import SeparablePredictor, xavier
from fssd.model.network import Network, Spec
from fssd.necks.necks import Neck, Plan, fssd_lite, fssd_vgg, ssd_lite, ssd_vgg

PYRAMID_FORMS = ("after", "with-fused", "bottleneck")  # Fig. 3 (b), (a), (c)


@dataclass(frozen=True)
class Design:
    """What a model name stands for."""

    family: str  # "ssd" or "fssd"
    image_size: int  # pixels
    backbone: str  # "vgg16" or "lite"
    priors: str  # default prior table


DESIGNS = {
    "ssd300-vgg16": Design("ssd", 300, "vgg16", "voc"),
    "ssd512-vgg16": Design("ssd", 512, "vgg16", "voc"),
    "fssd300-vgg16": Design("fssd", 300, "vgg16", "voc"),
    "fssd512-vgg16": Design("fssd", 512, "vgg16", "voc"),
    # The lite models are for people's own data, where small objects abound: the table that starts at 21 px.
    "ssd300-lite": Design("ssd", 300, "lite", "coco"),
    "fssd300-lite": Design("fssd", 300, "lite", "coco"),
}

NECKS: dict[tuple[str, str], tuple[Callable[[Plan], Neck], Predictor]] = {
    ("ssd", "vgg16"): (ssd_vgg, conv_predictor),
    ("ssd", "lite"): (ssd_lite, SeparablePredictor),
    ("fssd", "vgg16"): (fssd_vgg, conv_predictor),
    ("fssd", "lite"): (fssd_lite, SeparablePredictor),
}

COMMON_OPTIONS = {"priors", "ratios", "truncate", "clip", "backbone", "mean", "std"}
FUSION_OPTIONS = {"sources", "merge", "norm", "pyramid", "reduce_all", "align_corners", "variant"}

VARIANTS = ("released", "pytorchssd")
# What the authors' own PyTorch port, lzx1413/PytorchSSD, does otherwise and an option can say. The rest,
# SSD's steps and sizes of priors and a conv6_2 without padding, goes with the variant alone.
PORT_OPTIONS = {"reduce_all": True, "norm": "batch-affine", "truncate": False, "clip": "all"}


def build_model(name: str, num_classes: int, **options: Any) -> Network:
    """A network with fresh weights (Caffe's Xavier rule), in training mode.

    name: one of `DESIGNS`. num_classes: without background. Options of every model:
        priors: "voc" or "coco" table of prior sizes. ratios: aspect ratios per level instead of the
        standard ones. truncate: whole-pixel prior sizes as in Caffe (True). clip: "none", "sides" (no
        prior longer than the image) or "all" (nor centred beyond it), see `make_levels`.
        backbone: a module that maps normalised images (B, 3, S, S) to a dict of feature maps, finest
        first, instead of the model's own; it keeps its weights. mean, std: RGB normalisation for it
        (else its attributes of these names, else 0 and 1).
    Options of FSSD (paper, Tables 1 and 2):
        sources: names of the maps to fuse; VGG16 has conv3_3, conv4_3, fc7, conv7_2.
        merge: "concat" or "sum". norm: "batch", "batch-affine" or "none".
        pyramid: "after" (Fig. 3 b), "with-fused" (a) or "bottleneck" (c).
        reduce_all: a 1x1 on every source, conv7_2 and conv3_3 too, as the paper's text has it; the
        released network takes those two as they are.
        align_corners: resize as Caffe does (True), or as PyTorch does by default (False).
        variant: "released", the Caffe network, or for VGG16 "pytorchssd", the authors' PyTorch port, whose
        weights fit no other: conv6_2 without padding (conv7_2 9 x 9, or 15 x 15), reduce_all, norm
        "batch-affine", SSD's prior steps and sizes, 6-6-6-6(-6)-4-4 priors a cell, clip "all", no truncation.
        Other options given beside it go before it.

    Raises ConfigError for an unknown name, option or value, or choices that do not fit together.
    """
    design = _design(name, options)
    if num_classes < 1:
        raise ConfigError(
            f"a model needs at least one class, not {num_classes}; background is added by itself"
        )
    chosen = _resolve(design, options)
    levels = _levels(design, chosen)
    own = options.get("backbone")
    backbone = own if own is not None else _backbone(design)
    shapes = feature_shapes(backbone, design.image_size)
    build_neck, predictor = NECKS[design.family, design.backbone]
    neck, channels = build_neck(Plan(design.image_size, own is None, shapes, levels, chosen))
    heads = Heads(channels, [level.anchors for level in levels], num_classes + 1, predictor)
    xavier(neck)
    xavier(heads)
    mean = _three("mean", options.get("mean", getattr(backbone, "mean", (0.0, 0.0, 0.0))))
    std = _three("std", options.get("std", getattr(backbone, "std", (1.0, 1.0, 1.0))))
    plain = {key: value for key, value in options.items() if key != "backbone"}
    spec = Spec(name, num_classes, plain, own is not None)
    return Network(backbone, neck, heads, levels, design.image_size, mean, std, spec)


def model_levels(name: str, **options: Any) -> tuple[int, tuple[Level, ...]]:
    """The side of a model's input in pixels, and the table that its priors follow from (see `make_priors`).

    name, options and errors are those of `build_model`, but nothing is built.
    """
    design = _design(name, options)
    return design.image_size, _levels(design, _resolve(design, options))


def feature_shapes(backbone: nn.Module, image_size: int) -> dict[str, tuple[int, int]]:
    """(channels, cells a side) of each map that a backbone makes of an image.

    Found by a pass on the meta device, which computes shapes alone, or where a module cannot do that, by a
    pass on a black image. Raises ConfigError if the module does not return a dict of square maps, finest
    first.
    """
    if isinstance(backbone, EfficientNetLite0):
        return backbone.shapes(image_size)
    shape = (1, 3, image_size, image_size)
    probe = deepcopy(backbone).eval()
    with torch.no_grad():
        try:
            features = deepcopy(probe).to("meta")(torch.zeros(shape, device="meta"))
        except (RuntimeError, NotImplementedError):  # it makes tensors of its own, or looks at values
            features = probe.cpu()(torch.zeros(shape, device="cpu"))
    if not isinstance(features, Mapping) or not features:
        raise ConfigError(
            f"a backbone returns a dict of feature maps by name, not a {type(features).__name__}"
        )
    for key, x in features.items():
        if not isinstance(x, Tensor) or x.ndim != 4 or x.shape[-1] != x.shape[-2]:
            raise ConfigError(f"the backbone's map {key!r} is not a (B, C, N, N) tensor")
    shapes = {key: (int(x.shape[1]), int(x.shape[-1])) for key, x in features.items()}
    sizes = [size for _, size in shapes.values()]
    if sizes != sorted(sizes, reverse=True):
        raise ConfigError(f"a backbone lists its maps finest first; these have {sizes} cells a side")
    return shapes


def _design(name: str, options: Mapping[str, Any]) -> Design:
    """The design of a name that its options fit. Raises ConfigError."""
    design = DESIGNS.get(name)
    if design is None:
        raise ConfigError(f"there is no model {name!r}{nearest(name, DESIGNS)}")
    _check_options(name, design, options)
    return design


def _check_options(name: str, design: Design, options: Mapping[str, Any]) -> None:
    known = COMMON_OPTIONS | (FUSION_OPTIONS if design.family == "fssd" else set())
    for key in options:
        if key not in known:
            raise ConfigError(f"{name} has no option {key!r}{nearest(key, sorted(known))}")
    form = options.get("pyramid", "after")
    if form not in PYRAMID_FORMS:
        raise ConfigError(f"there is no pyramid {form!r}{nearest(str(form), PYRAMID_FORMS)}")
    if design.family == "ssd" and design.backbone == "vgg16" and options.get("backbone") is not None:
        raise ConfigError(f"{name} predicts from VGG16's own layers; pass a backbone to ssd300-lite instead")

    for key in ("align_corners", "reduce_all", "truncate"):
        if not isinstance(options.get(key, True), bool):
            raise ConfigError(f"{key} is {options[key]!r}; it is true or false")
    if isinstance(options.get("sources"), str):
        raise ConfigError(f"sources is the text {options['sources']!r}; it is a list such as [conv4_3, fc7]")
    variant = options.get("variant", "released")
    if variant not in VARIANTS:
        raise ConfigError(f"there is no variant {variant!r}{nearest(str(variant), VARIANTS)}")
    own_vgg = design.backbone == "vgg16" and options.get("backbone") is None
    if variant != "released" and not own_vgg:
        raise ConfigError(
            f"the variant {variant!r} is one of VGG16's own layers; use fssd300-vgg16 without backbone="
        )


def _resolve(design: Design, options: Mapping[str, Any]) -> dict[str, Any]:
    """The user's options and, behind them, those that their variant stands for."""
    if options.get("variant") != "pytorchssd":
        return dict(options)
    return {**PORT_OPTIONS, "ratios": PORT_RATIOS[design.image_size], **options}


def _levels(design: Design, options: Mapping[str, Any]) -> tuple[Level, ...]:
    # The lite twins share FSSD's steps, so that only the neck differs between them.
    family = "fssd" if design.backbone == "lite" else design.family
    return make_levels(
        "ssd" if options.get("variant") == "pytorchssd" else family,
        design.image_size,
        options.get("priors", design.priors),
        ratios=_ratios(options.get("ratios")),
        truncate=options.get("truncate", True),
        clip=options.get("clip", "none"),
    )


def _three(name: str, values: Sequence[float]) -> tuple[float, ...]:
    numbers = tuple(float(value) for value in values)
    if len(numbers) != 3:
        raise ConfigError(f"{name} has {len(numbers)} numbers; it takes three, for red, green and blue")
    return numbers


def _ratios(rows: Sequence[Sequence[float]] | None) -> tuple[tuple[float, ...], ...] | None:
    if rows is None:
        return None
    ratios = tuple(tuple(float(ratio) for ratio in row) for row in rows)
    if not all(0 < ratio < math.inf for row in ratios for ratio in row):
        raise ConfigError(f"ratios are {rows}; each must be above 0 and finite")
    return ratios


def _backbone(design: Design) -> nn.Module:
    backbone = VGG16Reduced() if design.backbone == "vgg16" else EfficientNetLite0()
    xavier(backbone)
    return backbone

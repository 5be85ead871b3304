"""What DSSD puts between a level and its predictions (Fu et al. 2017, Fig. 2), and other predictors.

Source: chengyangfu/caffe, branch dssd, CreateMultiBoxHead.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import partial
from typing import Any

from torch import nn

from fssd.config.bounds import Count, check_number
from fssd.errors import ConfigError, nearest
from fssd.heads.head import HeadBlueprint
from fssd.layers.blocks import ConvNorm, NormedPredictor, SeparablePredictor
from fssd.layers.residual_block import ResidualBlock

Predictor = Callable[[int, int], nn.Module]  # (inputs, outputs)

MODULES = ("a", "b", "c", "d")
WIDTH, EXPANSION = 256, 4  # inner channels of a prediction module, and its output channels by them
KERNELS = (1, 3, 5, 7)  # of predictors
MIDDLES = (3, 1)  # of the middle convolution: the authors' code, their figure
OPTIONS = frozenset({"prediction", "prediction_kernel", "prediction_widths", "kernels", "inter", "head_norm"})
WITH_MODULES = ("prediction_kernel", "prediction_widths")


def prediction_modules(blueprint: HeadBlueprint) -> tuple[nn.ModuleList, list[int]]:
    """The prediction module of each level, none for kind "a"; and the channels that are predicted from.

    Raises ConfigError for options that do not fit.
    """
    options, channels = blueprint.options, list(blueprint.channels)
    kind = options.get("prediction", MODULES[0])
    if kind not in MODULES:
        raise ConfigError(f"there is no prediction {kind!r}{nearest(str(kind), MODULES)}; there are a to d")
    needless = WITH_MODULES if kind == "a" else WITH_MODULES[1:] if kind == "b" else ()
    for key in needless:
        if key in options:
            raise ConfigError(f"prediction {kind!r} takes no {key}; leave one of them out")
    if kind == "a":
        return nn.ModuleList(), channels
    if blueprint.light:
        raise ConfigError(f"{blueprint.model} is of light width, which has no prediction modules; leave it a")
    middle = options.get("prediction_kernel", MIDDLES[0])
    if type(middle) is not int or middle not in MIDDLES:
        raise ConfigError(
            f"prediction_kernel is {middle!r}; it is 3, as in DSSD's code, or 1, as in its figure"
        )
    if kind == "b":
        return nn.ModuleList(_identical(width, middle) for width in channels), channels
    widths = _per_level("prediction_widths", options, blueprint, WIDTH)
    for width in widths:
        check_number("prediction_widths", width, Count)
    blocks = 1 if kind == "c" else 2
    modules = nn.ModuleList(
        _projected(inputs, width, middle, blocks) for inputs, width in zip(channels, widths, strict=True)
    )
    return modules, [EXPANSION * width for width in widths]


def predictors(blueprint: HeadBlueprint) -> list[Predictor]:
    """What makes the two predictors of each level. Raises ConfigError for options that do not fit."""
    options, levels = blueprint.options, len(blueprint.channels)
    if _has_norm(blueprint):
        return [NormedPredictor] * levels
    if blueprint.light:
        for key in ("kernels", "inter"):
            if key in options:
                raise ConfigError(f"{blueprint.model} is of light width, which has no {key}; leave it out")
        return [SeparablePredictor] * levels
    kernels = _per_level("kernels", options, blueprint, 3)
    for kernel in kernels:
        if type(kernel) is not int or kernel not in KERNELS:
            raise ConfigError(f"kernels has {kernel!r}; a kernel is {', '.join(map(str, KERNELS))}")
    inter = options.get("inter")
    if inter is None:
        return [partial(conv_predictor, kernel=kernel) for kernel in kernels]
    check_number("inter", inter, Count)
    return [partial(_inter_predictor, kernel=kernel, inter=inter) for kernel in kernels]


def _has_norm(blueprint: HeadBlueprint) -> bool:
    """The option head_norm. Raises ConfigError where it does not fit."""
    norm = blueprint.options.get("head_norm", False)
    if not isinstance(norm, bool):
        raise ConfigError(f"head_norm is {norm!r}; it is true or false")
    if norm and blueprint.light:
        raise ConfigError("the separable heads have batch norm already; leave out head_norm")
    for key in ("kernels", "inter"):
        if norm and key in blueprint.options:
            raise ConfigError(f"heads with batch norm are one 3x3 convolution; leave out head_norm or {key}")
    return norm


def conv_predictor(inputs: int, outputs: int, kernel: int = 3) -> nn.Module:
    """Convolution with bias, no activation."""
    return nn.Conv2d(inputs, outputs, kernel, padding=kernel // 2)


def _inter_predictor(inputs: int, outputs: int, kernel: int, inter: int) -> nn.Module:
    """3x3 with batch norm and ReLU before, as DSSD513 has it on COCO."""
    return nn.Sequential(ConvNorm(inputs, inter, 3, padding=1), conv_predictor(inter, outputs, kernel))


def _per_level(key: str, options: Any, blueprint: HeadBlueprint, default: int) -> list[Any]:
    """Numbers level by level from the finest; further levels have the default."""
    given, levels = options.get(key, ()), len(blueprint.channels)
    if not isinstance(given, Sequence) or isinstance(given, str):
        raise ConfigError(f"{key} is {given!r}; it is a list, level by level from the finest")
    if len(given) > levels:
        raise ConfigError(f"{key} lists {len(given)} levels, but {blueprint.model} has {levels}")
    return [*given, *[default] * (levels - len(given))]


def _identical(width: int, middle: int) -> nn.Module:
    if width % EXPANSION:
        raise ConfigError(
            f"prediction 'b' needs widths that are multiples of {EXPANSION}, not {width}; use c"
        )
    return ResidualBlock(width, width // EXPANSION, width, middle=middle, projected=False)


def _projected(inputs: int, width: int, middle: int, blocks: int) -> nn.Module:
    outputs = EXPANSION * width
    chain = [
        ResidualBlock(outputs if index else inputs, width, outputs, middle=middle) for index in range(blocks)
    ]
    return nn.Sequential(*chain) if blocks > 1 else chain[0]

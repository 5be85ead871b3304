"""Caffe's ResNets: MSRA's ResNet-50 and 101, and SSD and DSSD on ResNet-101 (chengyangfu/caffe, branch dssd).

Each convolution without bias is followed there by a BatchNorm and a Scale layer. What differs between files
(prediction modules, their widths, kernels of the heads, classes) follows from names and shapes.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from typing import Any, NamedTuple, cast

import torch
from torch import Tensor, nn

from fssd.backbones.resnet import ResNet
from fssd.backbones.resnet_weights import caffe_names
from fssd.importers.caffe_layers import CaffeLayers, statistics
from fssd.importers.foreign import DSSD_ASPECTS, Imported, Wanted, read_heads
from fssd.layers.blocks import ConvNorm
from fssd.model.build import build_model
from fssd.model.designs import backbone_class
from fssd.model.network import Network
from fssd.necks.ssd import SSD

BRANCHES = {"skip": "branch1", "body.0": "branch2a", "body.1": "branch2b", "body.2": "branch2c"}
LAST = "res10_branch2a"  # a layer that only the networks of 513 px have
SUM = "EltwiseSUM"
WIDTH, KERNELS = 256, (5, 5)  # what the networks have if no option says otherwise


class Names(NamedTuple):
    """Of a convolution, its BatchNorm and its Scale in Caffe."""

    conv: str
    norm: str
    scale: str


class LevelNames(NamedTuple):
    """Of a level. fine: its map in SSD. loc, conf: its predictors.

    module: its prediction module, without the "res", "bn" or "scale" that names begin with; None for none.
    """

    fine: str
    module: str | None
    loc: str
    conf: str


def import_resnet(layers: CaffeLayers, name: str) -> Imported:
    """The backbone alone, "resnet50-caffe" or another of Caffe's layout. Raises CheckpointError."""
    with torch.device("meta"):
        backbone = cast("ResNet", backbone_class(name)())
    return Imported({}, 0, _take_body(layers, backbone), layers.unused())


def import_resnet_detector(layers: CaffeLayers, wanted: Wanted) -> Imported:
    """SSD321, SSD513, DSSD321 or DSSD513. Raises CheckpointError."""
    _check_kind(layers, wanted.name)
    with torch.device("meta"):  # shapes alone
        plain = build_model(wanted.name, 1)
    levels = _levels(layers, ["res3b3", "res5c", *cast("SSD", plain.neck).extras])
    predictors = [(level.loc, level.conf) for level in levels]
    layers.expected.update(*predictors)
    _, classes = read_heads(predictors, layers.outputs, layers.error, DSSD_ASPECTS)
    options = {"priors": wanted.prior_table(classes), **_options(layers, levels)}
    with torch.device("meta"):
        network = build_model(wanted.name, classes, **options)
    body = _take_body(layers, cast("ResNet", network.backbone))
    tensors = {f"backbone.{key}": tensor for key, tensor in body.items()}
    for path, block, names in _blocks(network, levels):
        pair = cast("tuple[nn.Conv2d, nn.BatchNorm2d]", (block[0], block[1]))
        tensors[f"{path}.0.weight"], state = _take_pair(layers, *pair, names)
        tensors |= {f"{path}.1.{key}": tensor for key, tensor in state.items()}
    for path, conv, layer in _convolutions(network, levels):
        weight, bias = layers.take(layer, tuple(conv.weight.shape), (conv.out_channels,))
        tensors |= {f"{path}.weight": weight, f"{path}.bias": bias}
    return Imported(options, classes, tensors, layers.unused())


def _check_kind(layers: CaffeLayers, name: str) -> None:
    """Raise CheckpointError if the file clearly holds another network than `name`."""
    if "res2a_branch2a" not in layers.blobs or not any("_mbox_loc" in layer for layer in layers.blobs):
        raise layers.error(f"has no layers of a ResNet that predict boxes, so it is no {name}")
    family = "dssd" if _is_merged(layers) else "ssd"
    held = f"{family}{513 if LAST in layers.blobs else 321}-resnet101"
    if held != name:
        raise layers.error(f"holds a {held} by its layers, not a {name}; import it as {held}")


def _is_merged(layers: CaffeLayers) -> bool:
    return any(layer.startswith("deconv_") for layer in layers.blobs)


def _levels(layers: CaffeLayers, fine: Sequence[str]) -> list[LevelNames]:
    """Names of every level, of which `fine` are SSD's maps. Heads of a second training end in "new"."""
    sources = [f"{name}_relu" for name in fine]
    if _is_merged(layers):
        merge = SUM if any(SUM in layer for layer in layers.blobs) else "EltwisePROD"
        sources[:-1] = [f"combined_{_number(name)}_{merge}_relu" for name in fine[:-1]]
    levels = []
    for name, source in zip(fine, sources, strict=True):
        pattern = re.compile(rf"res({source}_inter\d+)_branch2a")
        module = next((found[1] for layer in layers.blobs if (found := pattern.fullmatch(layer))), None)
        stem = source if module is None else f"res{module}"
        new = "new" if f"{stem}_mbox_locnew" in layers.blobs else ""
        levels.append(LevelNames(name, module, f"{stem}_mbox_loc{new}", f"{stem}_mbox_conf{new}"))
    return levels


def _number(fine: str) -> str:
    """The stage of a map, by which its deconvolution is named: 3 of res3b3."""
    return cast("re.Match[str]", re.match(r"res(\d+)", fine))[1]


def _options(layers: CaffeLayers, levels: Sequence[LevelNames]) -> dict[str, Any]:
    """What differs from the networks as their names have them, by the shapes of the first blobs."""
    options: dict[str, Any] = {}
    modules = [level.module for level in levels if level.module is not None]
    if not modules:
        options["prediction"] = "a"
    elif f"res{modules[0]}_branch1" not in layers.blobs:
        options["prediction"] = "b"
    else:
        widths = [layers.outputs(f"res{module}_branch2a") for module in modules]
        if cut := _without_tail(widths, WIDTH):
            options["prediction_widths"] = cut
    if modules and _kernel(layers, f"res{modules[0]}_branch2b") == 1:
        options["prediction_kernel"] = 1
    kernels = _without_tail([_kernel(layers, level.loc) for level in levels], 3)
    if kernels != list(KERNELS):
        options["kernels"] = kernels
    if f"{levels[0].loc}_inter" in layers.blobs:
        options["inter"] = layers.outputs(f"{levels[0].loc}_inter")
    if any(SUM in layer for layer in layers.blobs):
        options["merge"] = "sum"
    return options


def _kernel(layers: CaffeLayers, layer: str) -> int:
    layers.outputs(layer)  # for its error about a layer that is missing
    return int(layers.blobs[layer][0].shape[-1])


def _without_tail(values: list[int], usual: int) -> list[int]:
    """The list without the usual values at its end."""
    while values and values[-1] == usual:
        values = values[:-1]
    return values


def _take_body(layers: CaffeLayers, backbone: ResNet) -> dict[str, Tensor]:
    """The tensors of the backbone by our names, conv1 turned to read RGB."""
    tensors: dict[str, Tensor] = {}
    for conv, norm, theirs in caffe_names(backbone.blocks):
        names = Names("conv1", "bn_conv1", "scale_conv1")
        if theirs != "conv1":
            names = Names(f"res{theirs}", f"bn{theirs}", f"scale{theirs}")
        modules = backbone.get_submodule(conv), backbone.get_submodule(norm)
        weight, state = _take_pair(layers, *cast("tuple[nn.Conv2d, nn.BatchNorm2d]", modules), names)
        tensors[f"{conv}.weight"] = weight
        tensors |= {f"{norm}.{key}": tensor for key, tensor in state.items()}
    return tensors


def _take_pair(
    layers: CaffeLayers, conv: nn.Conv2d, norm: nn.BatchNorm2d, names: Names
) -> tuple[Tensor, dict[str, Tensor]]:
    """The weight of a convolution, and the state of the norm behind it.

    A bias of the convolution, which conv1 of MSRA's ResNet-50 has, is subtracted from the mean of the norm.
    """
    width = (norm.num_features,)
    layers.expected.update(names)
    shape = tuple(conv.weight.shape)
    biased = len(layers.blobs.get(names.conv, ())) == 2
    weight, *bias = layers.take(names.conv, shape, width) if biased else layers.take(names.conv, shape)
    mean, variance, counter = layers.take(names.norm, width, width, (1,))
    state = statistics(mean, variance, counter, norm)
    if bias:
        state["running_mean"] = state["running_mean"] - bias[0]
    state["weight"], state["bias"] = layers.take(names.scale, width, width)
    if names.conv == "conv1" and layers.colours == "bgr":
        weight = weight.flip(1)
    return weight, state


def _blocks(network: Network, levels: Sequence[LevelNames]) -> Iterator[tuple[str, ConvNorm, Names]]:
    """Every convolution with a norm beside the backbone's: its path in the network, itself, and its names."""
    for path, block in network.named_modules():
        if not isinstance(block, ConvNorm):
            continue
        match path.split("."):
            case ["neck", "extras", name, *branch]:
                number = name.removeprefix("res")
                yield path, block, _residual(number, branch)
            case ["heads", "prediction", level, *branch]:
                yield path, block, _residual(str(levels[int(level)].module), branch)
            case ["neck", "deconvolutions", level, "above"]:
                yield path, block, _named(f"deconv_{_number(levels[int(level)].fine)}_pre")
            case ["neck", "deconvolutions", level, "side", index]:
                yield path, block, _named(f"{levels[int(level)].fine}_relu_pre{int(index) + 1}")
            case ["heads", kind, level, "0"]:
                own = levels[int(level)]
                yield path, block, _named(f"{own.loc if kind == 'loc' else own.conf}_inter")


def _convolutions(
    network: Network, levels: Sequence[LevelNames]
) -> Iterator[tuple[str, nn.Conv2d | nn.ConvTranspose2d, str]]:
    """Every convolution and deconvolution with a bias: its path in the network, itself, and its name."""
    for path, conv in network.named_modules():
        if not isinstance(conv, (nn.Conv2d, nn.ConvTranspose2d)) or conv.bias is None:
            continue
        match path.split("."):
            case ["neck", "deconvolutions", level, "enlarge"]:
                yield path, conv, f"deconv_{_number(levels[int(level)].fine)}"
            case ["heads", kind, level, *_]:
                own = levels[int(level)]
                yield path, conv, own.loc if kind == "loc" else own.conf


def _residual(block: str, branch: Sequence[str]) -> Names:
    """block: its name without "res", "bn" or "scale". branch: where the layer is in our `ResidualBlock`."""
    part = BRANCHES[".".join(branch)]
    return Names(*(f"{kind}{block}_{part}" for kind in ("res", "bn", "scale")))


def _named(conv: str) -> Names:
    return Names(conv, f"{conv}_bn", f"{conv}_scale")

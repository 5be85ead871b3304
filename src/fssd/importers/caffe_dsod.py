"""Weights of DSOD (szq0214/DSOD), whose file names only the first convolution and the heads.

All other layers have the names that pycaffe's NetSpec gives, Convolution1, BatchNorm1, Scale1, ..., in the
order in which the network was built. `First` has a name of its own and is not counted.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import torch
from torch import Tensor, nn

from fssd.heads.multibox.priors import standard_ratios
from fssd.importers.caffe_layers import CaffeLayers
from fssd.importers.foreign import Imported, Wanted, ratio_option, read_heads
from fssd.layers.norms import CaffeBatchNorm
from fssd.model.build import build_model
from fssd.model.network import Network

LEVELS = ("First", "Second", "Third", "Fourth", "Fifth", "Sixth")
FORMS = {(64, 192, 48): "dsod300", (64, 64, 16): "dsod300-small"}  # first width, bottleneck, growth
DSOD_NAMES = tuple(FORMS.values())
WIDTHS = ("Convolution1", "Convolution4", "Convolution5")  # whose outputs these are


def holds_dsod(layers: CaffeLayers) -> bool:
    """Whether a file is of a DSOD, by the names that no other network has."""
    return f"{LEVELS[0]}_norm" in layers.blobs


def take_dsod(layers: CaffeLayers, wanted: Wanted) -> Imported:
    """The network `wanted.name`, one of `DSOD_NAMES`. Raises CheckpointError for a file of another one."""
    held = tuple(layers.outputs(layer) for layer in WIDTHS)
    form = "DS/" + "-".join(map(str, held))
    if held not in FORMS:
        raise layers.error(f"holds a {form}-..., which has no name here; known are DS/64-192-48, DS/64-64-16")
    if FORMS[held] != wanted.name:
        raise layers.error(f"holds a {FORMS[held]} ({form}), not a {wanted.name}; import it as {FORMS[held]}")
    predictors = [(f"{level}_norm_mbox_loc", f"{level}_norm_mbox_conf") for level in LEVELS]
    ratios, classes = read_heads(predictors, layers.outputs, layers.error)
    options: dict[str, Any] = {"priors": wanted.prior_table(classes)}
    options |= ratio_option(ratios, standard_ratios(len(ratios)))
    with torch.device("meta"):  # shapes alone
        network = build_model(wanted.name, classes, **options)
    tensors = dict(_body(layers, network)) | dict(_scales(layers, network)) | dict(_heads(layers, network))
    return Imported(options, classes, tensors, layers.unused())


def _body(layers: CaffeLayers, network: Network) -> Iterator[tuple[str, Tensor]]:
    convolutions = [name for name in _in_order(network) if _is(network, name, nn.Conv2d)]
    norms = [name for name in _in_order(network) if _is(network, name, CaffeBatchNorm)]
    counted = 0
    for number, (conv, norm) in enumerate(zip(convolutions, norms, strict=True), start=1):
        is_first = conv.startswith("backbone.transitions.1.")
        counted += not is_first
        yield from _convolution(layers, network, conv, LEVELS[0] if is_first else f"Convolution{counted}")
        yield from _norm(layers, network, norm, f"BatchNorm{number}", f"Scale{number}")


def _in_order(network: Network) -> Iterator[str]:
    """Names of the layers of backbone and neck in the order in which the authors' script builds them."""
    parts = ["backbone.stem"]
    for index in range(3):
        parts += [f"backbone.blocks.{index}", f"backbone.transitions.{index}"]
    parts += ["backbone.blocks.3", "neck.learned.0", "neck.reused.0"]
    for index in range(1, len(LEVELS) - 1):
        parts += [f"neck.reused.{index}", f"neck.learned.{index}"]
    for part in parts:
        yield from (name for name, _ in network.get_submodule(part).named_modules(prefix=part))


def _is(network: Network, name: str, kind: type[nn.Module]) -> bool:
    return isinstance(network.get_submodule(name), kind)


def _scales(layers: CaffeLayers, network: Network) -> Iterator[tuple[str, Tensor]]:
    own = network.state_dict()
    for index, level in enumerate(LEVELS):
        key = f"neck.scales.{index}.weight"
        yield key, layers.take(f"{level}_norm", tuple(own[key].shape))[0]


def _heads(layers: CaffeLayers, network: Network) -> Iterator[tuple[str, Tensor]]:
    for kind in ("loc", "conf"):
        for index, level in enumerate(LEVELS):
            prefix, layer = f"heads.{kind}.{index}", f"{level}_norm_mbox_{kind}"
            yield from _convolution(layers, network, f"{prefix}.0", layer)
            yield from _norm(layers, network, f"{prefix}.1", f"{layer}_bn", f"{layer}_scale")


def _convolution(
    layers: CaffeLayers, network: Network, name: str, layer: str
) -> Iterator[tuple[str, Tensor]]:
    conv = network.get_submodule(name)
    assert isinstance(conv, nn.Conv2d)
    (weight,) = layers.take(layer, tuple(conv.weight.shape))
    is_colour = conv.in_channels == 3 and layers.colours == "bgr"
    yield f"{name}.weight", weight.flip(1) if is_colour else weight


def _norm(
    layers: CaffeLayers, network: Network, name: str, sums: str, scale: str
) -> Iterator[tuple[str, Tensor]]:
    norm = network.get_submodule(name)
    assert isinstance(norm, CaffeBatchNorm)
    yield from ((f"{name}.{key}", tensor) for key, tensor in layers.take_norm(norm, sums, scale).items())

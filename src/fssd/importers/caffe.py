"""Weights of the Caffe networks: VGG16, SSD (weiliu89/caffe) and FSSD (lzx1413/CAFFE_SSD, branch fssd).

Caffe's convolutions have PyTorch's layout (out, in, height, width), and its heads have ours: cell by cell,
prior by prior. So names are mapped, conv1_1 is turned from BGR to RGB, and the sums of BatchNorm are divided
by their counter. What differs between released files (priors per cell, classes, sources) follows from the
shapes.
"""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from fssd.backbones.decimate import decimate_fc6, decimate_fc7
from fssd.backbones.vgg import VGG16Reduced
from fssd.errors import CheckpointError
from fssd.heads.multibox.priors import standard_ratios
from fssd.importers.caffe_dsod import DSOD_NAMES, holds_dsod, take_dsod
from fssd.importers.caffe_layers import CaffeLayers
from fssd.importers.caffe_resnet import import_resnet, import_resnet_detector
from fssd.importers.caffemodel import read_caffemodel
from fssd.importers.foreign import (
    BACKBONE,
    BACKBONES,
    NAMES,
    RESNET_DETECTORS,
    RESNETS,
    Imported,
    Wanted,
    ratio_option,
    read_heads,
)
from fssd.layers.norms import CaffeBatchNorm
from fssd.model.build import build_model
from fssd.model.designs import DESIGNS, Design
from fssd.model.network import Network
from fssd.necks.extras import ssd_extras
from fssd.necks.pyramid import pyramid_rows

FUSED = "fea_concat_bn"  # the normalisation; names of the pyramid's layers begin with it
SCALES = (f"{FUSED}_scale", "fea_concat_scale")  # not in the released networks
L2NORM = "conv4_3_norm"
LAST = {"fssd": f"{FUSED}_ds_64", "ssd": "conv10_2"}  # a layer that only the 512 networks have
SOURCES = {  # by the width of the concatenation, in its order
    768: ("conv4_3", "fc7", "conv7_2"),
    1024: ("conv3_3", "conv4_3", "fc7", "conv7_2"),
    512: ("conv4_3", "fc7"),
}


def import_caffe(file: Path, name: str, *, colours: str = "bgr", priors: str | None = None) -> Imported:
    """Read a .caffemodel as the network `name`, one of `NAMES` or `DSOD_NAMES`.

    "vgg16" is the backbone alone, of any file that has one; the fully connected layers of the original
    classifier are decimated. `RESNETS` are backbones alone too. colours: order of the images that the file
    was trained on. priors: table of prior sizes, which the file does not tell; by default "coco" for 80
    classes, else "voc". Raises ConfigError for an unknown name, colour order or table; CheckpointError for a
    file that is damaged, of another network, or has numbers that are not finite.
    """
    wanted = Wanted(name, colours, priors)
    wanted.check((*NAMES, *DSOD_NAMES))
    layers = CaffeLayers(file, read_caffemodel(file), colours)
    if name in RESNETS:
        return import_resnet(layers, name)
    if name in RESNET_DETECTORS:
        return import_resnet_detector(layers, wanted)
    if name == BACKBONE:
        with torch.device("meta"):
            backbone = VGG16Reduced()
        _decimate(layers)
        tensors = _take_convolutions(layers, backbone, {name: name for name in _convolutions(backbone)})
        return Imported({}, 0, tensors, layers.unused())
    if name in DSOD_NAMES:
        return take_dsod(layers, wanted)
    design = DESIGNS[name]
    _check_kind(layers, name)
    heads = _head_sources(design)
    predictors = [(f"{source}_mbox_loc", f"{source}_mbox_conf") for source in heads]
    layers.expected.update(*predictors)
    ratios, classes = read_heads(predictors, layers.outputs, layers.error)
    options: dict[str, Any] = {"priors": wanted.prior_table(classes)}
    options |= ratio_option(ratios, standard_ratios(len(ratios)))
    if design.neck == "fssd":
        options |= _fusion_options(layers)
    with torch.device("meta"):  # shapes alone
        network = build_model(name, classes, **options)
    tensors = _take_convolutions(layers, network, _detector_layers(network, heads))
    tensors |= _take_normalisation(layers, network)
    return Imported(options, classes, tensors, layers.unused())


def read_caffe_backbone(file: Path, backbone: str) -> dict[str, Tensor]:
    """The tensors of a .caffemodel for `backbone`, a name. Raises CheckpointError as `import_caffe` does."""
    if backbone not in BACKBONES:
        known = ", ".join(BACKBONES)
        raise CheckpointError(f"{file}: is of Caffe, whose layout {backbone} does not have; known: {known}")
    return import_caffe(file, backbone).tensors


def _check_kind(layers: CaffeLayers, name: str) -> None:
    """Raise CheckpointError if the file clearly holds another network than `name`."""
    if not any(layer.endswith("_mbox_loc") for layer in layers.blobs):
        raise layers.error(
            f"has no layers that predict boxes, so it is no {name}; import it as {BACKBONE} if you"
            " want the backbone"
        )
    if holds_dsod(layers):
        raise layers.error(
            f"holds a DSOD by its layers, not a {name}; import it as {' or '.join(DSOD_NAMES)}"
        )
    is_fused = any(layer.startswith("fea_concat") for layer in layers.blobs)
    if not is_fused and L2NORM not in layers.blobs:
        return  # neither: the error about the first missing layer is more helpful
    family = "fssd" if is_fused else "ssd"
    size = 512 if LAST[family] in layers.blobs else 300
    held = f"{family}{size}-vgg16"
    if held != name:
        raise layers.error(f"holds a {held} by its layers, not a {name}; import it as {held}")


def _head_sources(design: Design) -> list[str]:
    """Caffe's names of the layers that a network predicts from."""
    with torch.device("meta"):
        maps = VGG16Reduced().shapes(*design.size)
    if design.neck == "fssd":
        return [f"{FUSED}_{row.name}" for row in pyramid_rows(maps["conv4_3"].cells)]
    extras = [row.name for row in ssd_extras(maps["fc7"].cells) if row.name.endswith("_2")]
    return [L2NORM, "fc7", *extras]


def _fusion_options(layers: CaffeLayers) -> dict[str, Any]:
    """The options for sources and normalisation that differ from the released network's."""
    first = f"{FUSED}_ds_1"
    blobs = layers.blobs.get(first)
    if not blobs or blobs[0].ndim != 4:
        raise layers.error(f"has no convolution {first!r}, the first of FSSD's pyramid")
    width = blobs[0].shape[1]
    if width not in SOURCES:
        raise layers.error(
            f"layer {first!r} reads {width} channels; expected 768 (conv4_3, fc7, conv7_2),"
            " 1024 (with conv3_3) or 512 (conv4_3, fc7)"
        )
    options: dict[str, Any] = {}
    if width != 768:
        options["sources"] = list(SOURCES[width])
    if any(f"{source}_reduce" in layers.blobs for source in ("conv3_3", "conv7_2")):
        options["reduce_all"] = True
    _refuse_unknown_norm(layers, width)
    if FUSED not in layers.blobs:
        options["norm"] = "none"
    elif any(scale in layers.blobs for scale in SCALES):
        options["norm"] = "batch-affine"
    return options


def _refuse_unknown_norm(layers: CaffeLayers, width: int) -> None:
    # Without this check a normalisation of another name would be ignored, and the network would find nothing.
    for layer, blobs in layers.blobs.items():
        if layer in (FUSED, *SCALES, L2NORM):
            continue
        if all(blob.ndim == 1 and len(blob) in (1, width) for blob in blobs):
            raise layers.error(
                f"layer {layer!r} looks like a normalisation of the {width} fused channels"
                f" but has an unknown name, expected {FUSED!r} (or {SCALES[0]!r} for its scale)"
            )


def _convolutions(module: nn.Module) -> list[str]:
    return [name for name, child in module.named_modules() if isinstance(child, nn.Conv2d)]


def _detector_layers(network: Network, heads: list[str]) -> dict[str, str]:
    """Our name by Caffe's of every convolution of a network."""
    layers = {}
    for name in _convolutions(network):
        match name.split("."):
            case ["heads", kind, level]:
                layer = f"{heads[int(level)]}_mbox_{kind}"
            case ["neck", "fusion", "transform", own, _]:
                layer = f"{own}_reduce"
            case ["neck", "pyramid", "blocks", own, _]:
                layer = f"{FUSED}_{own}"
            case [_, "extras", layer, _] | [_, layer]:  # neck.extras.conv6_1.0, backbone.conv1_1
                pass
        layers[layer] = name
    return layers


def _take_convolutions(layers: CaffeLayers, module: nn.Module, names: Mapping[str, str]) -> dict[str, Tensor]:
    layers.expected.update(names)
    own = module.state_dict()
    tensors: dict[str, Tensor] = {}
    for layer, name in names.items():
        keys = (f"{name}.weight", f"{name}.bias")
        weight, bias = layers.take(layer, *(tuple(own[key].shape) for key in keys))
        if layer == "conv1_1" and layers.colours == "bgr":
            weight = weight.flip(1)
        tensors |= dict(zip(keys, (weight, bias), strict=True))
    return tensors


def _take_normalisation(layers: CaffeLayers, network: Network) -> dict[str, Tensor]:
    """The scale of SSD's L2Norm, or the normalisation of FSSD's fused map."""
    own = network.state_dict()
    if "neck.scale.weight" in own:
        return {"neck.scale.weight": layers.take(L2NORM, tuple(own["neck.scale.weight"].shape))[0]}
    prefix = "neck.fusion.norm"
    norm = network.get_submodule(prefix)
    if not isinstance(norm, CaffeBatchNorm):
        return {}
    scale = next((name for name in SCALES if name in layers.blobs), None) if norm.affine else None
    return {f"{prefix}.{key}": tensor for key, tensor in layers.take_norm(norm, FUSED, scale).items()}


def _decimate(layers: CaffeLayers) -> None:
    """Turn the fully connected layers of the original VGG16 into those of VGG16-reduced, if it has them."""
    blobs = layers.blobs
    if not all(len(blobs.get(layer, ())) == 2 for layer in ("fc6", "fc7")) or len(blobs["fc6"][1]) != 4096:
        return
    try:
        blobs["fc6"] = list(decimate_fc6(*blobs["fc6"]))
        blobs["fc7"] = list(decimate_fc7(*blobs["fc7"]))
    except CheckpointError as error:
        raise layers.error(f"{error}") from error

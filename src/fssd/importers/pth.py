"""Weights of PyTorch networks: the names in the file tell its format."""

from collections.abc import Callable
from pathlib import Path

import torch

from fssd.backbones.vgg import VGG16Reduced
from fssd.backbones.vgg_weights import VGG_PLACES, vgg16_layers, vgg16_names
from fssd.errors import CheckpointError, ConfigError
from fssd.importers import pytorchssd, ssd_pytorch, torchvision_ssd
from fssd.importers.foreign import BACKBONE, Foreign, Imported, Wanted
from fssd.weights.checkpoint import check_shape
from fssd.weights.pretrained import read_state_dict

# By the beginning of a name that no other format has.
FORMATS: dict[str, tuple[str, Callable[[Foreign], Imported]]] = {
    "vgg.": (ssd_pytorch.ORIGIN, ssd_pytorch.import_ssd_pytorch),
    "ft_module.": (pytorchssd.ORIGIN, pytorchssd.import_pytorchssd),
    "backbone.features.": (torchvision_ssd.ORIGIN, torchvision_ssd.import_torchvision_ssd),
}
BACKBONES = {"features.": "torchvision's vgg16", "0.": "vgg16_reducedfc.pth", "conv1_1.": "fssd's own vgg16"}


def import_pth(
    file: Path,
    name: str,
    colours: str | None = None,
    priors: str | None = None,
    align_corners: bool | None = None,
) -> Imported:
    """Read a .pth or .safetensors file of another project as the network `name`, one of `NAMES`.

    colours: order of the images that the file was trained on; by default RGB for ssd.pytorch and torchvision,
    BGR for the FSSD ports and vgg16_reducedfc.pth. priors: table of prior sizes, which the file does not
    tell; by default "coco" for 80 classes and for torchvision, else "voc". align_corners: how an FSSD port
    resized; by default as `import_pytorchssd` says. Raises ConfigError for an unknown name, colour order or
    table, and for align_corners of a network that resizes no maps; CheckpointError for a file that is
    damaged, would run code, is of no known format, or holds another network than `name`.
    """
    wanted = Wanted(name, colours, priors, align_corners)
    wanted.check()
    tensors = read_state_dict(file)
    for prefix, (origin, read) in FORMATS.items():
        foreign = Foreign(file, origin, tensors, wanted)
        if foreign.has(prefix):
            if read is not pytorchssd.import_pytorchssd:
                _refuse_align_corners(foreign)
            return read(foreign)
    if foreign.has("base.") and foreign.has("L2Norm."):
        raise CheckpointError(
            f"{file}: holds an SSD of lzx1413/PytorchSSD, whose L2Norm works in place: its layers after"
            " conv4_3 were trained on the normalised map, which no network here computes; import an SSD of"
            " amdegroot/ssd.pytorch or Caffe instead"
        )
    for prefix, origin in BACKBONES.items():
        if foreign.has(prefix):
            return _import_backbone(Foreign(file, origin, tensors, wanted))
    known = ", ".join([*(origin for origin, _ in FORMATS.values()), *BACKBONES.values()])
    example = f", such as {next(iter(tensors))!r}" if tensors else ""
    raise CheckpointError(f"{file}: has no names of a known format{example}; known: {known}")


def _refuse_align_corners(foreign: Foreign) -> None:
    if foreign.wanted.align_corners is not None:
        reason = f"holds {foreign.origin}, which resizes no maps"
        raise ConfigError(f"{foreign.file}: {reason}; leave --align-corners out")


def _import_backbone(foreign: Foreign) -> Imported:
    foreign.must_hold(BACKBONE)
    _refuse_align_corners(foreign)
    names = vgg16_names(foreign.tensors)
    features_alone = not any(own.startswith("fc") for own in names)
    taken = {}
    for index, layer in VGG_PLACES.items():
        if layer.startswith("fc") and features_alone:
            continue
        for own in (f"{layer}.weight", f"{layer}.bias"):
            if own not in names:
                lacks = f"lacks {own} (layer {index} of the list)"
                raise foreign.error(f"has the names of {foreign.origin}, but {lacks}")
            taken[own] = names[own]
    foreign.take(taken)  # for its checks
    with torch.device("meta"):
        shapes = VGG16Reduced().state_dict()
    for own, theirs in taken.items():
        if not theirs.startswith("classifier."):  # those are thinned out, and taken only if they can be
            check_shape(foreign.file, theirs, foreign.get(theirs), shapes[own])
    layers = vgg16_layers(foreign.tensors, foreign.wanted.colours)
    return foreign.imported({}, 0, {key: layers[key] for key in taken})

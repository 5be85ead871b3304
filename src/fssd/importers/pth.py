"""Weights of PyTorch networks: the format is told by the names in the file."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

from fssd.backbones.vgg_weights import VGG_PLACES, vgg16_layers, vgg16_names
from fssd.errors import CheckpointError, ConfigError, nearest
from fssd.importers import pytorchssd, ssd_pytorch, torchvision_ssd
from fssd.importers.foreign import Foreign, Wanted, check_name
from fssd.importers.imported import Imported
from fssd.model.designs import DESIGNS
from fssd.weights.pretrained import read_state_dict

BACKBONE = "vgg16"
NAMES = (*(name for name, design in DESIGNS.items() if design.backbone == "vgg16"), BACKBONE)
WRAPPERS = ("state_dict", "model")  # keys under which trainings keep the weights beside other things

Reader = Callable[[Foreign, Wanted], Imported]

# By the beginning of a name that no other format has.
DETECTORS: dict[str, tuple[str, Reader]] = {
    "vgg.": (ssd_pytorch.ORIGIN, ssd_pytorch.import_ssd_pytorch),
    "ft_module.": (pytorchssd.ORIGIN, pytorchssd.import_pytorchssd),
    "backbone.features.": (torchvision_ssd.ORIGIN, torchvision_ssd.import_torchvision_ssd),
}
BACKBONES = {"features.": "torchvision's vgg16", "0.": "vgg16_reducedfc.pth", "conv1_1.": "fssd's own vgg16"}


def import_pth(
    file: Path,
    name: str,
    *,
    colours: str | None = None,
    priors: str | None = None,
    align_corners: bool | None = None,
) -> Imported:
    """Read a .pth or .safetensors file of another project as the network `name`, one of `NAMES`.

    colours: order of the images that the file was trained on; by default RGB for ssd.pytorch and
    torchvision, BGR for the FSSD ports and vgg16_reducedfc.pth. priors: table of prior sizes, by default
    "coco" for 80 classes and for torchvision, else "voc"; the file does not tell. align_corners: how an
    FSSD port resized; by default as `import_pytorchssd` says.

    Raises ConfigError for an unknown name, colour order or table; CheckpointError for a file that is
    damaged, would run code, is of no known format, or holds another network than `name`.
    """
    if name not in NAMES:
        raise ConfigError(f"there is no network {name!r} to import{nearest(name, NAMES)}")
    if colours not in (None, "rgb", "bgr"):
        raise ConfigError(f"there is no colour order {colours!r}; known: bgr, rgb")
    if priors not in (None, "voc", "coco"):
        raise ConfigError(f"there is no prior table {priors!r}{nearest(str(priors), ('voc', 'coco'))}")
    tensors = read_state_dict(file, WRAPPERS)
    wanted = Wanted(name, colours, priors, align_corners)
    for prefix, (origin, read) in DETECTORS.items():
        foreign = Foreign(file, origin, tensors)
        if foreign.has(prefix):
            return read(foreign, wanted)
    if foreign.has("base.") and foreign.has("L2Norm."):
        raise CheckpointError(
            f"{file}: holds an SSD of lzx1413/PytorchSSD, whose L2Norm works in place: its layers after"
            " conv4_3 were trained on the normalised map, which no network here computes; import an SSD of"
            " amdegroot/ssd.pytorch or Caffe instead"
        )
    for prefix, origin in BACKBONES.items():
        foreign = Foreign(file, origin, tensors)
        if foreign.has(prefix):
            return _import_backbone(foreign, wanted)
    known = ", ".join([*(origin for origin, _ in DETECTORS.values()), *BACKBONES.values()])
    example = f", such as {next(iter(tensors))!r}" if tensors else ""
    raise CheckpointError(f"{file}: has no names of a known format{example}; known: {known}")


def _import_backbone(foreign: Foreign, wanted: Wanted) -> Imported:
    check_name(foreign, wanted, BACKBONE)
    names = vgg16_names(foreign.tensors)
    has_fully_connected = any(own.startswith("fc") for own in names)
    for place, layer in VGG_PLACES.items():
        if layer.startswith("fc") and not has_fully_connected:
            continue  # the features alone
        for kind in ("weight", "bias"):
            if f"{layer}.{kind}" not in names:
                raise CheckpointError(
                    f"{foreign.file}: has the names of {foreign.origin}, but lacks {layer}.{kind}"
                    f" (layer {place} of the list)"
                )
    own = {f"{layer}.{kind}" for layer in VGG_PLACES.values() for kind in ("weight", "bias")}
    taken = {key: theirs for key, theirs in names.items() if key in own}
    foreign.take(taken)  # for its checks
    layers = vgg16_layers(foreign.tensors, wanted.colours)
    return foreign.imported({}, 0, {key: layers[key] for key in taken}, taken.values())

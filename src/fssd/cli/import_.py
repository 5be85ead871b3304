"""fssd import FILE --model NAME --out DIR [--classes voc|coco|FILE.txt] [--colours bgr|rgb]"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

import tyro

from fssd.cli.options import parse, spare_inputs
from fssd.cli.result import add_result
from fssd.config.run_files import FINAL_FILE
from fssd.errors import CheckpointError, ConfigError

if TYPE_CHECKING:
    from fssd.importers.foreign import Imported


@dataclass(frozen=True)
class Import:
    """Turn published weights of Caffe, PyTorch or darknet into a model file of this package."""

    file: Annotated[Path, tyro.conf.Positional]
    """A .caffemodel, .pth or .safetensors file, told by its content, or a .weights file."""
    model: str
    """The model it holds, such as fssd300-vgg16; or a backbone alone: vgg16, resnet50-caffe, darknet19."""
    out: Path
    """Folder to write final.safetensors (or backbone.safetensors) into."""
    classes: str | None = None
    """Class names: voc, coco, or a text file with one a line; by default by their number."""
    colours: Literal["bgr", "rgb"] | None = None
    """Channel order of the images that the file was trained on; bgr for Caffe's networks."""
    priors: Literal["voc", "coco"] | None = None
    """Table of prior sizes; by default coco for 80 classes, else voc."""
    align_corners: bool | None = None
    """How a PyTorch FSSD resized maps, which its file does not tell; by default as its project mostly did."""


def run(arguments: list[str]) -> int:
    command = parse(Import, arguments)
    from fssd.backbones import BACKBONES

    if command.model in BACKBONES and (command.classes or command.priors):
        raise ConfigError(
            f"{command.model} is a backbone without classes and priors; leave those options out"
        )
    form = file_format(command.file)
    if command.model in BACKBONES:
        _require_room_for_backbone(command)
    if form == "caffemodel" and command.align_corners is not None:
        raise ConfigError("Caffe always aligns corners; leave --align-corners out")
    if form == "darknet" and (command.align_corners is not None or command.colours):
        raise ConfigError("darknet reads RGB and resizes no maps; leave --colours and --align-corners out")
    if form == "darknet":
        from fssd.importers.yolov2_weights import import_darknet

        found = import_darknet(command.file, command.model, command.priors)
    elif form == "caffemodel":
        from fssd.importers.caffe import import_caffe

        colours = command.colours or "bgr"
        found = import_caffe(command.file, command.model, colours=colours, priors=command.priors)
    else:
        from fssd.importers.pth import import_pth

        choices = (command.colours, command.priors, command.align_corners)
        found = import_pth(command.file, command.model, *choices)
    if found.num_classes == 0:
        _write_backbone(command, found)
    else:
        _write_model(command, found, form)
    print(f"unused: {', '.join(found.unused) or 'nothing'}")
    add_result(model=command.model, tensors=len(found.tensors), options=found.options, unused=found.unused)
    return 0


def file_format(file: Path) -> Literal["caffemodel", "darknet", "pth", "safetensors"]:
    """The format of a file of weights, by its first bytes; darknet's by its name.

    Raises CheckpointError if it cannot be read or its download failed.
    """
    from fssd.backbones.darknet_weights import is_darknet
    from fssd.weights.content import refuse_failed_download
    from fssd.weights.pretrained import is_safetensors

    try:
        with file.open("rb") as handle:
            head = handle.read(64)
        refuse_failed_download(file, head)
        if is_safetensors(file):
            return "safetensors"
    except FileNotFoundError as error:
        raise CheckpointError(f"{file}: there is no such file; check the path") from error
    except OSError as error:
        raise CheckpointError(f"{file}: cannot be read ({error.strerror or error})") from error
    if is_darknet(file):
        return "darknet"
    if head.startswith((b"PK\x03\x04", b"\x80")):  # torch's archive, and the bare pickle before it
        return "pth"
    return "caffemodel"


def _write_model(command: Import, found: Imported, form: str) -> None:
    from fssd.atomic import make_folder
    from fssd.data.class_names import names_for
    from fssd.importers.imported_model import write_imported
    from fssd.weights.checkpoint import require_room

    classes = names_for(found.num_classes, command.classes)
    require_room(command.out, "imported_format")
    make_folder(command.out)
    target = command.out / FINAL_FILE
    facts = {"imported_format": form}
    network = write_imported(target, command.model, found, classes, command.file, facts)
    parameters = sum(p.numel() for p in network.parameters())
    print(f"model: {command.model}, {parameters:,} parameters, {len(found.tensors)} tensors taken")
    print(f"options: {' '.join(f'{key}={value}' for key, value in found.options.items()) or 'none'}")
    if summary := network.heads.summary():
        print(summary)
    print(f"classes: {len(classes)}, {classes[0]} ... {classes[-1]}")
    print(f"written: {target}")
    add_result(file=target, classes=classes)


def _require_room_for_backbone(command: Import) -> None:
    from fssd.importers.imported_backbone import BACKBONE_FILE, require_room_for_backbone

    spare_inputs([command.file], [command.out / BACKBONE_FILE])
    require_room_for_backbone(command.out, command.model, command.file)


def _write_backbone(command: Import, found: Imported) -> None:
    from fssd.atomic import make_folder
    from fssd.importers.imported_backbone import write_imported_backbone

    make_folder(command.out)
    target = write_imported_backbone(command.out, command.model, found, command.file)
    print(f"backbone: {command.model}, {len(found.tensors)} tensors taken; start a training from it with")
    model = "yolov2-416" if command.model == "darknet19" else f"fssd300-{command.model}"
    print(f"  fssd train --model {model} --weights {target} ...")
    print(f"written: {target}")
    add_result(file=target)

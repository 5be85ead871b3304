"""YOLOv2 from darknet's `.weights`, whose numbers have no names: the length tells what a file holds."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from fssd.backbones.darknet import Darknet19
from fssd.backbones.darknet_weights import DarknetFile, count, cut, read_darknet
from fssd.errors import CheckpointError, ConfigError, nearest
from fssd.heads.yolov2.anchors import NAMES
from fssd.importers.foreign import Imported
from fssd.model.build import build_model
from fssd.model.designs import SYSTEMS, find_design
from fssd.model.network import Network
from fssd.necks.yolov2 import GENERATIONS
from fssd.weights.checkpoint import check_finite
from fssd.weights.yolov2_layers import yolov2_order

SYSTEM = SYSTEMS["yolov2"]
BACKBONE = SYSTEM.backbone


def import_darknet(file: Path, name: str, priors: str | None = None) -> Imported:
    """Read a `.weights` file of darknet as the network `name`, a yolov2 of any size or darknet19.

    Generation and number of classes follow from the length of the file, which has to match exactly. priors:
    "voc" or "coco" anchors, which the file does not hold; by default COCO's for 80 classes. Raises
    ConfigError for another name or table, CheckpointError for a file that is damaged or of another network.
    """
    if name == BACKBONE:
        return _import_backbone(file)
    if find_design(name, {})._replace(size=SYSTEM.size) != SYSTEM:
        raise ConfigError(
            f"darknet's .weights are read as yolov2-416 (or another side) or {BACKBONE}, not {name}"
        )
    if priors not in (None, *NAMES):
        raise ConfigError(f"there is no table of anchors {priors!r}{nearest(str(priors), NAMES)}")
    found = read_darknet(file)
    for generation in reversed(GENERATIONS):
        classes = _classes(found, _meta(name, 1, generation))
        if classes:
            options = _options(generation, priors or ("coco" if classes == 80 else "voc"))
            return Imported(options, classes, _tensors(file, found, _meta(name, classes, generation)), ())
    known = (
        f"{found.header + 4 * count(yolov2_order(_meta(name, classes, generation))):,} with {classes} classes"
        f" ({generation})"
        for classes in (20, 80)
        for generation in reversed(GENERATIONS)
    )
    raise CheckpointError(
        f"{file}: has {found.bytes:,} bytes, which a YOLOv2 has with no number of classes; it would be"
        f" {', '.join(known)}; the file is incomplete or of another network"
    )


def _options(generation: int, priors: str) -> dict[str, Any]:
    """The options of `build_model` that the weights were trained with, where they are not the defaults."""
    options: dict[str, Any] = {} if priors == SYSTEM.priors else {"priors": priors}
    return (
        options
        if generation == GENERATIONS[-1]
        else {**options, "generation": generation, "geometry": "warp"}
    )


def _meta(name: str, classes: int, generation: int) -> Network:
    with torch.device("meta"):
        return build_model(name, classes, generation=generation)


def _classes(found: DarknetFile, network: Network) -> int:
    """How many classes the file has more than 0 if it is a network like this one, which has one; else 0."""
    shapes = yolov2_order(network)
    anchors = len(network.get_buffer("heads.anchors"))
    a_class = anchors * (shapes["heads.last.weight"][1] + 1)  # floats
    more, rest = divmod(len(found.floats) - count(shapes), a_class)
    return 0 if rest else max(0, 1 + more)


def _tensors(file: Path, found: DarknetFile, network: Network) -> dict[str, Tensor]:
    tensors = cut(found.floats, yolov2_order(network))
    for key, tensor in tensors.items():
        check_finite(file, key, tensor)
    for key in network.state_dict():
        if key.endswith("num_batches_tracked"):
            tensors[key] = torch.tensor(0)
    tensors["heads.seen"] = torch.tensor(found.seen)
    return tensors


def _import_backbone(file: Path) -> Imported:
    with torch.device("meta"):
        backbone = Darknet19()
    tensors = backbone.read(file)
    if tensors is None:
        raise CheckpointError(f"{file}: is no darknet file by its name; rename it to end in .weights")
    for key, tensor in tensors.items():
        check_finite(file, key, tensor)
    return Imported({}, 0, dict(tensors), ())

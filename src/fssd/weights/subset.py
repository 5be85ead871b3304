"""Some classes of a trained detector as a detector of its own, such as VOC's of a COCO model (SSD, 3.4)."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import torch
from torch import Tensor, nn

from fssd.atomic import make_folder
from fssd.errors import ConfigError, nearest
from fssd.model.network import Network
from fssd.weights.checkpoint import holds_run, load_model, model_file, write_tensors

COCO_NAMES = {
    "aeroplane": "airplane",
    "motorbike": "motorcycle",
    "sofa": "couch",
    "pottedplant": "potted plant",
    "diningtable": "dining table",
    "tvmonitor": "tv",
}
"""COCO's name of each class that VOC calls otherwise."""

_OTHER_NAMES = COCO_NAMES | {coco: voc for voc, coco in COCO_NAMES.items()}


def write_subset(
    model: Path, wanted: Sequence[str], folder: Path, backbone: nn.Module | None = None
) -> tuple[Path, tuple[str, ...]]:
    """Write `folder`/final.safetensors with the classes `wanted` of a model; return it and their old names.

    model: a model file or the folder of a run. backbone: the module, for a model with one of the user's own.
    The file's other facts are kept, but for what was measured.

    Raises CheckpointError for a file that is no model; ConfigError for classes that it lacks, and for a
    folder where the result would be mistaken for the model it came from, or replace it.
    """
    source = model_file(model)
    target = folder / "final.safetensors"
    if folder.resolve() == source.parent.resolve() or holds_run(folder):
        raise ConfigError(f"{folder}: holds another model; choose a folder of its own")
    network, classes, facts = load_model(source, backbone)
    places = find_classes(classes, wanted)
    tensors = take_classes(network, places)
    make_folder(folder)
    # What was measured was measured on all classes.
    kept = {key: value for key, value in facts.items() if key != "metrics"}
    write_tensors(target, tensors, {**kept, "classes": list(wanted), "subset_of": list(classes)})
    return target, tuple(classes[place] for place in places)


def find_classes(classes: Sequence[str], wanted: Sequence[str]) -> list[int]:
    """Where in `classes` each wanted name stands, under it or under VOC's or COCO's other name for it.

    Raises ConfigError for no names, an unknown one, and two that mean one class.
    """
    if not wanted:
        raise ConfigError("no classes are named; give voc, coco, or names of the model's classes")
    places: list[int] = []
    for name in wanted:
        own = name if name in classes else _OTHER_NAMES.get(name, name)
        if own not in classes:
            raise ConfigError(f"the model has no class {name!r}{nearest(name, classes)}")
        place = list(classes).index(own)
        if place in places:
            raise ConfigError(f"class {name!r} is named twice; each class can be taken once")
        places.append(place)
    return places


def take_classes(network: Network, places: Sequence[int]) -> dict[str, Tensor]:
    """The state dict of the network that knows only some classes, in the order of `places`.

    places: indices of classes, without background. Of each last convolution of a class predictor, output
    i * (C' + 1) + v comes from i * (C + 1) + c for prior i, new class v and old class c, and background
    stays first. All else is as it was, so logits of the classes left are equal.
    """
    rows = torch.tensor([0, *(1 + place for place in places)])
    tensors = dict(network.state_dict())
    for name in network.heads.class_layers():
        for key in (f"heads.{name}.weight", f"heads.{name}.bias"):
            by_prior = tensors[key].unflatten(0, (-1, network.spec.num_classes + 1))  # (A, C + 1, ...)
            tensors[key] = by_prior[:, rows.to(by_prior.device)].flatten(0, 1)
    return tensors

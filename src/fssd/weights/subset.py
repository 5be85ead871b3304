"""A detector of some classes of a trained one, for example of VOC's classes in a COCO model (SSD, 3.4)."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from torch import Tensor

from fssd.atomic import make_folder
from fssd.config.run_files import FINAL_FILE
from fssd.data.tiles import FACT as TILES
from fssd.errors import ConfigError, nearest
from fssd.model.network import Network
from fssd.weights.checkpoint import load_model, model_file, read_tensors, require_room, write_tensors
from fssd.weights.transfer import by_prior, rows_of

# Classes that VOC and COCO spell differently.
VOC_TO_COCO = {
    "aeroplane": "airplane",
    "motorbike": "motorcycle",
    "sofa": "couch",
    "pottedplant": "potted plant",
    "diningtable": "dining table",
    "tvmonitor": "tv",
}
# What a subset has otherwise than its model, or a later training or evaluation changes.
_PASSING = {"classes", "class_scores", TILES, "iteration", "metrics"}
OTHER_NAMES = VOC_TO_COCO | {coco: voc for voc, coco in VOC_TO_COCO.items()}


class WrittenSubset(NamedTuple):
    """file: what was written. before: the names of its classes in the model. had_scores: whether the model
    had thresholds of its classes, which were chosen among all of them and are left out.
    """

    file: Path
    before: tuple[str, ...]
    had_scores: bool


def write_subset(model: Path, wanted: Sequence[str], folder: Path, *, replace: bool = True) -> WrittenSubset:
    """Write `folder`/final.safetensors with the classes `wanted` of a model.

    model: see `model_file`. replace: whether a subset of another model may be replaced, as one of the same
    model always is. The new file keeps the model's facts except its metrics and the thresholds of its
    classes, which were measured among all of them.
    Raises CheckpointError for a file that is not a model; ConfigError for classes that it lacks, and for a
    folder in which the result would replace a model or be mistaken for one of a run.
    """
    source = model_file(model)
    if folder.resolve() == source.parent.resolve():
        raise ConfigError(f"{folder}: holds another model; choose a folder of its own")
    require_room(folder, "subset_of")
    network, classes, facts = load_model(source)
    indices = find_classes(classes, wanted)
    facts = {**facts, "subset_of": list(classes)}
    target = folder / FINAL_FILE
    if not replace and target.exists() and _lasting(read_tensors(target)[1]) != _lasting(facts):
        problem = "holds a subset of another model"
        raise ConfigError(f"{folder}: {problem}; name a folder with --out, this one if it may be replaced")
    tensors = take_classes(network, indices)
    make_folder(folder)
    kept = {key: value for key, value in facts.items() if key not in ("metrics", "class_scores")}
    write_tensors(target, tensors, {**kept, "classes": list(wanted)})
    return WrittenSubset(target, tuple(classes[index] for index in indices), bool(facts.get("class_scores")))


def _lasting(facts: Mapping[str, Any]) -> dict[str, Any]:
    """The facts by which subsets of one model are known."""
    return {key: value for key, value in facts.items() if key not in _PASSING}


def find_classes(classes: Sequence[str], wanted: Sequence[str]) -> list[int]:
    """The index in `classes` of each wanted name, which may also be VOC's or COCO's spelling of the class.

    Raises ConfigError for no names, an unknown one, and two names of one class.
    """
    if not wanted:
        raise ConfigError("no classes are named; give voc, coco, or names of the model's classes")
    indices: list[int] = []
    for name in wanted:
        own = name if name in classes else OTHER_NAMES.get(name, name)
        if own not in classes:
            raise ConfigError(f"the model has no class {name!r}{nearest(name, classes)}")
        index = classes.index(own)
        if index in indices:
            raise ConfigError(f"class {name!r} is named twice; each class can be taken once")
        indices.append(index)
    return indices


def take_classes(network: Network, indices: Sequence[int]) -> dict[str, Tensor]:
    """The state dict of the same network with only the classes `indices` (without background), in that order.

    Output i * (C' + 1) + v of a class predictor of multibox, for prior i and new class v, is the old output
    i * (C + 1) + c of class c. Background, or what else stands before the classes, stays first. The logits of
    the kept classes do not change.
    """
    before = network.heads.before_classes
    rows = rows_of(indices, before)
    tensors = dict(network.state_dict())
    for name in network.heads.class_layers():
        for key in [
            key for key in tensors if key.rpartition(".")[0] == f"heads.{name}" and tensors[key].ndim
        ]:
            rows_by_prior = by_prior(tensors[key], before + network.spec.num_classes)
            tensors[key] = rows_by_prior[:, rows.to(rows_by_prior.device)].flatten(0, 1)
    return tensors

"""What a run's files tell about its data: names and numbers, no paths."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import numpy as np

from fssd.config.train_config import TrainConfig
from fssd.data.class_counts import NAMED, ClassCounts, count_classes, rare_classes
from fssd.data.sample import DataSet
from fssd.evaluation.known_classes import objects_per_class
from fssd.training.splits import TrainingSplits


def data_facts(splits: TrainingSplits, trained: ClassCounts) -> dict[str, Any]:
    """JSON values for a model's file: name and format of the data set, and of each split its name, images,
    and objects by class.

    trained: the objects that training learns. Those of validation are the ones that are measured.
    """
    config, train, val = splits.config, splits.train, splits.val
    assert config.data is not None
    facts: dict[str, Any] = {"name": config.data.name, "format": str(train.facts.get("format", "own"))}
    facts["train"] = _part(config.train_split or "all images", train, trained.objects.tolist())
    if val is not None:
        facts["val"] = _part(validation_name(config), val, objects_per_class(val).tolist())
    return facts


def _part(split: str, dataset: DataSet, objects: Iterable[int]) -> dict[str, Any]:
    counts = dict(zip(dataset.classes, objects, strict=True))
    return {"split": split, "images": len(dataset), "objects": counts}


def validation_name(config: TrainConfig) -> str:
    """The images that a run is evaluated on, in words: the name of their split, or their share."""
    if config.val_split != "auto":
        return config.val_split or "all images"
    if config.folds:
        return f"fold {config.fold} of {config.folds}"
    return f"{config.val_share:.0%} of the images to train on"


def class_notes(splits: TrainingSplits, trained: ClassCounts) -> list[str]:
    """What is to be known about classes with few objects before hours are spent on them."""
    names = splits.train.classes
    absent = [name for name, count in zip(names, trained.objects, strict=True) if not count]
    notes = []
    if absent:
        one = len(absent) == 1
        what = "class has" if one else f"of {len(names)} classes have"
        notes.append(
            f"{len(absent)} {what} no training object and will not be found: {', '.join(absent[:NAMED])}"
        )
    if rare := rare_classes(names, trained.images):
        notes.append(rare)
    if splits.val is not None:
        measured = objects_per_class(splits.val)
        rows = np.flatnonzero((measured == 0) & (trained.objects > 0))
        if len(rows):
            listed = ", ".join(names[row] for row in rows[:NAMED])
            what = "class has" if len(rows) == 1 else "classes have"
            notes.append(f"{len(rows)} {what} no validation object, so mAP does not cover: {listed}")
    return notes


def count_trained(config: TrainConfig, dataset: DataSet) -> ClassCounts:
    """The objects of a data set that a run learns."""
    return count_classes(dataset, config.difficult, config.crowds)

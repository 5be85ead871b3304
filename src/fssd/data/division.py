"""Divides a training split into images to train on and to validate on, where there is no split for that.

Each group of images that belong together draws a number from a hash of the seed and its name, so an image
keeps its side when others are added. Only where a class would be missing or rare on one side, groups change
sides.
"""

from __future__ import annotations

import hashlib
import json
from collections import Counter, defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import chain
from pathlib import Path
from typing import Any

import numpy as np

from fssd.atomic import atomic_write
from fssd.data.columns import take
from fssd.data.groups import group_images
from fssd.data.picture_identity import bare_name, is_called, own_names, renamed_ids
from fssd.data.sample import DataSet, Record
from fssd.errors import ConfigError, DataError

DIVISION_FILE = "division.json"
LEAST, MOST = 0.5, 2.0  # of the share that validation should have: within these limits a class is left alone


@dataclass(frozen=True)
class Division:
    """The images (by id) on each side. how: the settings it was made with; notes: what to know about it.

    pictures: what those are called whose id is no name, such as COCO's numbers, which may be of other
    pictures in another data set; None if an earlier version divided, which kept ids alone.
    """

    train: frozenset[str]
    val: frozenset[str]
    how: Mapping[str, float]
    notes: tuple[str, ...] = ()
    pictures: Mapping[str, str] | None = None

    def apply(self, dataset: DataSet) -> tuple[DataSet, DataSet]:
        """The two sides of a data set; an image in neither is left out. Problems stay with the first."""
        ids = [record.image_id for record in dataset.records]
        train, val = (
            take(dataset.records, [index for index, key in enumerate(ids) if key in side])
            for side in (self.train, self.val)
        )
        facts = dict(dataset.facts)
        if "images" in facts:  # those of this side, and those that cannot be used
            facts["images"] += len(train) - len(dataset)
        return replace(dataset, records=train, facts=facts), replace(
            dataset, records=val, problems=(), facts={}
        )

    def renamed(self, records: Sequence[Record]) -> Division:
        """The same sides by the ids that images have in this version."""
        now = renamed_ids(chain(self.train, self.val), records)
        train, val = (frozenset(now.get(key, key) for key in side) for side in (self.train, self.val))
        return replace(self, train=train, val=val)

    def other_pictures(self, records: Iterable[Record]) -> list[tuple[Record, str]]:
        """The records that have an id of this division but another picture, each with the name of its own."""
        return [
            (record, name)
            for record in records
            if (name := self._name(record.image_id)) is not None and not is_called(record, name)
        ]

    def trained(self, records: Iterable[Record]) -> list[Record]:
        """Those of the training side, also where the same pictures have other ids now."""
        names: dict[str, list[str]] = defaultdict(list)
        for key in self.train:
            if (name := self._name(key)) is not None:
                names[_stem(name)].append(name)
        return [record for record in records if self._was_trained(record, names)]

    def _was_trained(self, record: Record, names: Mapping[str, Sequence[str]]) -> bool:
        """names: of the pictures of the training side, by stem."""
        key, own = record.image_id, self._name(record.image_id)
        if (key in self.train or key in self.val) and (own is None or is_called(record, own)):
            return key in self.train
        return any(is_called(record, name) for name in names.get(_stem(record.path.name), ()))

    def _name(self, image_id: str) -> str | None:
        """What the picture is called; None if that is not known."""
        if self.pictures is None or not (image_id in self.train or image_id in self.val):
            return None
        return self.pictures.get(image_id, image_id)

    def save(self, folder: Path) -> None:
        content: dict[str, Any] = {**self.how, "train": sorted(self.train), "val": sorted(self.val)}
        if self.pictures is not None:
            content["pictures"] = dict(self.pictures)
        atomic_write(folder / DIVISION_FILE, json.dumps(content, indent=0))


def read_division(folder: Path) -> Division | None:
    """The division that a run was trained with; None if its folder holds none. Raises DataError."""
    file = folder / DIVISION_FILE
    try:
        content = json.loads(file.read_bytes())
        train, val = (frozenset(map(str, content.pop(side))) for side in ("train", "val"))
        pictures = content.pop("pictures", None)
        names = None if pictures is None else {str(key): str(name) for key, name in pictures.items()}
        return Division(train, val, content, pictures=names)
    except FileNotFoundError:
        return None
    except (OSError, ValueError, TypeError, AttributeError, KeyError) as error:
        raise DataError(f"is damaged ({error}); restore it", file=file) from error


def divide(dataset: DataSet, seed: int, share: float = 0.15, folds: int = 0, fold: int = 0) -> Division:
    """A part of the images for validation: a share of them, or with `folds` the fold of that number (from 1).

    Raises DataError if the images are too few, or too much alike, to be divided, and ConfigError for a share
    or a fold that is none.
    """
    if folds and not 1 <= fold <= folds:
        raise ConfigError(f"fold is {fold} of {folds} folds; it must be between 1 and {folds}")
    if not folds and not 0 < share < 1:
        raise ConfigError(f"share is {share}; it must be above 0 and below 1")
    groups = group_images(dataset.records)
    members: dict[str, list[int]] = defaultdict(list)
    for index, key in enumerate(groups.keys):
        members[key].append(index)
    parts = max(folds, 2)
    if len(members) < parts:
        raise DataError(
            f"its {len(dataset)} usable images are {len(members)} groups that belong together, too few for"
            f" {parts} parts; give a validation split, or --val-split none"
        )
    labels = [record.labels for record in dataset.records]
    classes = {key: np.unique(np.concatenate([labels[i] for i in own])) for key, own in members.items()}
    sides = _fold_of(members, classes, seed, folds) if folds else _shared(members, classes, seed, share)
    wanted = fold - 1 if folds else 1
    ids = [record.image_id for record in dataset.records]
    val = frozenset(ids[i] for key, own in members.items() if sides[key] == wanted for i in own)
    how = {"seed": seed, "folds": folds, "fold": fold} if folds else {"seed": seed, "share": share}
    return Division(frozenset(ids) - val, val, how, groups.notes, _pictures(dataset.records))


def _pictures(records: Sequence[Record]) -> dict[str, str]:
    """Names of the pictures that ids do not name: those of the files alone, which stay wherever these lie.

    Where several files share one it is the path below the folder of them all.
    """
    counts = Counter(record.path.name for record in records)
    return {
        record.image_id: record.path.name if counts[record.path.name] == 1 else name
        for record, name in zip(records, own_names(records), strict=True)
        if name != record.image_id
    }


def _stem(name: str) -> str:
    return bare_name(name).rpartition("/")[2]


def _draw(key: str, seed: int) -> float:
    """A number in 0..1 for a group."""
    digest = hashlib.blake2b(f"{seed}/{key}".encode("utf-8", "surrogateescape"), digest_size=8).digest()
    return int.from_bytes(digest, "big") / 2**64


def _shared(
    members: Mapping[str, Sequence[int]], classes: Mapping[str, np.ndarray], seed: int, share: float
) -> dict[str, int]:
    """1 for each group of validation, else 0. The draws decide, then each class, the rarest first."""
    order = sorted(members, key=lambda key: _draw(key, seed))
    sides = {key: int(_draw(key, seed) < share) for key in order}
    holders = _holders(order, classes)
    for own in sorted([*holders, order], key=len):  # `order`: of all groups, neither side may be empty
        if len(own) < 2:
            continue
        least = max(1, int(LEAST * share * len(own)))
        most = min(len(own) - 1, max(least, int(MOST * share * len(own) + 1)))
        inside = [key for key in own if sides[key]]
        outside = [key for key in own if not sides[key]]
        sides.update(dict.fromkeys(outside[: max(0, least - len(inside))], 1))
        sides.update(dict.fromkeys(inside[most:], 0))
    return sides


def _fold_of(
    members: Mapping[str, Sequence[int]], classes: Mapping[str, np.ndarray], seed: int, folds: int
) -> dict[str, int]:
    """The fold of each group, from 0: class by class, the rarest first, each to the fold that has fewest."""
    order = sorted(members, key=lambda key: _draw(key, seed))
    sides: dict[str, int] = {}
    total = [0] * folds
    for own in [*sorted(_holders(order, classes), key=len), order]:
        counts = [sum(sides.get(key) == fold for key in own) for fold in range(folds)]
        for key in own:
            if key not in sides:
                sides[key] = min(range(folds), key=lambda fold: (counts[fold], total[fold], fold))
                counts[sides[key]] += 1
                total[sides[key]] += len(members[key])
    return sides


def _holders(order: Sequence[str], classes: Mapping[str, np.ndarray]) -> list[list[str]]:
    """For each class the groups that have an object of it."""
    holders: dict[int, list[str]] = defaultdict(list)
    for key in order:
        for label in classes[key].tolist():
            holders[label].append(key)
    return list(holders.values())

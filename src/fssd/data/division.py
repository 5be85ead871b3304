"""Divides a training split into images to train on and to validate on, where there is no split for that.

Each group of images that belong together draws a number from a hash of the seed and its name, so an image
keeps its side when others are added. Only where a class would be missing or rare on one side, groups change
sides.
"""

from __future__ import annotations

import hashlib
import json
from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np

from fssd.atomic import atomic_write
from fssd.data.columns import take
from fssd.data.groups import group_images
from fssd.data.sample import DataSet
from fssd.errors import ConfigError, DataError

DIVISION_FILE = "division.json"
LEAST, MOST = 0.5, 2.0  # of the share that validation should have: within these limits a class is left alone


@dataclass(frozen=True)
class Division:
    """The images (by id) on each side. how: the settings it was made with; notes: what to know about it."""

    train: frozenset[str]
    val: frozenset[str]
    how: Mapping[str, float]
    notes: tuple[str, ...] = ()

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

    def save(self, folder: Path) -> None:
        content = {**self.how, "train": sorted(self.train), "val": sorted(self.val)}
        atomic_write(folder / DIVISION_FILE, json.dumps(content, indent=0))


def read_division(folder: Path) -> Division | None:
    """The division that a run was trained with; None if its folder holds none. Raises DataError."""
    file = folder / DIVISION_FILE
    try:
        content = json.loads(file.read_bytes())
        train, val = (frozenset(map(str, content.pop(side))) for side in ("train", "val"))
        return Division(train, val, content)
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
    return Division(frozenset(ids) - val, val, how, groups.notes)


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

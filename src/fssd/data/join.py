"""Several data sets as one: classes are matched by name, image ids stay unique."""

from __future__ import annotations

import re
import shlex
from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import replace
from itertools import islice
from pathlib import Path
from types import MappingProxyType
from typing import Any

import numpy as np

from fssd.data.formats.doubles import same_pictures
from fssd.data.formats.lookup import composed
from fssd.data.same_files import true_paths
from fssd.data.sample import DataSet, Problem, Record
from fssd.errors import DataError, nearest


def join_classes(groups: Sequence[Sequence[str]], renames: Mapping[str, str]) -> tuple[str, ...]:
    """Every class name once, after renaming, in the order of first appearance."""
    return tuple(dict.fromkeys(renames.get(name, name) for group in groups for name in group))


def near_misses(names: Sequence[str]) -> list[tuple[str, str]]:
    """Pairs of names that differ in capitals, spaces, hyphens, underscores and forms of Unicode only."""
    alike: dict[str, list[str]] = {}
    for name in names:
        alike.setdefault(re.sub(r"[\s_-]+", "", composed(name).casefold()), []).append(name)
    return [(group[0], other) for group in alike.values() for other in group[1:]]


def join_sets(parts: Sequence[DataSet], classes: Sequence[str], renames: Mapping[str, str]) -> DataSet:
    """The records of all parts with labels into `classes`; objects of other classes are dropped.

    An image that loses all its objects is kept as background. An image id that two parts share gets the
    number of its part as a prefix, e.g. `2:000005`.
    """
    counts = Counter(record.image_id for part in parts for record in part.records)
    records: list[Record] = []
    for number, part in enumerate(parts, 1):
        labels = _label_map(part.classes, classes, renames)
        for record in part.records:
            prefix = f"{number}:" if counts[record.image_id] > 1 else ""
            records.append(replace(_relabel(record, labels), image_id=f"{prefix}{record.image_id}"))
    problems = tuple(problem for part in parts for problem in part.problems)
    formats = sorted({str(part.facts["format"]) for part in parts if "format" in part.facts})
    images = sum(int(part.facts.get("images", len(part))) for part in parts)
    facts: dict[str, Any] = {"images": images, "format": "+".join(formats)}
    if (known := category_ids(parts, classes, renames)) is not None:
        facts["category_ids"] = known
    if (numbers := class_numbers(parts, renames)) is not None:
        facts["class_numbers"] = one_numbering([numbers, numbered(classes)])
    return DataSet(tuple(classes), tuple(records), problems, facts)


def shared_pictures(records: Sequence[Record], sizes: Sequence[int], file: Path) -> list[Problem]:
    """A warning that counts the pictures that two of the joined sets have.

    sizes: how many records each set has; pictures that one has twice are told by its own reader.
    """
    left = iter(records)
    each = [list(islice(left, size)) for size in sizes]
    once = [dict(zip(true_paths(one.path for one in part), part, strict=True)).values() for part in each]
    return same_pictures([record for part in once for record in part], file)


def match_classes(data: DataSet, classes: Sequence[str]) -> DataSet:
    """The same images with labels into `classes`; an image with an object of another class is an error."""
    index = {name: label for label, name in enumerate(classes)}
    labels = _label_map(data.classes, classes, {})
    records: list[Record] = []
    problems = list(data.problems)
    for record in data.records:
        unknown = [index for index, label in enumerate(record.labels) if labels[label] < 0]
        for number in unknown:
            name = data.classes[record.labels[number]]
            reason = f"unknown class {name!r}{nearest(name, index)}"
            problems.append(Problem("error", record.source, object_place(record, number, name), reason))
        if not unknown:
            records.append(_relabel(record, labels))
    facts = dict(data.facts)
    if (known := category_ids([data], classes)) is not None:
        facts["category_ids"] = known
    return DataSet(tuple(classes), tuple(records), tuple(problems), facts)


def category_ids(
    sets: Iterable[DataSet], classes: Sequence[str], renames: Mapping[str, str] = MappingProxyType({})
) -> tuple[Any, ...] | None:
    """COCO's ids of the classes that the sets state, each class by its name; None for a class without one.

    None for all if no set states any, or if two state other ids of a class.
    """
    found: dict[str, Any] = {}
    stated = [data for data in sets if data.facts.get("category_ids") is not None]
    for data in stated:
        for name, key in zip(data.classes, data.facts["category_ids"], strict=True):
            if key is not None and found.setdefault(renames.get(name, name), key) != key:
                return None
    return tuple(map(found.get, classes)) if stated else None


def class_numbers(
    sets: Iterable[DataSet], renames: Mapping[str, str] = MappingProxyType({})
) -> dict[str, str] | None:
    """The names of the class numbers in the label files of all sets; None if no set has numbers.

    Empty if a number has two names, so that none of them says what a class is.
    """
    stated = [data.facts["class_numbers"] for data in sets if "class_numbers" in data.facts]
    if not stated:
        return None
    renamed = [{number: renames.get(name, name) for number, name in names.items()} for names in stated]
    return one_numbering(renamed)


def numbered(classes: Sequence[str]) -> dict[str, str]:
    """The classes by their numbers from 0, which are text as in JSON."""
    return {str(number): name for number, name in enumerate(classes)}


def one_numbering(lists: Sequence[Mapping[str, str]]) -> dict[str, str]:
    """Every number with its name; empty if two lists differ in one, or if a list is empty for that reason."""
    found: dict[str, str] = {}
    for names in lists:
        if not names or any(found.setdefault(number, name) != name for number, name in names.items()):
            return {}
    return found


def open_splits(names: Sequence[str], opened_as: Callable[[str], DataSet]) -> dict[str, DataSet]:
    """The data set of each split. Raises DataError for one that cannot be opened; it names the others."""
    opened: dict[str, DataSet] = {}
    faults: list[DataError] = []
    for name in names:
        try:
            opened[name] = opened_as(name)
        except DataError as error:
            faults.append(error)
    if not faults:
        return opened
    first = faults[0]
    if not opened:
        raise first
    reason = f"{first.reason}; the other splits: --splits {shlex.join(opened)}"
    raise DataError(reason, file=first.file, place=first.place) from first


def left_out_of_splits(whole: DataSet, parts: Iterable[DataSet]) -> list[str]:
    """A note that counts the images that no split has; none if there are none."""
    inside = {record.path for data in parts for record in data.records}
    left = [record.path for record in whole.records if record.path not in inside]
    if not left:
        return []
    count = f"{len(left)} images are in no split and left out"
    return [f"{count}, the first is {left[0]}; --splits none takes every image"]


def object_place(record: Record, number: int, name: str) -> str:
    """`object 3 (dog)`, after the image id where one file labels many images. `number` counts from 0."""
    place = f"object {number + 1} ({name})"
    return f"image {record.image_id}, {place}" if record.source.stem != record.path.stem else place


def _label_map(old: Sequence[str], new: Sequence[str], renames: Mapping[str, str]) -> np.ndarray:
    """(len(old),) int64: the new label of each old one, -1 for none."""
    index = {name: label for label, name in enumerate(new)}
    return np.array([index.get(renames.get(name, name), -1) for name in old], np.int64)


def _relabel(record: Record, labels: np.ndarray) -> Record:
    if not len(record.labels):
        return record
    mapped = labels[record.labels]
    kept = mapped >= 0
    return replace(
        record,
        boxes=record.boxes[kept],
        labels=mapped[kept],
        difficult=record.difficult[kept],
        crowd=record.crowd[kept],
        areas=None if record.areas is None else record.areas[kept],
    )

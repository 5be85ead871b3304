"""Finds what is wrong with a data set before training does: `fssd check`.

The readers report faults in label files; here every image is decoded as well and compared with its labels.
Objects are numbered from 1 within their image.
"""

from __future__ import annotations

import hashlib
import os
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import asdict, dataclass, field
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from rich.table import Table
from rich.text import Text

from fssd.data.class_counts import rare_classes, trained_labels
from fssd.data.decode import SUFFIXES, ImageHeader, decode_image, probe_image, read_bytes, read_header
from fssd.data.formats.labels import Corners, box_fault, leaves
from fssd.data.join import join_classes, object_place
from fssd.data.sample import DataSet, Image, Problem, Record
from fssd.data.source import find_reader, list_splits, open_data, other_formats
from fssd.data.split_names import training_split
from fssd.errors import ConfigError, DataError, ImageError
from fssd.storage.folders import is_remote

# Of a record: header, a key that equal images share, pixels.
_Picture = tuple[ImageHeader, bytes, Image | None]
_ALL = "all"  # the name in the report of every image, where there are no splits
_STATE_SIZES = frozenset({"voc", "coco", "cvat", "labelme", "label-studio"})  # the others measure images


class Seen(NamedTuple):
    """A usable image of a split of the report; its pixels are None where images are not decoded."""

    split: str
    classes: tuple[str, ...]
    record: Record
    header: ImageHeader
    image: Image | None


@dataclass(frozen=True)
class SplitCounts:
    """Numbers of one split.

    images: listed. usable: without an error. backgrounds: usable images without an object. objects,
    per_class: on usable images; every class is named. images_per_class: usable images that have one
    to learn from, which crowds are not.
    """

    images: int = 0
    usable: int = 0
    backgrounds: int = 0
    objects: int = 0
    per_class: dict[str, int] = field(default_factory=dict)
    images_per_class: dict[str, int] = field(default_factory=dict)


@dataclass(frozen=True)
class CheckReport:
    """Findings, errors first, and the counts of every split checked. format: of the labels."""

    path: Path
    problems: tuple[Problem, ...]
    splits: dict[str, SplitCounts]
    format: str

    @property
    def errors(self) -> int:
        return sum(problem.severity == "error" for problem in self.problems)

    @property
    def warnings(self) -> int:
        return len(self.problems) - self.errors

    @property
    def ok(self) -> bool:
        """True when there is no error; warnings are allowed."""
        return self.errors == 0

    def table(self, limit: int | None = 50) -> Table:
        """The first `limit` findings (None: all) as a rich table."""
        table = Table(title=f"{self.errors} errors, {self.warnings} warnings", title_justify="left")
        for name in ("", "file", "place", "reason"):
            table.add_column(name, overflow="fold")
        shown = self.problems[:limit]
        for problem in shown:
            style = "red" if problem.severity == "error" else "yellow"
            # Text, because rich would read [..] in a file name as markup
            cells = (str(problem.file), problem.place, problem.reason)
            table.add_row(Text(problem.severity, style=style), *map(Text, cells))
        if len(shown) < len(self.problems):
            table.caption = f"and {len(self.problems) - len(shown)} more"
        return table

    def summary(self) -> Table:
        """Images and objects of each split, and objects per class, as a rich table."""
        table = Table(title=Text(f"{self.path}: {self.format}"), title_justify="left")
        table.add_column("")
        for name in self.splits:
            table.add_column(Text(name), justify="right")
        for row in ("images", "usable", "backgrounds", "objects"):
            table.add_row(row, *(f"{getattr(counts, row):,}" for counts in self.splits.values()))
        table.add_section()
        for name in join_classes([list(counts.per_class) for counts in self.splits.values()], {}):
            cells = (f"{counts.per_class.get(name, 0):,}" for counts in self.splits.values())
            table.add_row(Text(name), *cells)
        return table

    def to_json(self) -> dict[str, Any]:
        """The report as plain values: path, ok, errors, warnings, splits, problems."""
        return {
            "path": str(self.path),
            "format": self.format,
            "ok": self.ok,
            "errors": self.errors,
            "warnings": self.warnings,
            "splits": {name: asdict(counts) for name, counts in self.splits.items()},
            "problems": [{**asdict(problem), "file": str(problem.file)} for problem in self.problems],
        }


def check_data(
    path: Path | str,
    splits: Sequence[str] | None = None,
    decode: bool = True,
    visit: Callable[[Seen], None] | None = None,
    watch: Callable[[str, int, int], None] | None = None,
    images: Path | str | None = None,
) -> CheckReport:
    """Check every image and label of a source.

    splits: by default all, but not trainval if both train and val exist.
    decode: False reads image headers only, which misses damaged images and images of equal content.
    visit: is called with every usable image in turn.
    watch: is called with a split, its images checked so far and all of them.
    images: the folder of the pictures, where they do not lie beside their labels.
    Raises DataError or ConfigError if `path` is no data set; every other fault is in the report.
    """
    path = Path(path)
    problems: list[Problem] = []
    counts: dict[str, SplitCounts] = {}
    seen: dict[bytes, tuple[str, Path]] = {}
    for name, split in _asked(path, splits):
        counter = None if watch is None else partial(watch, name)
        opened = partial(open_data, path, split, images=images)
        found, counts[name] = _check_split(opened, path, name, seen, decode, visit, counter)
        problems += found
    problems += [*_class_problems(path, counts), *_formats_not_read(path)]
    unique = dict.fromkeys(problems)  # splits that overlap report the same fault
    ordered = sorted(unique, key=lambda item: (item.severity, str(item.file), _natural(item.place)))
    return CheckReport(path, tuple(ordered), counts, find_reader(path)[0].name)


def _formats_not_read(path: Path) -> Iterator[Problem]:
    for name in other_formats(path):
        reason = f"labels in the format {name} lie there too; they are not read"
        yield Problem("warning", path, "", reason)


def _asked(path: Path, splits: Sequence[str] | None) -> list[tuple[str, str | None]]:
    """(name in the report, split to open) of each split."""
    if splits is not None:
        return [(_ALL, None) if name == "none" else (name, name) for name in splits]
    names = list_splits(path)
    if {"train", "val"} <= set(names):
        names = tuple(name for name in names if name != "trainval")
    return [(name, name) for name in names] or [(_ALL, None)]


def _check_split(
    opened: Callable[[], DataSet],
    path: Path,
    name: str,
    seen: dict[bytes, tuple[str, Path]],
    decode: bool,
    visit: Callable[[Seen], None] | None,
    watch: Callable[[int, int], None] | None,
) -> tuple[list[Problem], SplitCounts]:
    try:
        data = opened()
    except (DataError, ConfigError) as error:
        return [_problem(error, path)], SplitCounts()
    problems = list(data.problems)
    usable: list[Record] = []
    shared: list[tuple[Record, str, Path]] = []
    for number, (record, read) in enumerate(_pictures(data.records, decode), 1):
        if watch is not None:
            watch(number, len(data))
        if isinstance(read, ImageError):
            problems.append(_problem(read, record.path))
            continue
        header, key, image = read
        other, first = seen.setdefault(key, (name, record.path))
        if other != name:
            shared.append((record, other, first))
        found = [*_image_problems(record, header, data), *_box_problems(record, header, data.classes)]
        problems += found
        if all(problem.severity == "warning" for problem in found):
            usable.append(record)
            if visit is not None:
                visit(Seen(name, data.classes, record, header, image))
    counts = _count(data, usable)
    place = "" if name == _ALL else f"split {name!r}"
    problems += _shared_problems(path, place, shared, len(data))
    if counts.usable and not counts.objects:
        reason = f"none of its {counts.usable} usable images has an object; add labels or leave it out"
        problems.append(Problem("error", path, place, reason))
    return problems, counts


def _pictures(records: Sequence[Record], decode: bool) -> Iterator[tuple[Record, _Picture | ImageError]]:
    """Every record with its picture, in order; decoding runs in threads, a few images ahead."""
    if not decode:
        yield from ((record, _read(record, decode)) for record in records)
        return
    workers = min(4, os.cpu_count() or 1)
    with ThreadPoolExecutor(workers) as pool:
        ahead: deque[tuple[Record, Future[_Picture | ImageError]]] = deque()
        for record in records:
            ahead.append((record, pool.submit(_read, record, decode)))
            if len(ahead) > workers:
                first, picture = ahead.popleft()
                yield first, picture.result()
        yield from ((record, picture.result()) for record, picture in ahead)


def _read(record: Record, decode: bool) -> _Picture | ImageError:
    """The header, a key that equal images share, and the image if decoded; or what is wrong with it."""
    try:
        if not decode:
            return read_header(record.picture), _place(record), None
        data = read_bytes(record.picture)
        image = decode_image(data, record.path)
        return probe_image(data, record.path), hashlib.blake2b(data, digest_size=16).digest(), image
    except ImageError as error:
        return error


def _place(record: Record) -> bytes:
    """Equal for records of the same file."""
    stored = record.stored
    file = record.path if stored is None else Path(stored.folder.path(stored.shard))
    offset = 0 if stored is None else stored.offset
    if is_remote(file):
        return f"{file} {offset}".encode()
    facts = file.stat()
    return f"{facts.st_dev} {facts.st_ino} {offset}".encode()


def _shared_problems(
    path: Path, place: str, shared: Sequence[tuple[Record, str, Path]], images: int
) -> Iterator[Problem]:
    """Images that an earlier split has too."""
    others = {other for _, other, _ in shared}
    if len(shared) == images > 1 and len(others) == 1:
        reason = f"all its {images} images are in split {others.pop()!r} too; scores on it are not reliable"
        yield Problem("warning", path, place, reason)
        return
    for record, other, first in shared:
        reason = f"the same image is in split {other!r} as {first}; scores on it are not reliable"
        yield Problem("warning", record.path, "", reason)


def _image_problems(record: Record, header: ImageHeader, data: DataSet) -> Iterator[Problem]:
    suffix = record.path.suffix
    if suffix.lower() not in SUFFIXES[header.format]:
        kind = header.format
        reason = f"is a {kind} file although its name ends in {suffix!r}; it is read as {kind}"
        yield Problem("warning", record.path, "", reason)
    declared, actual = (record.width, record.height), (header.width, header.height)
    if None in declared or declared == actual:
        if header.orientation != 1 and len(record.labels) and not _size_shows_turn(record, header, data):
            turns = f"EXIF turns or mirrors it (orientation {header.orientation})"
            reason = f"{turns}; its boxes must be those of the turned image: look at them in `--report`"
            yield Problem("warning", record.path, "", reason)
        return
    stated = f"its labels in {record.source} state {record.width} x {record.height}"
    if header.turned and declared == actual[::-1]:
        turned = f"EXIF turns this image to {actual[0]} x {actual[1]}"
        reason = f"{turned}, {stated}: redo them on the turned image"
    else:
        reason = f"is {actual[0]} x {actual[1]} pixels, {stated}: the boxes do not fit this image"
    yield Problem("error", record.path, "", reason)


def _size_shows_turn(record: Record, header: ImageHeader, data: DataSet) -> bool:
    """Whether the labels state the size of the turned image, which is another than that of the stored one."""
    formats = str(data.facts.get("format")).split("+")  # several of joined sources
    is_stated = record.width is not None and set(formats) <= _STATE_SIZES
    return is_stated and header.turned and header.width != header.height


def _box_problems(record: Record, header: ImageHeader, classes: Sequence[str]) -> Iterator[Problem]:
    size = (header.width, header.height)
    known: dict[tuple[int, Corners], int] = {}
    for number, (row, label) in enumerate(zip(record.boxes.tolist(), record.labels.tolist(), strict=True)):
        box: Corners = (row[0], row[1], row[2], row[3])
        place = object_place(record, number, classes[label])
        if record.width is None and (fault := box_fault(box, size)):  # the reader had no size to compare
            yield Problem("error", record.source, place, fault)
        elif record.width is None and leaves(box, size):
            reason = f"box leaves the image of {size[0]} x {size[1]}; it is clipped"
            yield Problem("warning", record.source, place, reason)
        if min(box[2] - box[0], box[3] - box[1]) < 1:
            reason = f"box is {box[2] - box[0]:.3g} x {box[3] - box[1]:.3g} pixels, too small to be detected"
            yield Problem("warning", record.source, place, reason)
        first = known.setdefault((label, box), number)
        if first != number:
            reason = f"repeats object {first + 1}: same class, same box"
            yield Problem("warning", record.source, place, reason)


def _count(data: DataSet, usable: Sequence[Record]) -> SplitCounts:
    labels = np.concatenate([np.zeros(0, np.int64), *(record.labels for record in usable)])
    seen = [np.zeros(0, np.int64), *(np.unique(trained_labels(record)) for record in usable)]
    per_class, images = (
        np.bincount(rows, minlength=len(data.classes)) for rows in (labels, np.concatenate(seen))
    )
    return SplitCounts(
        images=int(data.facts.get("images", len(data))),
        usable=len(usable),
        backgrounds=sum(not len(record.labels) for record in usable),
        objects=len(labels),
        per_class=dict(zip(data.classes, per_class.tolist(), strict=True)),
        images_per_class=dict(zip(data.classes, images.tolist(), strict=True)),
    )


def _class_problems(path: Path, counts: dict[str, SplitCounts]) -> Iterator[Problem]:
    names = join_classes([list(split.per_class) for split in counts.values()], {})
    empty = [name for name in names if not any(split.per_class.get(name) for split in counts.values())]
    if empty:
        reason = f"{len(empty)} of {len(names)} classes have no object in any split: {', '.join(empty)}"
        yield Problem("warning", path, "classes", reason)
    train = counts.get(training_split(list(counts)) or _ALL, SplitCounts())
    own = tuple(train.images_per_class)
    crowds = [name for name in own if train.per_class[name] and not train.images_per_class[name]]
    if crowds:
        reason = (
            f"training has nothing but crowds of {', '.join(crowds)}, which are not learned without --crowds"
        )
        yield Problem("warning", path, "classes", reason)
    if reason := rare_classes(own, np.array([train.images_per_class[name] for name in own], np.int64)):
        yield Problem("warning", path, "classes", reason)


def _problem(error: DataError | ConfigError, path: Path) -> Problem:
    if isinstance(error, DataError):
        return Problem("error", error.file or path, error.place, error.reason)
    return Problem("error", path, "", str(error))


def _natural(place: str) -> tuple[tuple[int, str], ...]:
    """Sorts `object 9` before `object 10`."""
    return tuple((int(word), "") if word.isdecimal() else (-1, word) for word in place.split())

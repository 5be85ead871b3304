"""Opens a data set of any format: a path becomes a DataSet.

A path is a folder or label file of a format in `READERS`, or a YAML that joins several of these, selects and
orders classes, and renames them. Its paths are relative to the YAML,
or else to the working directory; "voc0712" is the name of a packaged one:

    classes: [dog, cat, person]
    map: {puppy: dog, kitten: cat}
    sources:
      - {data: VOCdevkit, split: {train: 2007_trainval+2012_trainval, val: 2007_test}}
      - {data: coco, images: pictures}

`images` is the folder of the pictures where they do not lie beside their labels.
"""

from __future__ import annotations

import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from fssd.config.config_files import packaged
from fssd.counted import counted
from fssd.data.archive import is_archive, unpacked
from fssd.data.columns import compact
from fssd.data.decode import IMAGE_EXTENSIONS
from fssd.data.formats.coco import COCO
from fssd.data.formats.createml import CREATEML
from fssd.data.formats.csv_boxes import CSV
from fssd.data.formats.cvat import CVAT
from fssd.data.formats.label_studio import LABEL_STUDIO
from fssd.data.formats.labelme import LABELME
from fssd.data.formats.reader import Reader
from fssd.data.formats.shards import SHARDS
from fssd.data.formats.via import VIA
from fssd.data.formats.voc import VOC
from fssd.data.formats.yolo import YOLO
from fssd.data.formats.yolo_yaml import find_yaml, has_labels_outside, read_yaml
from fssd.data.join import join_classes, join_sets, match_classes, near_misses, shared_pictures
from fssd.data.label_cache import read_labels
from fssd.data.sample import DataSet, Problem
from fssd.data.unrecognised import unrecognised
from fssd.errors import ConfigError, DataError, ImageError, LabelError, nearest, shown
from fssd.storage.folders import is_remote


@dataclass(frozen=True)
class _Part:
    """One entry of `sources`; with splits None, the name of a split is passed on unchanged.

    place: where it stands in the YAML.
    """

    path: Path
    splits: dict[str, str | None] | None
    images: Path | None
    place: str


@dataclass(frozen=True)
class _Joined:
    """The content of a YAML that joins sources."""

    classes: tuple[str, ...] | None
    renames: dict[str, str]
    parts: tuple[_Part, ...]


def open_data(
    path: Path | str,
    split: str | None = None,
    classes: Sequence[str] | None = None,
    images: Path | str | None = None,
) -> DataSet:
    """Records and problems of one split of any known source; images are not decoded.

    split: as the source names it, `+` joins several, None takes all images.
    classes: names in order, such as those of a trained model: labels are matched by name, and an image with
    an object of another class is an error. By default the source's own names.
    images: a folder to look for the pictures in, instead of beside the labels.
    Raises DataError when the source, the split or a class name is missing or the split is empty, and
    ConfigError for an unknown key in a YAML. Faults of single images are in `problems`: see require_usable.
    """
    reader, root = find_reader(Path(path))
    if reader is SHARDS:
        data = reader.read(root, split, classes, None if images is None else Path(images))
    elif images is None:
        data = read_labels(reader, root, split, classes)
    elif Path(images).is_dir():
        data = reader.read(root, split, classes, Path(images))
        data = replace(data, records=compact(data.records))
    else:
        raise DataError("is no folder; give the one that holds the images", file=images)
    return replace(data, problems=(*data.problems, *_similar_classes(data.classes, root)))


def _similar_classes(names: Sequence[str], root: Path) -> list[Problem]:
    return [
        Problem("warning", root, "classes", f"{one!r} and {other!r} differ only in how they are written")
        for one, other in near_misses(names)
    ]


def list_splits(path: Path | str) -> tuple[str, ...]:
    """The splits of a source, e.g. ("train", "val"); empty for a VOC folder without image sets."""
    reader, root = find_reader(Path(path))
    return reader.splits(root)


def find_reader(path: Path) -> tuple[Reader, Path]:
    """The reader of a path's format, and the root it reads: of several formats the first of READERS.

    Raises DataError, which says what was looked for and what the folder holds.
    """
    path = _existing(path)
    for reader in (SHARDS,) if is_remote(path) else READERS:
        root = reader.recognise(path)
        if root is not None:
            return reader, root
    raise unrecognised(path, READERS)


def other_formats(path: Path) -> tuple[str, ...]:
    """The names of the formats that a path holds labels of as well, and that are not read."""
    path = _existing(path)
    taken, root = find_reader(path)
    if taken is SHARDS:
        return ()
    if taken is JOINED:
        others = (name for part in _read_joined(root).parts for name in other_formats(part.path))
        return tuple(dict.fromkeys(others))
    found = [reader for reader in READERS if reader is not taken and _lies_there(reader, path)]
    names = tuple(reader.name for reader in found if not (reader is YOLO and JOINED in found))  # of one YAML
    is_part = taken is YOLO and root.is_file() and path.is_dir() and has_labels_outside(path, root)
    return (*names, f"yolo outside that of {root}") if is_part else names


def _lies_there(reader: Reader, path: Path) -> bool:
    try:
        return reader.recognise(path) is not None
    except DataError:  # of several data sets of that format, say
        return True


def _existing(path: Path) -> Path:
    """The path itself, that of a packaged name, or the folder that an archive is unpacked to.

    What lies in S3 is not looked for yet.
    """
    if is_remote(path):
        return path
    path = path if path.exists() else packaged("data").get(str(path), path)
    if not path.exists():
        raise DataError("there is no such file or folder", file=path)
    return unpacked(path) if is_archive(path) else path


def describe(data: DataSet, path: Path, split: str | None, also: Sequence[str]) -> str:
    """What was recognised, in a line: format, split, images, boxes, classes, and what is not read.

    also: the result of `other_formats`, which looks at all files of a folder: once is enough for all splits.
    """
    boxes = sum(len(record.labels) for record in data.records)
    of = f"split {split}: " if split else ""
    words = f"{shown(path)} is {data.facts.get('format', 'data')}, {of}{counted(len(data), 'image')}"
    words += f", {counted(boxes, 'box')}, {counted(len(data.classes), 'class')}"
    lost = int(data.facts.get("images", len(data))) - len(data)
    notes = sum(problem.severity == "warning" for problem in data.problems)
    words += f"; {counted(lost, 'image')} with errors left out" if lost > 0 else ""
    words += f"; {counted(notes, 'warning')}, see `fssd check`" if notes else ""
    return words + (f"; labels in {' and '.join(also)} lie there too and are not read" if also else "")


def require_usable(data: DataSet, bad_share: float = 0.0) -> None:
    """Raise the first error if more than `bad_share` (0..1) of the images have one or no image is left."""
    errors = [problem for problem in data.problems if problem.severity == "error"]
    total = int(data.facts.get("images", len(data) + len(errors)))
    bad = total - len(data)
    if errors and (not data.records or bad > bad_share * total):
        share = f" ({bad} of {total} images have errors, {bad_share:.1%} are allowed)"
        raise problem_error(errors[0], share)
    if not data.records:
        raise DataError("the data set holds no image")


def print_left_out(data: DataSet) -> None:
    """Print every image that is left out, with its error, to stderr."""
    for problem in data.problems:
        if problem.severity == "error":
            print(f"left out: {problem_error(problem)}", file=sys.stderr)


def problem_error(problem: Problem, note: str = "") -> DataError:
    """The typed error of a problem: ImageError for an image, LabelError for a place in a label file."""
    suffix = problem.file.suffix.lower()
    label = bool(problem.place) or suffix in {".xml", ".txt"}
    kind = ImageError if suffix in IMAGE_EXTENSIONS else LabelError if label else DataError
    return kind(problem.reason + note, file=problem.file, place=problem.place)


def _read_joined(file: Path) -> _Joined:
    content = read_yaml(file)
    _refuse_unknown(content, ("classes", "map", "sources"), file, "")
    classes, renames, sources = (content.get(key) for key in ("classes", "map", "sources"))
    if classes is not None and not (_all_text(classes, list) and len(set(classes)) == len(classes) > 0):
        raise DataError("must be a list of class names, each once", file=file, place="classes")
    if renames is not None and not (_all_text(renames, dict) and _all_text(list(renames.values()), list)):
        raise DataError("must give a new class name for each old one", file=file, place="map")
    if not isinstance(sources, list) or not sources:
        raise DataError("must be a list of `data:` entries", file=file, place="sources")
    parts = tuple(_read_part(entry, f"sources[{number}]", file) for number, entry in enumerate(sources))
    return _Joined(None if classes is None else tuple(classes), dict(renames or {}), parts)


def _read_part(entry: Any, place: str, file: Path) -> _Part:
    if not isinstance(entry, dict) or not isinstance(entry.get("data"), str):
        raise DataError("needs `data:`, the path of a data set", file=file, place=place)
    _refuse_unknown(entry, ("data", "split", "images"), file, place)
    path = _stated_path(entry["data"], file, place)
    images = None if entry.get("images") is None else _stated_path(str(entry["images"]), file, place)
    if find_reader(path)[0] is JOINED:
        raise DataError(f"{path} joins sources itself; list those here instead", file=file, place=place)
    splits = entry.get("split")
    if splits is None:
        return _Part(path, None, images, place)
    if not isinstance(splits, dict) or any(not isinstance(own, str | None) for own in splits.values()):
        reason = "must map each split to one of the source, such as {train: trainval, val: test}"
        raise DataError(reason, file=file, place=f"{place}.split")
    return _Part(path, {str(name): value for name, value in splits.items()}, images, place)


def _stated_path(name: str, file: Path, place: str) -> Path:
    if is_remote(name):
        return Path(name)
    paths = [folder / name for folder in (file.parent, Path())]
    path = next((path for path in paths if path.exists()), None)
    if path is None:
        reason = f"there is no {name}, neither beside this file nor in the working directory"
        raise DataError(reason, file=file, place=place)
    return path


def _find_joined(path: Path) -> Path | None:
    file = find_yaml(path)
    return file if file is not None and "sources" in read_yaml(file) else None


def _joined_splits(file: Path) -> tuple[str, ...]:
    parts = _read_joined(file).parts
    named = [tuple(part.splits) for part in parts if part.splits is not None]
    # If the YAML names splits, only those count: the sources' own names would list the same images again.
    groups = named or [list_splits(part.path) for part in parts]
    names = dict.fromkeys(name for group in groups for name in group)
    apart = {(one, other) for group in groups for one in group for other in group}
    also = {
        other for name in names for other in names if _also_means(name, other) and (name, other) not in apart
    }
    return tuple(name for name in names if name not in also)


def _also_means(split: str, other: str) -> bool:
    """Whether a split of one source stands for that of another, as val does for valid and val2017."""
    return other != split and other.startswith(split) and other != "trainval"


def _joined_classes(file: Path) -> tuple[str, ...]:
    joined = _read_joined(file)
    return joined.classes or join_classes([_classes(part.path) for part in joined.parts], joined.renames)


def _open_joined(
    file: Path, split: str | None, classes: Sequence[str] | None, images: Path | None = None
) -> DataSet:
    joined = _read_joined(file)
    groups: list[tuple[str, ...]] = []
    sets: list[DataSet] = []
    for part in joined.parts:
        opened = [
            open_data(part.path, name, None, images or part.images) for name in _asked(part, split, file)
        ]
        sets += opened
        # A source without this split contributes its classes all the same: splits must agree on them.
        groups += [data.classes for data in opened] or [_classes(part.path)]
    known = join_classes(groups, {})
    for name in joined.renames:
        _require_class(name, known, file, "map")
    renamed = join_classes(groups, joined.renames)
    for name in joined.classes or ():
        _require_class(name, renamed, file, "classes")
    if not sets:
        splits = nearest(split or "", _joined_splits(file))
        raise DataError(f"no source has a split {split!r}{splits}", file=file, place="sources")
    data = join_sets(sets, joined.classes or renamed, joined.renames)
    shared = shared_pictures(data.records, [len(part) for part in sets], file)
    data = replace(data, problems=(*data.problems, *shared))
    return data if classes is None else match_classes(data, classes)


def _asked(part: _Part, split: str | None, file: Path) -> tuple[str | None, ...]:
    """The split to read from a part, in its own names; () if the part has none for this split."""
    if part.splits is None:
        return (split if split is None else _own_name(part, split, file),)
    names = list(part.splits) if split is None else [name.strip() for name in split.split("+")]
    own = [part.splits[name] for name in names if name in part.splits]
    if not own:
        return ()
    texts = [name for name in own if name is not None]
    return (None,) if len(texts) < len(own) else ("+".join(dict.fromkeys(texts)),)


def _own_name(part: _Part, split: str, file: Path) -> str:
    """What a source calls a split of the joined ones."""
    known = list_splits(part.path)
    if not known:
        reason = f"{part.path} has no splits; say what all of it is, such as `split: {{train: null}}`"
        raise DataError(f"{reason}, and give the other sources a `split` too", file=file, place=part.place)
    alike = [] if split in known else [name for name in known if _also_means(split, name)]
    return alike[0] if len(alike) == 1 else split


def _classes(path: Path) -> tuple[str, ...]:
    reader, root = find_reader(path)
    return reader.classes(root)


def _require_class(name: str, known: Sequence[str], file: Path, place: str) -> None:
    if name not in known:
        raise DataError(f"no source has a class {name!r}{nearest(name, known)}", file=file, place=place)


def _refuse_unknown(entry: Mapping[Any, Any], known: Sequence[str], file: Path, place: str) -> None:
    for key in entry:
        if key not in known:
            where = f"{file} ({place})" if place else str(file)
            raise ConfigError(f"{where}: unknown key {key!r}{nearest(str(key), known)}")


def _all_text(value: Any, kind: type[Any]) -> bool:
    return isinstance(value, kind) and all(isinstance(item, str) and item for item in value)


JOINED = Reader(
    name="joined",
    looked_for="a YAML with `sources` (several joined)",
    recognise=_find_joined,
    splits=_joined_splits,
    classes=_joined_classes,
    read=_open_joined,
)

READERS: tuple[Reader, ...] = (
    SHARDS, VOC, COCO, JOINED, YOLO, CVAT, LABELME, VIA, LABEL_STUDIO, CREATEML, CSV,
)  # fmt: skip
"""Every label format; a path goes to the first that recognises it. YOLO takes whatever YAML JOINED leaves.

Those after YOLO look into the files of all folders below, so they come last."""

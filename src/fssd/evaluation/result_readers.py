"""Result files of any detector: VOC's comp4 folders, COCO's result json, YOLO's txt, and our own json.

A format is recognised by what the files hold, and told. Nothing is guessed that could be silently wrong:
class numbers need names, and a YOLO row has its score behind the box, as Ultralytics writes it.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from fssd.data.class_names import COCO, COCO_IDS, VOC, read_names
from fssd.data.formats.json_values import read_json, show
from fssd.data.formats.yolo_rows import is_label_file
from fssd.data.join import numbered
from fssd.data.sample import DataSet
from fssd.errors import ConfigError, DataError
from fssd.evaluation.part_reader import holds_parts, read_parts
from fssd.evaluation.result_rows import ResultRows, checked, number

_COMP = re.compile(r"(comp\d+_det)_(.+)\.txt")
_COCO_KEYS = ("image_id", "category_id", "bbox", "score")
_OWN_KEYS = ("image", "objects")
NAMES_FILE = "classes.txt"  # class names that label tools write beside YOLO's txt
_YOLO_ORDER = "class cx cy w h confidence"
KNOWN_FORMS = (
    "a folder of comp4_det_SPLIT_CLASS.txt, COCO's result json, a folder of YOLO txt with scores, the"
    " detections.json of `fssd detect`, or the folder that it writes with --engine"
)


def read_rows(path: Path, dataset: DataSet, names: tuple[str, ...] | None) -> ResultRows:
    """The rows of a file or folder. names: of the class numbers, if the user gave them.

    Raises DataError for content of no known format, or with a fault; ConfigError for class numbers without
    names, and for names where the file has its own.
    """
    if path.is_dir():
        return _read_folder(path, dataset, names)
    content = read_json(path)
    if isinstance(content, dict):
        what = "holds labels" if "images" in content or "annotations" in content else "is a json object"
        raise DataError(f"{what}, not a list of detections; expected is {KNOWN_FORMS}", file=path)
    first = content[0] if isinstance(content, list) and content else {}
    if not isinstance(content, list) or not isinstance(first, dict):
        raise DataError(f"is no list of detections; expected is {KNOWN_FORMS}", file=path)
    if not content:
        return ResultRows(path, "an empty json list", dataset.classes)
    if "image_id" in first:
        return _read_coco(path, content, dataset, names)
    if set(_OWN_KEYS) <= set(first):
        _refuse_names(path, names)
        return _read_own(path, content, dataset)
    reason = f"its first row has the keys {', '.join(sorted(map(str, first)))}; expected is {KNOWN_FORMS}"
    raise DataError(reason, file=path)


def holds_results(folder: Path) -> bool:
    """Whether a folder looks like one of results: it holds txt files or parts, and no model."""
    return holds_parts(folder) or any(folder.rglob("*.txt"))


def _read_folder(folder: Path, dataset: DataSet, names: tuple[str, ...] | None) -> ResultRows:
    if holds_parts(folder):
        _refuse_names(folder, names)
        return read_parts(folder, dataset.classes)
    files = sorted(file for file in folder.rglob("*.txt") if file.name[0] != ".")
    voc = [file for file in files if _COMP.fullmatch(file.name)]
    if voc:
        _refuse_names(folder, names)
        return _read_comp4(folder, voc, dataset)
    unpacked = sorted(folder.rglob("*.json"))
    if not files and len(unpacked) == 1:  # an archive made for COCO's server
        return read_rows(unpacked[0], dataset, names)
    if not files:
        raise DataError(f"holds no detections; expected is {KNOWN_FORMS}", file=folder)
    return _read_yolo(folder, files, dataset, names)


def _refuse_names(path: Path, names: tuple[str, ...] | None) -> None:
    if names is not None:
        raise ConfigError(f"{path}: names its classes itself; leave out --names")


def _read_comp4(folder: Path, files: Sequence[Path], dataset: DataSet) -> ResultRows:
    """comp4_det_test_CLASS.txt, a row `id score x1 y1 x2 y2` in the pixels of the data set's own labels."""
    rows = ResultRows(folder, "VOC's comp4 files")
    for file, name in _comp4_classes(folder, files, dataset).items():
        rows.classes += (name,)
        text = file.read_bytes().decode("utf-8-sig", "surrogateescape")
        for index, line in enumerate(text.splitlines(), start=1):
            words, place = line.split(), f"line {index}"
            if not words:
                continue
            if len(words) != 6:
                reason = f"has {len(words)} words where `id score x1 y1 x2 y2` has six"
                raise DataError(reason, file=file, place=place)
            score, *box = (number(word, file, place) for word in words[1:])
            rows.add(words[0], name, *checked(score, box, file, place))
    return rows


def _comp4_classes(folder: Path, files: Sequence[Path], dataset: DataSet) -> dict[Path, str]:
    """The class of each file. Split and class may both hold `_`, so the split is the one that fits all."""
    places = {(file.parent, _COMP.sub(r"\1", file.name)) for file in files}
    if len(places) > 1:
        named = " and ".join(sorted(str(parent / kind) for parent, kind in places)[:2])
        raise DataError(f"holds results of several detectors ({named}); name one folder", file=folder)
    ends = {file: _COMP.sub(r"\2", file.name) for file in files}
    splits = {
        end.removesuffix(f"_{name}")
        for end in ends.values()
        for name in dataset.classes
        if end.endswith(f"_{name}")
    }
    fitting = [split for split in splits if all(end.startswith(f"{split}_") for end in ends.values())]
    if not splits:
        classes = f"{', '.join(dataset.classes[:3])}, ..."
        reason = f"none of its {len(files)} files ends in a class of the data set ({classes}), such as"
        raise DataError(f"{reason} {files[0].name}", file=folder)
    if not fitting:
        named = ", ".join(sorted(splits))
        raise DataError(f"holds files of several splits ({named}); keep those of one", file=folder)
    split = min(fitting, key=len)
    return {file: end.removeprefix(f"{split}_") for file, end in ends.items()}


def _read_coco(file: Path, content: list[Any], dataset: DataSet, names: tuple[str, ...] | None) -> ResultRows:
    """A list of `{"image_id", "category_id", "bbox": [x, y, width, height], "score"}`."""
    rows = ResultRows(file, "COCO's result json")
    categories = _categories(rows, dataset, names)
    rows.classes = tuple(categories.values())
    for index, row in enumerate(content):
        place = f"row {index + 1}"
        missing = [key for key in _COCO_KEYS if not isinstance(row, dict) or key not in row]
        if missing:
            raise DataError(
                f"has no {missing[0]!r}; a row needs {', '.join(_COCO_KEYS)}", file=file, place=place
            )
        image, category, box = row["image_id"], row["category_id"], row["bbox"]
        if not isinstance(image, (int, str)) or isinstance(image, bool):
            raise DataError(f"image_id {show(image)} is no number or text", file=file, place=place)
        if not isinstance(category, int) or isinstance(category, bool):
            raise DataError(f"category_id {show(category)} is no whole number", file=file, place=place)
        if not isinstance(box, list) or len(box) != 4:
            raise DataError(f"bbox {show(box)} is not x, y, width, height", file=file, place=place)
        x, y, width, height = (number(value, file, place) for value in box)
        corners = (x, y, x + width, y + height)
        if category not in categories:
            categories[category] = f"category {category}"
            rows.classes += (categories[category],)
        score = number(row["score"], file, place)
        rows.add(str(image), categories[category], *checked(score, corners, file, place))
    return rows


def _categories(rows: ResultRows, dataset: DataSet, names: tuple[str, ...] | None) -> dict[int, str]:
    """Category id to class name: as given, of the data set's labels, or else counted from 1 and told."""
    if names is not None:
        return dict(zip(COCO_IDS if names == COCO else range(1, len(names) + 1), names, strict=True))
    known = dataset.facts.get("category_ids")
    if known is not None:
        pairs = zip(known, dataset.classes, strict=True)
        return {int(key): name for key, name in pairs if key is not None and str(key).isdigit()}
    first, last = dataset.classes[0], dataset.classes[-1]
    rows.notes.append(
        "the data set has no category ids, so they are taken as its classes in order, from 1:"
        f" 1 is {first!r}, {len(dataset.classes)} is {last!r}; --names gives others"
    )
    return dict(enumerate(dataset.classes, start=1))


def _read_yolo(
    folder: Path, files: Sequence[Path], dataset: DataSet, names: tuple[str, ...] | None
) -> ResultRows:
    """A txt for each image, its rows `class cx cy w h confidence`, boxes as shares of the image."""
    rows = ResultRows(folder, f"YOLO txt, read as `{_YOLO_ORDER}`", shares=True)
    lists = [file for file in files if file == folder / NAMES_FILE and is_label_file(file) is False]
    if names is None and lists:  # and no detections in a picture called so
        names = read_names(str(lists[0]))
    classes = _numbered(folder, dataset, names)
    rows.classes = tuple(dict.fromkeys(classes.values()))
    for file in (file for file in files if file not in lists):
        image = file.relative_to(folder).with_suffix("").as_posix()
        rows.images[image] = []
        text = file.read_bytes().decode("utf-8-sig", "surrogateescape")
        for index, line in enumerate(text.splitlines(), start=1):
            words, place = line.split(), f"line {index}"
            if not words:
                continue
            if len(words) != 6:
                hint = "; a row of five is a label, without a score" if len(words) == 5 else ""
                reason = f"has {len(words)} words where `{_YOLO_ORDER}` has six{hint}"
                raise DataError(reason, file=file, place=place)
            label, cx, cy, w, h, score = (number(word, file, place) for word in words)
            name = classes.get(f"{label:.0f}") if label.is_integer() else None
            if name is None:
                reason = f"class {words[0]} is not among the {len(classes)} classes, {_counted(classes)}"
                raise DataError(reason, file=file, place=place)
            corners = (cx - w / 2, cy - h / 2, cx + w / 2, cy + h / 2)
            if max(abs(cx), abs(cy), abs(w), abs(h)) > 2:
                reason = f"{' '.join(words[1:5])} are no shares of the image; the order is {_YOLO_ORDER}"
                raise DataError(reason, file=file, place=place)
            rows.add(image, name, *checked(score, corners, file, place))
    return rows


def _numbered(folder: Path, dataset: DataSet, names: tuple[str, ...] | None) -> dict[str, str]:
    """The names of YOLO's class numbers. Raises ConfigError if nothing says what they mean."""
    if names is not None:
        return numbered(names)
    known: dict[str, str] | None = dataset.facts.get("class_numbers")
    if known is None and dataset.classes in (VOC, COCO):
        return numbered(dataset.classes)
    if known:
        return known
    of_data = "does not number its classes" if known is None else "numbers its classes in several ways"
    raise ConfigError(
        f"{folder}: has class numbers, and the data set {of_data}; give --names voc, coco"
        " or a text file with one name a line"
    )


def _counted(classes: Mapping[str, str]) -> str:
    numbers = [int(number) for number in classes]
    return "counted from 0" if numbers == list(range(len(numbers))) else f"numbered {', '.join(classes)}"


def _read_own(file: Path, content: list[Any], dataset: DataSet) -> ResultRows:
    """What `fssd detect` writes: `{"image", "width", "height", "objects": [{"name", "score", "box"}]}`."""
    rows = ResultRows(file, "the json of `fssd detect`", dataset.classes)
    for index, entry in enumerate(content):
        place = f"image {index + 1}"
        if not (isinstance(entry, dict) and isinstance(entry.get("image"), str)):
            raise DataError("has no name `image`; correct it", file=file, place=place)
        image, place = entry["image"], f"image {index + 1}, {entry['image']}"
        if image in rows.images:
            raise DataError("is listed twice; keep one of the two", file=file, place=place)
        if not isinstance(entry.get("objects"), list):
            raise DataError("has no list `objects`; correct it", file=file, place=place)
        rows.images[image] = []
        size = (entry.get("width"), entry.get("height"))
        if all(isinstance(side, int) for side in size):
            rows.sizes[image] = (int(entry["width"]), int(entry["height"]))
        for number_, item in enumerate(entry["objects"], start=1):
            _add_own(rows, image, item, file, f"{place}, object {number_}")
    named = {row.name for found in rows.images.values() for row in found}
    rows.classes += tuple(sorted(named - set(rows.classes)))
    return rows


def _add_own(rows: ResultRows, image: str, item: Any, file: Path, place: str) -> None:
    box = item.get("box") if isinstance(item, Mapping) else None
    if not (isinstance(item, Mapping) and isinstance(item.get("name"), str) and isinstance(box, list)):
        raise DataError("needs a `name`, a `score` and a `box`; correct it", file=file, place=place)
    if len(box) != 4:
        raise DataError(f"box {show(box)} is not x1, y1, x2, y2", file=file, place=place)
    corners = [number(value, file, place) for value in box]
    score = number(item.get("score"), file, place)
    rows.add(image, item["name"], *checked(score, corners, file, place))

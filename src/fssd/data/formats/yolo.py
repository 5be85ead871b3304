"""YOLO text labels: a data.yaml, folders of images, and a labels folder that mirrors each of them."""

from __future__ import annotations

import math
import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import yaml

from fssd.data.decode import IMAGE_EXTENSIONS, image_size
from fssd.data.formats.labels import LabelledObject, build_record
from fssd.data.formats.reader import Reader
from fssd.data.sample import DataSet, Problem, Record
from fssd.errors import DataError, ImageError, LabelError, nearest

SPLITS = ("train", "val", "test")
_KEY = re.compile(rb"^(names|nc|train|val|test|sources)\s*:", re.MULTILINE)
_SLACK = 1e-4  # share of the image by which rounding to a few digits may push a value beyond 0 or 1


def read_yolo(data_yaml: Path | str, split: str | None, classes: Sequence[str] | None = None) -> DataSet:
    """The images of one split with their boxes in pixels; image headers are read for their size.

    split: train, val or test, `+` joins several, None takes all. classes: class names in order; by default
    those of the yaml. An image without a label file has no object. The image id is its path under images/.
    Raises DataError if the yaml is not usable, or the split is missing or empty.
    """
    file = Path(data_yaml)
    content = read_yaml(file)
    known = _names(content, file)
    names = tuple(classes) if classes is not None else tuple(known.values())
    index = {name: label for label, name in enumerate(names)}
    images = _split_images(content, split, file)
    ids = _unique_ids(images)
    records: list[Record] = []
    problems: list[Problem] = []
    for image_id, path in zip(ids, images, strict=True):
        record, found = _record(image_id, path, known, index)
        problems += found
        if record is not None:
            records.append(record)
    return DataSet(names, tuple(records), tuple(problems), {"format": "yolo", "images": len(images)})


def read_yaml(file: Path) -> dict[str, Any]:
    """The mapping in a YAML file. Raises DataError if the file is missing, broken or no mapping."""
    try:
        content = yaml.safe_load(file.read_bytes())
    except FileNotFoundError as error:
        raise DataError("the file is missing", file=file) from error
    except yaml.MarkedYAMLError as error:
        mark = error.problem_mark
        place = f"line {mark.line + 1}" if mark else ""
        raise DataError(f"is not valid YAML ({error.problem})", file=file, place=place) from error
    except (OSError, ValueError, RecursionError, yaml.YAMLError) as error:
        raise DataError(f"cannot be read as YAML ({error})", file=file) from error
    if not isinstance(content, dict) or not all(isinstance(key, str) for key in content):
        raise DataError("must hold `key: value` lines", file=file)
    return content


def find_yaml(path: Path) -> Path | None:
    """The path itself if it is a YAML file, or that of a folder: data.yaml, else the first one."""
    others = [file for file in sorted(path.glob("*.y*ml")) if _describes_data(file)]
    inside = [path / "data.yaml", path / "data.yml", *others]
    candidates = [path] if path.is_file() else inside
    return next((file for file in candidates if file.suffix in {".yaml", ".yml"} and file.is_file()), None)


def _describes_data(file: Path) -> bool:
    """Has a key of a data set at its top, unlike environment.yml and other files of a project."""
    return file.is_file() and bool(_KEY.search(file.read_bytes()))


def yolo_splits(content: Mapping[str, Any]) -> tuple[str, ...]:
    """Those of train, val and test that the yaml gives."""
    return tuple(split for split in SPLITS if content.get(split))


def yolo_classes(data_yaml: Path) -> tuple[str, ...]:
    """Class names in the order of their numbers. Raises DataError."""
    return tuple(_names(read_yaml(data_yaml), data_yaml).values())


def _names(content: Mapping[str, Any], file: Path) -> dict[int, str]:
    """Class number -> name, ascending."""
    names, count = content.get("names"), content.get("nc")
    if names is None and isinstance(count, int) and count > 0:
        return {number: str(number) for number in range(count)}
    pairs = dict(enumerate(names)) if isinstance(names, list) else names
    if not isinstance(pairs, dict) or not pairs:
        raise DataError("needs `names`, the class names, or `nc`, their number", file=file, place="names")
    if not all(isinstance(key, int) and key >= 0 for key in pairs):
        raise DataError("class numbers must be whole numbers from 0", file=file, place="names")
    for name in pairs.values():  # YAML reads no, off and yes as booleans
        if isinstance(name, bool) or not isinstance(name, (str, int, float)):
            raise DataError(f"{name!r} is no class name; put names in quotes", file=file, place="names")
    known = {key: str(pairs[key]).strip() for key in sorted(pairs)}
    if len(set(known.values())) < len(known):
        raise DataError("two classes have the same name", file=file, place="names")
    if count is not None and count != len(known):
        raise DataError(f"nc is {count} but there are {len(known)} names", file=file, place="nc")
    return known


def _split_images(content: Mapping[str, Any], split: str | None, file: Path) -> list[Path]:
    splits = yolo_splits(content)
    asked = splits if split is None else [part.strip() for part in split.split("+")]
    if not asked:
        raise DataError("gives none of train, val and test", file=file)
    for part in asked:
        if part not in splits:
            known = nearest(part, splits) if splits else "; it gives none of train, val and test"
            raise DataError(f"there is no split {part!r}{known}", file=file)
    entries = [entry for part in asked for entry in _as_list(content[part])]
    images = [path for entry in entries for path in _images(content, entry, file)]
    if not images:
        raise DataError(f"split {split or 'train+val+test'!r} holds no image", file=file)
    return list(dict.fromkeys(images))


def _as_list(value: object) -> list[object]:
    return value if isinstance(value, list) else [value]


def _images(content: Mapping[str, Any], entry: object, file: Path) -> list[Path]:
    """The images of a folder (with those below it) or of a .txt list."""
    found = _resolve(content, str(entry), file)
    if found.is_dir():
        return sorted(path for path in found.rglob("*") if path.suffix.lower() in IMAGE_EXTENSIONS)
    if found.suffix == ".txt" and found.is_file():
        lines = [line.strip() for line in _lines(found) if line.strip()]
        return [_listed(line, found, content, file) for line in lines]
    raise DataError(f"{found} is neither a folder of images nor a .txt list of them", file=file)


def _base(content: Mapping[str, Any], file: Path) -> Path:
    return file.parent / str(content.get("path") or ".")


def _resolve(content: Mapping[str, Any], entry: str, file: Path) -> Path:
    path = _base(content, file) / entry
    if not path.exists() and entry.startswith("../"):
        return file.parent / entry.removeprefix("../")  # Roboflow writes ../train/images for train/images
    return path


def _listed(line: str, listing: Path, content: Mapping[str, Any], file: Path) -> Path:
    """The image of a line: relative to the list if it starts with ./, else to `path`; both are tried."""
    candidates = [listing.parent / line, _base(content, file) / line]
    if not line.startswith("./"):
        candidates.reverse()
    return next((path for path in candidates if path.is_file()), candidates[0])


def _label_file(image: Path) -> Path:
    """The path with its last folder `images` changed to `labels`; beside the image if there is none."""
    parts = list(image.parts)
    if "images" in parts[:-1]:
        last = len(parts) - 2 - parts[:-1][::-1].index("images")
        parts[last] = "labels"
    return Path(*parts).with_suffix(".txt")


def _unique_ids(images: Sequence[Path]) -> list[str]:
    """The path below the last `images` folder; the full path where two images would share it."""
    short = []
    for image in images:
        parts = image.parts
        last = len(parts) - 1 - parts[::-1].index("images") if "images" in parts[:-1] else len(parts) - 2
        short.append("/".join(parts[last + 1 :]))
    counts: dict[str, int] = {}
    for name in short:
        counts[name] = counts.get(name, 0) + 1
    return [name if counts[name] == 1 else path.as_posix() for name, path in zip(short, images, strict=True)]


def _record(
    image_id: str, path: Path, known: Mapping[int, str], index: Mapping[str, int]
) -> tuple[Record | None, list[Problem]]:
    try:
        size = image_size(path)
    except ImageError as error:
        return None, [Problem("error", path, error.place, error.reason)]
    source = _label_file(path)
    objects: list[LabelledObject] = []
    problems: list[Problem] = []
    try:
        lines = _lines(source) if source.is_file() else []
    except DataError as error:
        return None, [Problem("error", source, "", error.reason)]
    for number, line in enumerate(lines, 1):
        try:
            objects += _objects(line, f"line {number}", size, known, source)
        except LabelError as error:
            problems.append(Problem("error", source, error.place, error.reason))
    record, found = build_record(image_id, path, source, size, objects=objects, index=index)
    return (None if problems else record), problems + found


def _objects(
    line: str, place: str, size: tuple[int, int], known: Mapping[int, str], source: Path
) -> list[LabelledObject]:
    """The object of a row, none for a blank row. Raises LabelError."""
    words = line.split()
    if not words:
        return []
    if len(words) != 5:
        hint = "; it looks like a polygon: convert it to a box" if len(words) > 6 else ""
        reason = f"has {len(words)} words where `class cx cy w h` has five{hint}"
        raise LabelError(reason, file=source, place=place)
    try:
        number, (cx, cy, w, h) = float(words[0]), map(float, words[1:])
    except ValueError:
        reason = f"{line.strip()[:80]!r} is not five numbers: class cx cy w h"
        raise LabelError(reason, file=source, place=place) from None
    if not number.is_integer() or int(number) not in known:
        reason = f"class {words[0]} is not among the {len(known)} classes of the yaml, counted from 0"
        raise LabelError(reason, file=source, place=place)
    if not all(math.isfinite(value) and -_SLACK <= value <= 1 + _SLACK for value in (cx, cy, w, h)):
        reason = f"{' '.join(words[1:])[:80]!r} has a value outside 0..1; cx cy w h are shares of the image"
        raise LabelError(reason, file=source, place=place)
    width, height = size
    box = ((cx - w / 2) * width, (cy - h / 2) * height, (cx + w / 2) * width, (cy + h / 2) * height)
    return [LabelledObject(known[int(number)], box, place)]


def _lines(file: Path) -> list[str]:
    try:
        return file.read_text(encoding="utf-8-sig").splitlines()
    except (OSError, UnicodeDecodeError) as error:
        raise DataError(f"cannot be read as text ({type(error).__name__})", file=file) from error


YOLO = Reader(
    name="yolo",
    looked_for="data.yaml (YOLO)",
    recognise=find_yaml,
    splits=lambda root: yolo_splits(read_yaml(root)),
    classes=yolo_classes,
    read=read_yolo,
)

"""YOLO text labels: a data.yaml, folders of images, and a labels folder that mirrors each of them."""

from __future__ import annotations

import math
import re
from collections import Counter
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import yaml

from fssd.data.decode import IMAGE_EXTENSIONS, image_size
from fssd.data.formats.labels import LabelledObject, build_record, read_lines
from fssd.data.formats.lookup import is_hidden
from fssd.data.formats.reader import Reader
from fssd.data.sample import DataSet, Problem, Record
from fssd.errors import DataError, ImageError, LabelError, nearest

SPLITS = ("train", "val", "test")
_KEY = re.compile(rb"^(names|nc|train|val|test|sources)\s*:", re.MULTILINE)
_SLACK = 1e-4  # share of the image by which rounding to a few digits may push a value beyond 0 or 1


def read_yolo(file: Path, split: str | None, classes: Sequence[str] | None = None) -> DataSet:
    """The images of one split with their boxes in pixels; image headers are read for their size.

    An image without a label file has no object. The image id is its path under images/. See `Reader`.
    """
    content = read_yaml(file)
    known = _names(content, file)
    names = tuple(classes) if classes is not None else tuple(known.values())
    index = {name: label for label, name in enumerate(names)}
    images = _split_images(content, split, file)
    records: list[Record] = []
    problems: list[Problem] = []
    for image_id, path in zip(_unique_ids(images), images, strict=True):
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
    others = [file for file in sorted(path.glob("[!.]*.y*ml")) if _describes_data(file)]
    inside = [path / "data.yaml", path / "data.yml", *others]
    candidates = [path] if path.is_file() else inside
    return next((file for file in candidates if file.suffix in {".yaml", ".yml"} and file.is_file()), None)


def _describes_data(file: Path) -> bool:
    """Has a key of a data set at its top, unlike environment.yml and other files of a project."""
    return file.is_file() and bool(_KEY.search(file.read_bytes()))


def _splits(content: Mapping[str, Any]) -> tuple[str, ...]:
    return tuple(split for split in SPLITS if content.get(split))


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
    splits = _splits(content)
    asked = splits if split is None else [part.strip() for part in split.split("+")]
    if not asked:
        raise DataError("gives none of train, val and test", file=file)
    for part in asked:
        if part not in splits:
            known = nearest(part, splits) if splits else "; it gives none of train, val and test"
            raise DataError(f"there is no split {part!r}{known}", file=file)
    given = [content[part] for part in asked]
    entries = [entry for value in given for entry in (value if isinstance(value, list) else [value])]
    images = [path for entry in entries for path in _images(content, str(entry), file)]
    if not images:
        raise DataError(f"split {split or 'train+val+test'!r} holds no image", file=file)
    return list(dict.fromkeys(images))


def _images(content: Mapping[str, Any], entry: str, file: Path) -> list[Path]:
    """The images of a folder (with those below it) or of a .txt list."""
    base = file.parent / str(content.get("path") or ".")
    found = base / entry
    if not found.exists() and entry.startswith("../"):
        found = file.parent / entry.removeprefix("../")  # Roboflow writes ../train/images for train/images
    if found.is_dir():
        files = (path for path in found.rglob("*") if path.suffix.lower() in IMAGE_EXTENSIONS)
        return sorted(path for path in files if not is_hidden(path, found))
    if found.suffix == ".txt" and found.is_file():
        lines = [line.strip() for line in read_lines(found) if line.strip()]
        return [_listed(line, found, base) for line in lines]
    raise DataError(f"{found} is neither a folder of images nor a .txt list of them", file=file)


def _listed(line: str, listing: Path, base: Path) -> Path:
    """The image of a line: relative to the list if it starts with ./, else to `base`; both are tried."""
    candidates = [listing.parent / line, base / line]
    if not line.startswith("./"):
        candidates.reverse()
    return next((path for path in candidates if path.is_file()), candidates[0])


def _images_folder(image: Path) -> Path | None:
    """The last folder called `images` above an image."""
    return next((folder for folder in image.parents if folder.name == "images"), None)


def _label_file(image: Path) -> Path:
    """The path with its last folder `images` changed to `labels`; beside the image if there is none."""
    folder = _images_folder(image)
    moved = image if folder is None else folder.with_name("labels") / image.relative_to(folder)
    return moved.with_suffix(".txt")


def _unique_ids(images: Sequence[Path]) -> list[str]:
    """The path below the last `images` folder; the full path where two images would share it."""
    short = [image.relative_to(_images_folder(image) or image.parent).as_posix() for image in images]
    counts = Counter(short)
    return [name if counts[name] == 1 else path.as_posix() for name, path in zip(short, images, strict=True)]


def _record(
    image_id: str, path: Path, known: Mapping[int, str], index: Mapping[str, int]
) -> tuple[Record | None, list[Problem]]:
    try:
        size = image_size(path)
    except ImageError as error:
        return None, [Problem("error", path, error.place, error.reason)]
    source = _label_file(path)
    try:
        lines = read_lines(source) if source.is_file() else []
    except DataError as error:
        return None, [Problem("error", source, "", error.reason)]
    objects: list[LabelledObject] = []
    problems: list[Problem] = []
    for number, line in enumerate(lines, 1):
        try:
            if line.strip():
                objects.append(_object(line, f"line {number}", size, known, source))
        except LabelError as error:
            problems.append(Problem("error", source, error.place, error.reason))
    record, found = build_record(image_id, path, source, size, objects=objects, index=index)
    return (None if problems else record), problems + found


def _object(
    line: str, place: str, size: tuple[int, int], known: Mapping[int, str], source: Path
) -> LabelledObject:
    """The object of a row. Raises LabelError."""
    words = line.split()
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
    return LabelledObject(known[int(number)], box, place)


YOLO = Reader(
    name="yolo",
    looked_for="data.yaml (YOLO)",
    recognise=find_yaml,
    splits=lambda root: _splits(read_yaml(root)),
    classes=lambda root: tuple(_names(read_yaml(root), root).values()),
    read=read_yolo,
)

"""COCO json: category ids that may have gaps, boxes as x, y, width, height, usually one file a split."""

from __future__ import annotations

import gc
import json
import mmap
import re
from collections.abc import Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

from fssd.data.formats.coco_masks import box_of_segmentation
from fssd.data.formats.json_values import LARGEST, is_number, is_text, json_format, pixels, read_json, show
from fssd.data.formats.labels import Corners, LabelledObject, yes_or_no
from fssd.data.formats.lookup import file_split, folder_split, path_parts, picture_names, visible_files
from fssd.data.formats.outlines import box_of_rotated
from fssd.data.formats.stated import LabelFile, StatedImage
from fssd.data.formats.tool_format import Format
from fssd.data.sample import Problem
from fssd.errors import DataError, LabelError

_OTHER_TASKS = ("captions_", "person_keypoints_", "stuff_", "panoptic_", "image_info_")
_INSTANCES = "instances_"
_ROBOFLOW = "_annotations.coco.json"
_FILE_NAME = re.compile(rb'"(?:file_name|coco_url)"\s*:\s*("(?:[^"\\]|\\.)*")')
_NO_PLAIN_PATH = re.compile(r"://|[?%]|[0-9a-f]{8}-")  # a URL, or a name that Label Studio made
_PLAIN = frozenset({int, float})

Row = dict[str, Any]
Id = int | str


def coco_files(root: Path) -> dict[Path, str]:
    """The label files of a folder, or the file itself, with their splits; "" if a path tells none.

    A json of no known format is taken where only COCO's are expected, so that its fault is named.
    """
    if not root.is_dir():
        is_json = root.suffix.lower() == ".json" and json_format(root) in {"", "coco"}
        return {root: _split(root, (root.parent.name,), alone=True)} if is_json else {}
    folders: dict[Path, list[Path]] = {}
    for file in visible_files(root, {".json"}):
        folders.setdefault(file.parent, []).append(file)
    found = [file for files in folders.values() for file in _own_files(files)]
    return {file: _split(file, file.relative_to(root).parts[:-1], len(found) == 1) for file in found}


def _own_files(files: Sequence[Path]) -> list[Path]:
    """Of the files of one folder. Those of the same images for other tasks are not taken."""
    instances = [file for file in files if file.stem.startswith(_INSTANCES)]
    if instances and any(json_format(file) == "coco" for file in instances):
        return instances
    return [file for file in files if not file.stem.startswith(_OTHER_TASKS) and _is_coco(file)]


def _is_coco(file: Path) -> bool:
    """By its beginning; by its name too, so that the fault of an empty or cut file is named."""
    is_usual = file.parent.name == "annotations" or file.name == _ROBOFLOW
    return json_format(file) in ({"", "coco"} if is_usual else {"coco"})


def _split(file: Path, folders: Sequence[str], alone: bool) -> str:
    """By the name of the file or its folders; of several files in `annotations` each has its own."""
    is_usual = file.parent.name == "annotations"
    name = file.parent.name if file.name == _ROBOFLOW else file.stem.removeprefix(_INSTANCES)
    own = folder_split([name])
    if own or (name != "default" and (is_usual or (file.name == _ROBOFLOW and not alone))):
        return own or folder_split(folders) or name
    return folder_split(folders) or ("" if is_usual else file_split(name))


def file_names(file: Path) -> set[str]:
    """The names of the pictures that a json lists, without parsing it."""
    if not file.stat().st_size:
        return set()
    with file.open("rb") as stream, mmap.mmap(stream.fileno(), 0, access=mmap.ACCESS_READ) as text:
        found = [match[1].decode("utf-8", "replace") for match in _FILE_NAME.finditer(text)]
    return {parts[-1] for name in found if (parts := path_parts(_unquoted(name)))}


def _unquoted(text: str) -> str:
    with suppress(ValueError):
        return str(json.loads(text, strict=False)) if "\\" in text else text[1:-1]
    return ""


def _parse(file: Path) -> LabelFile:
    """Millions of new objects would start collections again and again, which find nothing to free."""
    was_enabled = gc.isenabled()
    gc.disable()
    try:
        return _label_file(file)
    finally:
        if was_enabled:
            gc.enable()


def _label_file(file: Path) -> LabelFile:
    content = read_json(file, _without_outline)
    if not isinstance(content, dict):
        raise DataError("is no COCO file: the top level is not an object", file=file)
    for key in ("images", "annotations", "categories"):
        if not isinstance(content.get(key), list):
            raise DataError(f"is no COCO detection file: it has no list {key!r}", file=file, place=key)
    if not content["images"]:
        raise DataError("lists no image", file=file, place="images")
    categories, notes = _categories(content, file)
    ids = {name: key for key, name in categories.items()}
    images, known, faulty = _images(content["images"], file)
    names = {str(key): name for key, name in categories.items()}
    images += _add_objects(content["annotations"], known, faulty, names, file)
    order = sorted(categories, key=lambda key: (isinstance(key, str), key))  # numbers before texts
    return LabelFile(file, tuple(images), tuple(categories[key] for key in order), notes, class_ids=ids)


def _without_outline(row: Row) -> Row:
    """Outlines are most of a large file, and not needed where the box is stated."""
    if row.get("bbox"):
        row.pop("segmentation", None)
    return row


def _categories(content: Mapping[str, list[Row]], file: Path) -> tuple[dict[Id, str], tuple[Problem, ...]]:
    """Id -> name, without the group of all classes that exporters add, and a note of that."""
    categories: dict[Id, str] = {}
    notes: list[Problem] = []
    rows = content["categories"]
    for number, row in enumerate(rows):
        place = f"categories[{number}]"
        key = _key(row, "id")
        if not key or not is_text(row.get("name")):
            raise DataError("needs an id and a name", file=file, place=place)
        name = row["name"]
        if _is_group(row, rows) and all(_key(item, "category_id") != key for item in content["annotations"]):
            reason = f"{name!r} is the supercategory of all others and of no object: it is left out"
            notes.append(Problem("warning", file, place, reason))
            continue
        if key in map(str, categories) or name in categories.values():
            raise DataError(f"repeats the id or name of another: {name!r}", file=file, place=place)
        categories[key if isinstance(row["id"], str) else int(row["id"])] = name
    return categories, tuple(notes)


def _is_group(row: Row, rows: Sequence[Row]) -> bool:
    """All others name this category as their supercategory, as Roboflow writes a project's own name."""
    above = [other.get("supercategory") for other in rows if isinstance(other, dict) and other is not row]
    return bool(above) and all(name == row["name"] for name in above)


def _images(rows: list[Any], file: Path) -> tuple[list[StatedImage], dict[str, StatedImage], set[str]]:
    """The images, those that can be used by their id, and the ids of the others."""
    images: list[StatedImage] = []
    known: dict[str, StatedImage] = {}
    faulty: set[str] = set()
    stated = [(_key(row, "id"), _file_name(row)) for row in rows]
    first = dict(reversed(stated))
    shared = {key for key, name in stated if name != first[key]}  # nobody knows whose the boxes are
    for number, row in enumerate(rows):
        key, place = _key(row, "id"), f"images[{number}]"
        try:
            image = _image(row, key, file)
            if key in known or key in shared:
                raise LabelError(f"image id {key} is used twice; give each image its own")
            known[key] = image
        except LabelError as error:
            image = _lost(file, place, error.reason)
            faulty.add(key)
        images.append(image)
    return images, known, faulty - known.keys()


def _image(row: Any, key: str, file: Path) -> StatedImage:
    name = _file_name(row)
    if not (key and name.strip()):
        raise LabelError("an image needs an id and a file_name; add them or remove it")
    size = pixels(row.get("width"), row.get("height"))
    names = dict.fromkeys((name, *picture_names(name))) if _NO_PLAIN_PATH.search(name) else (name,)
    return StatedImage(tuple(names), file, "", size, key=key)


def _file_name(row: Any) -> str:
    """The path that a row states, else that of its URL, which is all that LVIS has."""
    name, url = (row.get(key) if isinstance(row, dict) else None for key in ("file_name", "coco_url"))
    if isinstance(name, str) and name.strip():
        return name
    return urlsplit(url).path.lstrip("/") if isinstance(url, str) else ""


def _lost(file: Path, place: str, reason: str) -> StatedImage:
    """What stands for an image that is not stated."""
    return StatedImage(("",), file, place, problems=[Problem("error", file, place, reason)])


def _add_objects(
    rows: list[Any], images: Mapping[str, StatedImage], faulty: set[str], names: Mapping[str, str], file: Path
) -> list[StatedImage]:
    """Adds the objects to their images; returns one for each id that is not in the list of images."""
    lost: dict[str, StatedImage] = {}
    for number in range(len(rows)):
        row, rows[number] = rows[number], None  # so that each is freed once it is read
        key = _key(row, "image_id")
        image = images.get(key)
        if image is None:
            if key not in faulty:  # else the fault of its image is told already
                missing = _lost(file, _place(row, number), _stray(row))
                lost.setdefault(key or missing.place, missing)
                lost[key or missing.place].problems += missing.problems[
                    lost[key or missing.place] is missing :
                ]
            continue
        try:
            _add_object(image, row, names, number)
        except LabelError as error:
            image.problems.append(Problem("error", file, _place(row, number), error.reason))
    return list(lost.values())


def _stray(row: Any) -> str:
    if not isinstance(row, dict):
        return "an annotation must be an object with image_id, category_id and bbox"
    return f"image_id {show(row.get('image_id'))} is not in the list of images"


def _plain_object(row: Row, names: Mapping[str, str]) -> LabelledObject | None:
    """The object of a row that states numbers as COCO itself does, found quickly; None for other rows."""
    try:
        x, y, width, height = row["bbox"]
        key, area, crowd = row["id"], row["area"], row["iscrowd"]
        name = names[str(row["category_id"])]
    except (KeyError, TypeError, ValueError):
        return None
    kinds = {type(x), type(y), type(width), type(height), type(area)}
    is_usual = type(key) is int and type(crowd) is int and crowd in (0, 1) and kinds <= _PLAIN
    if not (is_usual and abs(x) + abs(y) + abs(width) + abs(height) + abs(area) < LARGEST):
        return None
    if "attributes" in row or "difficult" in row:
        return None
    box = (x, y, x + width, y + height)
    return LabelledObject(name, box, f"annotation id {key}", False, crowd == 1, float(area))


def _add_object(image: StatedImage, row: Row, names: Mapping[str, str], number: int) -> None:
    plain = _plain_object(row, names)
    if plain is not None:
        image.objects.append(plain)
        return
    name = names.get(_key(row, "category_id"))
    if name is None:
        raise LabelError(f"category_id {show(row.get('category_id'))} is not in the list of categories")
    box, kind = _box(row)
    area = row.get("area")
    if area is not None and not is_number(area):
        raise LabelError(f"area {show(area)} is not a number in range; correct or remove it")
    difficult, crowd = yes_or_no(row.get("difficult"), "difficult"), yes_or_no(row.get("iscrowd"), "iscrowd")
    size = None if area is None else float(area)
    image.objects.append(LabelledObject(name, box, _place(row, number), difficult, crowd, size))
    if kind:
        image.taken[kind] += 1


def _box(row: Row) -> tuple[Corners, str]:
    """The box (xyxy) of an annotation and what it was, if no plain box."""
    box = row.get("bbox")
    if not box and row.get("segmentation"):
        return box_of_segmentation(row["segmentation"])
    if not (isinstance(box, list) and len(box) in (4, 5) and _are_numbers(box)):
        raise LabelError(f"bbox {show(box)} is not four numbers in range: x, y, width, height")
    x, y, width, height = box[:4]
    if len(box) == 5:  # as Detectron2 has it: centre, sides and degrees
        corners = x - width / 2, y - height / 2, x + width / 2, y + height / 2
        return box_of_rotated(corners, box[4]), "rotated box"
    attributes = row.get("attributes")
    degrees = attributes.get("rotation") if isinstance(attributes, dict) else None
    if is_number(degrees) and float(degrees) % 360:
        return box_of_rotated((x, y, x + width, y + height), float(degrees)), "rotated box"
    return (x, y, x + width, y + height), ""


def _are_numbers(values: list[Any]) -> bool:
    """`is_number` of each, faster for plain ones."""
    is_plain = _PLAIN.issuperset(map(type, values))
    return (is_plain and sum(map(abs, values)) < LARGEST) or all(map(is_number, values))


def _place(row: Any, number: int) -> str:
    key = _key(row, "id")
    return f"annotation id {key}" if key else f"annotations[{number}]"


def _key(row: object, key: str) -> str:
    """The id under a key as text, "" if that is none. pandas writes whole numbers as 1.0, others as "1"."""
    value = row.get(key) if isinstance(row, dict) else None
    if type(value) is int:
        return str(value)
    if isinstance(value, float) and value.is_integer():
        return str(int(value))
    return value.strip() if isinstance(value, str) else ""


COCO = Format(
    name="coco",
    looked_for="a json with images, annotations and categories (COCO)",
    suffixes=(".json",),
    is_label_file=lambda file: json_format(file) == "coco" and not file.stem.startswith(_OTHER_TASKS),
    parse=_parse,
    split_files=coco_files,
    mentions=file_names,
).reader()

"""COCO json: one file a split, category ids that may have gaps, boxes as x, y, width, height."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from fssd.data.formats.json_values import json_format
from fssd.data.formats.labels import LabelledObject, build_record, missing_image
from fssd.data.formats.reader import Reader
from fssd.data.join import join_classes, join_sets
from fssd.data.sample import DataSet, Problem, Record
from fssd.errors import DataError

_OTHER_TASKS = ("captions_", "person_keypoints_", "stuff_", "panoptic_", "image_info_")
_ROBOFLOW = "_annotations.coco.json"

Row = dict[str, Any]
Id = int | str


def read_coco(
    json_file: Path | str, images_dir: Path | str | None = None, classes: Sequence[str] | None = None
) -> DataSet:
    """The images of a json file with their boxes; no image is opened.

    images_dir: the folder that `file_name` is relative to; by default `find_images_dir` finds it.
    classes: class names in order; by default all categories in the order of their ids.
    facts: category_ids (per class its COCO id, None for a class the file does not know), annotation_file.
    Raises DataError if the file is missing, not json, or lacks images, annotations or categories.
    """
    file = Path(json_file)
    content = _load(file)
    folder = Path(images_dir) if images_dir is not None else find_images_dir(file, content["images"])
    categories = _categories(content["categories"], file)
    names = tuple(classes) if classes is not None else _in_order(categories)
    images, problems = _images(content["images"], file)
    if not images and not problems:
        raise DataError("lists no image", file=file, place="images")
    objects, found, spoilt = _objects(content["annotations"], images, categories, file)
    problems += found
    records, found = _records(images, objects, names, file, folder)
    bad = {str(key) for key in spoilt}
    kept = tuple(record for record in records if record.image_id not in bad)
    ids = {name: key for key, name in categories.items()}
    facts = {
        "format": "coco",
        "images": len(content["images"]) + len(spoilt - set(images)),
        "category_ids": tuple(ids.get(name) for name in names),
        "annotation_file": file,
    }
    return DataSet(names, kept, (*problems, *found), facts)


def coco_classes(json_file: Path) -> tuple[str, ...]:
    """Category names in the order of their ids. Raises DataError."""
    return _in_order(_categories(_load(json_file)["categories"], json_file))


def coco_files(folder: Path) -> dict[str, Path]:
    """The json file of each split of a COCO folder, e.g. {"train2017": annotations/instances_train2017.json}.

    Known layouts: annotations/instances_<split>.json, annotations/<split>.json, and
    <split>/_annotations.coco.json.
    """
    files = [file for file in sorted((folder / "annotations").glob("*.json")) if _may_be_coco(file)]
    instances = [file for file in files if file.stem.startswith("instances_")]
    plain = [file for file in files if not file.stem.startswith(_OTHER_TASKS)]
    found = {split_name(file): file for file in instances or plain}
    return found or {file.parent.name: file for file in sorted(folder.glob(f"*/{_ROBOFLOW}"))}


def split_name(json_file: Path) -> str:
    """`instances_train2017.json` is the split train2017."""
    if json_file.name == _ROBOFLOW:
        return json_file.parent.name
    return json_file.stem.removeprefix("instances_")


def match_split(split: str, known: Sequence[str], file: Path) -> str:
    """The split of that name, or the only one that begins with it: `train` finds train2017.

    Raises DataError, naming `file`, if there is none or more than one.
    """
    if split in known:
        return split
    begun = [name for name in known if name.startswith(split)]
    if len(begun) == 1:
        return begun[0]
    fault = f"several splits begin with {split!r}" if begun else f"there is no split {split!r}"
    raise DataError(f"{fault}; splits here: {', '.join(known) or 'none'}", file=file)


def find_images_dir(json_file: Path, images: Sequence[Row]) -> Path:
    """The first likely folder that holds one of the first images; else the first that exists."""
    base, split = json_file.parent, split_name(json_file)
    above = base.parent
    candidates = [
        above / split,
        above / "images" / split,
        *sorted(path for path in above.glob(f"{split}*") if path.is_dir()),
        *sorted(path for path in above.glob(f"images/{split}*") if path.is_dir()),
        above / "images",
        base / "images",
        base / split,
        base,
        above,
    ]
    first = [row.get("file_name") for row in images[:20] if isinstance(row, dict)]
    names = [name for name in first if isinstance(name, str)]
    holding = (path for path in candidates if any((path / name).is_file() for name in names))
    existing = (path for path in candidates if path.is_dir())
    return next(holding, None) or next(existing, base)


def _load(file: Path) -> dict[str, list[Row]]:
    try:
        content = json.loads(file.read_bytes())
    except FileNotFoundError as error:
        raise DataError("the annotation file is missing", file=file) from error
    except json.JSONDecodeError as error:
        place = f"line {error.lineno} column {error.colno}"
        raise DataError(f"is not valid json: {error.msg}", file=file, place=place) from error
    except (OSError, ValueError, RecursionError) as error:
        raise DataError(f"cannot be read as json ({error})", file=file) from error
    if not isinstance(content, dict):
        raise DataError("is no COCO file: the top level is not an object", file=file)
    for key in ("images", "annotations", "categories"):
        if not isinstance(content.get(key), list):
            raise DataError(f"is no COCO detection file: it has no list {key!r}", file=file, place=key)
    return content


def _categories(rows: Sequence[Row], file: Path) -> dict[Id, str]:
    categories: dict[Id, str] = {}
    for number, row in enumerate(rows):
        place = f"categories[{number}]"
        if not (isinstance(row, dict) and _is_id(row.get("id")) and _is_text(row.get("name"))):
            raise DataError("needs an id and a name", file=file, place=place)
        if row["id"] in categories or row["name"] in categories.values():
            raise DataError(f"repeats the id or name of another: {row['name']!r}", file=file, place=place)
        categories[row["id"]] = row["name"]
    return categories


def _images(rows: Sequence[Row], file: Path) -> tuple[dict[Id, Row], list[Problem]]:
    images: dict[Id, Row] = {}
    problems: list[Problem] = []
    for number, row in enumerate(rows):
        fault = _image_fault(row, images)
        if fault:
            problems.append(Problem("error", file, f"images[{number}]", fault))
        else:
            images[row["id"]] = row
    return images, problems


def _image_fault(row: Any, known: dict[Id, Row]) -> str:
    if not (isinstance(row, dict) and _is_id(row.get("id")) and _is_text(row.get("file_name"))):
        return "an image needs an id and a file_name"
    if row["id"] in known:
        return f"image id {row['id']} is used twice"
    sides = [row.get("width"), row.get("height")]
    if sides != [None, None] and not all(_is_side(side) for side in sides):
        return f"width {sides[0]!r} and height {sides[1]!r} are no size in pixels"
    return ""


def _objects(
    rows: Sequence[Row], images: dict[Id, Row], categories: dict[Id, str], file: Path
) -> tuple[dict[Id, list[LabelledObject]], list[Problem], set[Id]]:
    """The objects of each image id, the problems, and the ids of images that a problem makes unusable."""
    objects: dict[Id, list[LabelledObject]] = {}
    problems: list[Problem] = []
    spoilt: set[Id] = set()
    for number, row in enumerate(rows):
        place = _place(row, number)
        if fault := _annotation_fault(row, images, categories):
            problems.append(Problem("error", file, place, fault))
            owner = _owner(row)
            spoilt.add(place if owner is None else owner)
        else:
            objects.setdefault(row["image_id"], []).append(_object(row, categories, place))
    return objects, problems, spoilt


def _object(row: Row, categories: dict[Id, str], place: str) -> LabelledObject:
    x, y, width, height = (float(value) for value in row["bbox"])
    return LabelledObject(
        name=categories[row["category_id"]],
        box=(x, y, x + width, y + height),
        place=place,
        difficult=bool(row.get("difficult")),
        crowd=bool(row.get("iscrowd")),
        area=float(row["area"]) if _is_number(row.get("area")) else None,
    )


def _owner(row: Any) -> Id | None:
    """The image id of an annotation, or None."""
    owner = row.get("image_id") if isinstance(row, dict) else None
    return owner if isinstance(owner, (int, str)) else None


def _annotation_fault(row: Any, images: dict[Id, Row], categories: dict[Id, str]) -> str:
    if not isinstance(row, dict):
        return "an annotation must be an object with image_id, category_id and bbox"
    image, category, box = row.get("image_id"), row.get("category_id"), row.get("bbox")
    if not _is_id(image) or image not in images:
        return f"image_id {image!r} is not in the list of images"
    if not _is_id(category) or category not in categories:
        return f"category_id {category!r} is not in the list of categories"
    if not (isinstance(box, list) and len(box) == 4 and all(_is_number(value) for value in box)):
        return f"bbox {box!r} is not four numbers: x, y, width, height"
    return ""


def _records(
    images: dict[Id, Row],
    objects: dict[Id, list[LabelledObject]],
    names: Sequence[str],
    file: Path,
    folder: Path,
) -> tuple[list[Record], list[Problem]]:
    index = {name: label for label, name in enumerate(names)}
    records: list[Record] = []
    problems: list[Problem] = []
    for key, row in images.items():
        path = folder / row["file_name"]
        size = None if row.get("width") is None else (round(row["width"]), round(row["height"]))
        record, found = build_record(str(key), path, file, size, objects=objects.get(key, []), index=index)
        problems += found
        if not path.is_file():
            problems.append(missing_image(path))
        elif record is not None:
            records.append(record)
    return records, problems


def _in_order(categories: dict[Id, str]) -> tuple[str, ...]:
    return tuple(categories[key] for key in sorted(categories, key=_order))


def _place(row: Any, number: int) -> str:
    if isinstance(row, dict) and _is_id(row.get("id")):
        return f"annotation id {row['id']}"
    return f"annotations[{number}]"


def _order(key: Id) -> tuple[bool, int, str]:
    return (False, key, "") if isinstance(key, int) else (True, 0, key)


def _is_id(value: object) -> bool:
    return isinstance(value, (int, str)) and not isinstance(value, bool)


def _is_text(value: object) -> bool:
    return isinstance(value, str) and bool(value.strip())


def _is_number(value: object) -> bool:
    return isinstance(value, (int, float)) and not isinstance(value, bool)


def _is_side(value: object) -> bool:
    return isinstance(value, (int, float)) and not isinstance(value, bool) and 0.5 < value < 1e9


def _recognise(path: Path) -> Path | None:
    return (
        path
        if (path.suffix == ".json" and path.is_file() and _may_be_coco(path)) or coco_files(path)
        else None
    )


def _may_be_coco(file: Path) -> bool:
    """Not clearly another format's. A json of no known format is taken, so that its fault is named."""
    return json_format(file) in {"", "coco"}


def _splits(root: Path) -> dict[str, Path]:
    return {split_name(root): root} if root.is_file() else coco_files(root)


def _read(root: Path, split: str | None, classes: Sequence[str] | None) -> DataSet:
    files = _splits(root)
    names = list(files)
    if split is not None:
        names = [match_split(part.strip(), names, root) for part in split.split("+")]
    parts = [read_coco(files[name], None, classes) for name in dict.fromkeys(names)]
    if len(parts) == 1:
        return parts[0]
    joined = join_sets(parts, join_classes([part.classes for part in parts], {}), {})
    if len({(part.classes, part.facts["category_ids"]) for part in parts}) == 1:
        joined.facts["category_ids"] = parts[0].facts["category_ids"]
    return joined


COCO = Reader(
    name="coco",
    looked_for="annotations/*.json (COCO)",
    recognise=_recognise,
    splits=lambda root: tuple(_splits(root)),
    classes=lambda root: join_classes([coco_classes(file) for file in _splits(root).values()], {}),
    read=_read,
)

"""COCO json: one file a split, category ids that may have gaps, boxes as x, y, width, height."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from fssd.data.formats.json_values import is_number, is_text, json_format, read_json, show
from fssd.data.formats.labels import LabelledObject, build_record, missing_image, yes_or_no
from fssd.data.formats.lookup import match_split
from fssd.data.formats.reader import Reader
from fssd.data.join import join_classes, join_sets
from fssd.data.sample import DataSet, Problem, Record
from fssd.errors import DataError, LabelError

_OTHER_TASKS = ("captions_", "person_keypoints_", "stuff_", "panoptic_", "image_info_")
_ROBOFLOW = "_annotations.coco.json"

Row = dict[str, Any]
Id = int | str


def read_coco(file: Path, classes: Sequence[str] | None = None) -> DataSet:
    """The images of a json file with their boxes; no image is opened. See `Reader`.

    classes: by default all categories in the order of their ids.
    facts: category_ids (per class its COCO id, None for a class the file does not know), annotation_file.
    """
    content = _load(file)
    categories, notes = _categories(content, file)
    names = tuple(classes) if classes is not None else _in_order(categories)
    images, problems, faulty = _images(content["images"], file)
    if not images and not problems:
        raise DataError("lists no image", file=file, place="images")
    objects, found, spoilt = _objects(content["annotations"], images, faulty, categories, file)
    problems = [*notes, *problems, *found]
    records, found = _records(images, objects, names, file, _images_folder(file, content["images"]))
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


def coco_files(folder: Path) -> dict[str, Path]:
    """The json file of each split of a COCO folder, e.g. {"train2017": annotations/instances_train2017.json}.

    Known layouts: annotations/instances_<split>.json, annotations/<split>.json, and
    <split>/_annotations.coco.json.
    """
    files = [file for file in sorted((folder / "annotations").glob("[!.]*.json")) if _may_be_coco(file)]
    instances = [file for file in files if file.stem.startswith("instances_")]
    plain = [file for file in files if not file.stem.startswith(_OTHER_TASKS)]
    found = {_split_name(file): file for file in instances or plain}
    return found or {file.parent.name: file for file in sorted(folder.glob(f"[!.]*/{_ROBOFLOW}"))}


def _split_name(json_file: Path) -> str:
    if json_file.name == _ROBOFLOW:
        return json_file.parent.name
    return json_file.stem.removeprefix("instances_")


def _images_folder(json_file: Path, images: Sequence[Row]) -> Path:
    """The first likely folder that holds one of the first images; else the first that exists."""
    base, split = json_file.parent, _split_name(json_file)
    above = base.parent
    likely = [above / split, above / "images" / split]
    likely += sorted(above.glob(f"{split}*")) + sorted(above.glob(f"images/{split}*"))
    likely += [above / "images", base / "images", base / split, base, above]
    folders = [path for path in likely if path.is_dir()]
    first = [row.get("file_name") for row in images[:20] if isinstance(row, dict)]
    names = [name for name in first if isinstance(name, str)]
    holding = (path for path in folders if any((path / name).is_file() for name in names))
    return next(holding, None) or folders[0]


def _load(file: Path) -> dict[str, list[Row]]:
    content = read_json(file)
    if not isinstance(content, dict):
        raise DataError("is no COCO file: the top level is not an object", file=file)
    for key in ("images", "annotations", "categories"):
        if not isinstance(content.get(key), list):
            raise DataError(f"is no COCO detection file: it has no list {key!r}", file=file, place=key)
    return content


def _categories(content: dict[str, list[Row]], file: Path) -> tuple[dict[Id, str], list[Problem]]:
    """Id -> name, without the group of all classes that exporters add, and a note of that."""
    categories: dict[Id, str] = {}
    notes: list[Problem] = []
    rows = content["categories"]
    for number, row in enumerate(rows):
        place = f"categories[{number}]"
        key = _id(row, "id")
        if key is None or not is_text(row.get("name")):
            raise DataError("needs an id and a name", file=file, place=place)
        name = row["name"]
        if _is_group(row, rows) and all(_id(item, "category_id") != key for item in content["annotations"]):
            reason = f"{name!r} is the supercategory of all others and of no object: it is left out"
            notes.append(Problem("warning", file, place, reason))
            continue
        if key in categories or name in categories.values():
            raise DataError(f"repeats the id or name of another: {name!r}", file=file, place=place)
        categories[key] = name
    return categories, notes


def _is_group(row: Row, rows: Sequence[Row]) -> bool:
    """All others name this category as their supercategory, as Roboflow writes a project's own name."""
    above = [other.get("supercategory") for other in rows if isinstance(other, dict) and other is not row]
    return bool(above) and all(name == row["name"] for name in above)


def _images(rows: Sequence[Row], file: Path) -> tuple[dict[Id, Row], list[Problem], set[Id]]:
    """The images by their id, the problems, and the ids of those that cannot be used."""
    images: dict[Id, Row] = {}
    problems: list[Problem] = []
    faulty: set[Id | None] = set()
    for number, row in enumerate(rows):
        key = _id(row, "id")
        fault = _image_fault(row, key, images)
        if fault or key is None:
            problems.append(Problem("error", file, f"images[{number}]", fault))
            faulty.add(key)
        else:
            images[key] = row
    return images, problems, {key for key in faulty if key is not None and key not in images}


def _image_fault(row: Any, key: Id | None, known: dict[Id, Row]) -> str:
    if key is None or not is_text(row.get("file_name")):
        return "an image needs an id and a file_name"
    if key in known:
        return f"image id {key} is used twice"
    sides: list[Any] = [row.get("width"), row.get("height")]
    if sides != [None, None] and not all(is_number(side) and 0.5 < side < 1e9 for side in sides):
        return f"width {sides[0]!r} and height {sides[1]!r} are no size in pixels"
    return ""


def _objects(
    rows: Sequence[Row], images: dict[Id, Row], faulty: set[Id], categories: dict[Id, str], file: Path
) -> tuple[dict[Id, list[LabelledObject]], list[Problem], set[Id]]:
    """The objects of each image id, the problems, and the ids of images that a problem makes unusable."""
    objects: dict[Id, list[LabelledObject]] = {}
    problems: list[Problem] = []
    spoilt: set[Id] = set()
    for number, row in enumerate(rows):
        place, owner = _place(row, number), _id(row, "image_id")
        if owner in faulty:
            continue  # the fault of its image is told already
        try:
            item = _object(row, images, categories, place)
        except LabelError as error:
            problems.append(Problem("error", file, place, error.reason))
            spoilt.add(place if owner is None else owner)
            continue
        if owner is not None:
            objects.setdefault(owner, []).append(item)
    return objects, problems, spoilt


def _object(row: Any, images: dict[Id, Row], categories: dict[Id, str], place: str) -> LabelledObject:
    """The object of an annotation. Raises LabelError."""
    if not isinstance(row, dict):
        raise LabelError("an annotation must be an object with image_id, category_id and bbox")
    image, category, box, area = (row.get(key) for key in ("image_id", "category_id", "bbox", "area"))
    if _id(row, "image_id") not in images:
        raise LabelError(f"image_id {show(image)} is not in the list of images")
    key = _id(row, "category_id")
    if key is None or key not in categories:
        raise LabelError(f"category_id {show(category)} is not in the list of categories")
    if not (isinstance(box, list) and len(box) == 4 and all(is_number(value) for value in box)):
        raise LabelError(f"bbox {show(box)} is not four numbers in range: x, y, width, height")
    if area is not None and not is_number(area):
        raise LabelError(f"area {show(area)} is not a number in range; correct or remove it")
    x, y, width, height = map(float, box)
    difficult, crowd = (yes_or_no(row.get(flag), flag) for flag in ("difficult", "iscrowd"))
    size = None if area is None else float(area)
    return LabelledObject(categories[key], (x, y, x + width, y + height), place, difficult, crowd, size)


def _records(
    images: dict[Id, Row],
    objects: dict[Id, list[LabelledObject]],
    names: Sequence[str],
    file: Path,
    folder: Path,
) -> tuple[list[Record], list[Problem]]:
    index = {name: label for label, name in enumerate(names)}
    records, problems = [], []
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
    """The names in the order of their ids, numbers before texts."""
    return tuple(categories[key] for key in sorted(categories, key=lambda key: (isinstance(key, str), key)))


def _place(row: Any, number: int) -> str:
    key = _id(row, "id")
    return f"annotations[{number}]" if key is None else f"annotation id {key}"


def _id(row: object, key: str) -> Id | None:
    """The id under a key, None if that is none. pandas writes whole numbers as 1.0, which are ids too."""
    value = row.get(key) if isinstance(row, dict) else None
    if isinstance(value, float) and value.is_integer():
        return int(value)
    return value if isinstance(value, (int, str)) and not isinstance(value, bool) else None


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
    return {_split_name(root): root} if root.is_file() else coco_files(root)


def _classes(root: Path) -> tuple[str, ...]:
    groups = [_in_order(_categories(_load(file), file)[0]) for file in _splits(root).values()]
    return join_classes(groups, {})


def _read(root: Path, split: str | None, classes: Sequence[str] | None) -> DataSet:
    files = _splits(root)
    names = list(files)
    if split is not None:
        names = [match_split(part.strip(), names, root) for part in split.split("+")]
    parts = [read_coco(files[name], classes) for name in dict.fromkeys(names)]
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
    classes=_classes,
    read=_read,
)

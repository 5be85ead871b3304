"""COCO: annotations/instances_<split>.json, and pictures in images/<split>, where CVAT and Datumaro look."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from fssd.data.writers.writer import Writer, WrittenImage, WrittenObject, WrittenSet, write_json

_UNSPLIT = "default"  # CVAT's name for it


def _write(root: Path, content: WrittenSet) -> None:
    categories = [
        {"id": key, "name": name, "supercategory": ""}
        for key, name in zip(content.category_ids, content.classes, strict=True)
    ]
    for split, images in content.splits.items():
        keys = image_ids(images)
        rows = [
            _annotation(content.category_ids[item.label], key, item)
            for key, image in zip(keys, images, strict=True)
            for item in content.objects(image)
        ]
        for number, row in enumerate(rows, 1):
            row["id"] = number
        described = [
            {
                "id": key,
                "file_name": image.file.relative_to(_folder(split)).as_posix(),
                "width": image.size[0],
                "height": image.size[1],
            }
            for key, image in zip(keys, images, strict=True)
        ]
        # Short lists first, by which readers tell the format.
        whole = {
            "info": {},
            "licenses": [],
            "categories": categories,
            "images": described,
            "annotations": rows,
        }
        write_json(root / "annotations" / f"instances_{split or _UNSPLIT}.json", whole, indent=None)


def image_ids(images: Sequence[WrittenImage]) -> list[int]:
    """The ids of the source if all are whole numbers as COCO has them, else numbers from 1."""
    names = [image.record.image_id for image in images]
    if all(name.isascii() and name.isdigit() and str(int(name)) == name for name in names):
        return list(map(int, names))
    return list(range(1, len(images) + 1))


def _annotation(category: int, image: int, item: WrittenObject) -> dict[str, Any]:
    row: dict[str, Any] = {"id": 0, "image_id": image, "category_id": category}
    row["bbox"] = [item.box[0], item.box[1], item.width, item.height]
    row["area"] = round(item.width * item.height, 4) if item.area is None else item.area
    row |= {"segmentation": [], "iscrowd": int(item.crowd)}
    row |= {"difficult": 1} if item.difficult else {}
    return row if item.score is None else {**row, "score": item.score}


def _folder(split: str) -> str:
    return f"images/{split}"


COCO_WRITER = Writer(
    name="coco",
    title="COCO",
    holds=frozenset({"difficult", "crowd", "areas", "classes", "scores", "folders", "any split"}),
    folder=_folder,
    write=_write,
)

"""LabelMe 5: a json beside each picture, in a folder for each split; labels.txt for `labelme --labels`."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from fssd.data.writers.writer import Writer, WrittenObject, WrittenSet, write_json, write_text


def _write(root: Path, content: WrittenSet) -> None:
    for image in content.images:
        described: dict[str, Any] = {
            "version": "5.5.0",
            "flags": {},
            "shapes": [_shape(item) for item in content.objects(image)],
            "imagePath": image.file.name,
            "imageData": None,
            "imageHeight": image.size[1],
            "imageWidth": image.size[0],
        }
        write_json(root / image.file.with_suffix(".json"), described)
    write_text(root / "labels.txt", "".join(f"{name}\n" for name in content.classes))


def _shape(item: WrittenObject) -> dict[str, Any]:
    shape: dict[str, Any] = {
        "label": item.name,
        "points": [list(item.box[:2]), list(item.box[2:])],
        "group_id": None,
        "description": "" if item.score is None else f"score {item.score:.3f}",
        "shape_type": "rectangle",
        "flags": {"difficult": True} if item.difficult else {},
        "mask": None,
    }
    return shape if item.score is None else {**shape, "score": item.score}  # `score` is X-AnyLabeling's


LABELME_WRITER = Writer(
    name="labelme",
    title="LabelMe",
    holds=frozenset({"difficult", "scores", "folders"}),
    folder=lambda split: split,
    write=_write,
    class_file="labels.txt",
    file_each=True,
)

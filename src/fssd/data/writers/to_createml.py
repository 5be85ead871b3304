"""Create ML: a folder for each split with its pictures and one json, boxes as centre and size in pixels."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from fssd.data.writers.writer import Writer, WrittenObject, WrittenSet, write_json


def _write(root: Path, content: WrittenSet) -> None:
    for split, images in content.splits.items():
        rows = [
            {"image": image.file.name, "annotations": list(map(_annotation, content.objects(image)))}
            for image in images
        ]
        write_json(root / split / "_annotations.createml.json", rows)


def _annotation(item: WrittenObject) -> dict[str, Any]:
    x1, y1, x2, y2 = item.box
    centre = {"x": round((x1 + x2) / 2, 6), "y": round((y1 + y2) / 2, 6)}
    return {"label": item.name, "coordinates": {**centre, "width": item.width, "height": item.height}}


CREATEML_WRITER = Writer(
    name="createml",
    title="Create ML",
    holds=frozenset(),
    folder=lambda split: split,
    write=_write,
)

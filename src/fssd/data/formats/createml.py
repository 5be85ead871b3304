"""Create ML json: a list of images, boxes as centre, width and height in pixels."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from fssd.data.formats.json_values import is_text, json_format, numbers, read_json, show
from fssd.data.formats.stated import LabelFile, StatedImage
from fssd.data.formats.tool_format import Format
from fssd.errors import DataError, LabelError


def _parse(file: Path) -> LabelFile:
    content = read_json(file)
    if not isinstance(content, list):
        raise DataError("is no Create ML file: it must hold a list of images", file=file)
    return LabelFile(file, tuple(_image(row, file, number) for number, row in enumerate(content, 1)))


def _image(row: Any, file: Path, number: int) -> StatedImage:
    name = (row.get("image") or row.get("imagefilename")) if isinstance(row, dict) else None
    stated = name if isinstance(name, str) and is_text(name) else ""
    image = StatedImage((stated,), file, f"image {number} ({stated})" if stated else f"image {number}")
    with image.reading(""):
        if not stated:
            raise LabelError("needs `image`, the name of its file; add it or remove the entry")
        rows = row.get("annotations", row.get("annotation"))
        if not isinstance(rows, list):
            raise LabelError(f"annotations is {show(rows)}, not a list; correct it")
        for rank, item in enumerate(rows, 1):
            label = item.get("label") if isinstance(item, dict) else None
            place = f"annotation {rank} ({label})" if isinstance(label, str) else f"annotation {rank}"
            with image.reading(place):
                _add(image, item, place)
    return image


def _add(image: StatedImage, item: Any, place: str) -> None:
    if not isinstance(item, dict):
        raise LabelError(f"is {show(item)}, not an object with label and coordinates; correct or remove it")
    x, y, width, height = numbers(item.get("coordinates"), ("x", "y", "width", "height"))
    image.add(item.get("label"), (x - width / 2, y - height / 2, x + width / 2, y + height / 2), place)


CREATEML = Format(
    name="createml",
    looked_for="_annotations.createml.json (Create ML)",
    suffixes=(".json",),
    is_label_file=lambda file: json_format(file) == "createml",
    parse=_parse,
).reader()

"""LabelMe and X-AnyLabeling: one json an image, with a list of `shapes`."""

from __future__ import annotations

import math
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from fssd.data.formats.json_values import is_text, json_format, pixels, points, read_json, show
from fssd.data.formats.labels import Corners, yes_or_no
from fssd.data.formats.outlines import box_of_points
from fssd.data.formats.stated import LabelFile, StatedImage
from fssd.data.formats.tool_format import Format
from fssd.errors import DataError, LabelError

_KINDS = {
    "rectangle": "",
    "rotation": "rotated box",
    "oriented_rectangle": "rotated box",
    "polygon": "polygon",
    "circle": "circle",
    "line": "line",
    "linestrip": "line",
    "mask": "mask",
    "cuboid": "cuboid",
}
_WITHOUT_EXTENT = {"point", "points"}


def _parse(file: Path) -> LabelFile:
    content = read_json(file)
    if not isinstance(content, dict) or not isinstance(content.get("shapes"), list):
        raise DataError("is no LabelMe file: it has no list `shapes`", file=file, place="shapes")
    stem = file.with_suffix("").name
    stated = content.get("imagePath")
    names = (stated, stem) if isinstance(stated, str) and is_text(stated) else (stem,)
    image = StatedImage(names, file, "")
    with image.reading("imageWidth, imageHeight"):
        image.size = pixels(content.get("imageWidth"), content.get("imageHeight"))
    first: dict[tuple[str, int | str], int] = {}
    for number, shape in enumerate(content["shapes"], 1):
        label = shape.get("label") if isinstance(shape, dict) else None
        place = f"shape {number} ({label})" if isinstance(label, str) else f"shape {number}"
        before = len(image.objects)
        with image.reading(place):
            _add(image, shape, place)
            if len(image.objects) > before:
                _join_group(image, shape.get("group_id"), first)
    return LabelFile(file, (image,))


def _add(image: StatedImage, shape: Any, place: str) -> None:
    if not isinstance(shape, dict):
        raise LabelError(f"is {show(shape)}, not an object with label and points; correct or remove it")
    kind = shape.get("shape_type") or "polygon"  # LabelMe 3 drew polygons only and did not say so
    if not isinstance(kind, str):
        raise LabelError(f"shape_type is {show(kind)}, not a text; correct it")
    if kind in _WITHOUT_EXTENT:
        image.leave_out(place, f"is a {kind}, which has no extent, and is left out: draw a box")
        return
    if kind not in _KINDS:
        raise LabelError(f"shape_type is {show(kind)}, known are {', '.join(_KINDS)}; draw it as one of them")
    flags = shape.get("flags")
    stated = [row.get("difficult") for row in (shape, flags) if isinstance(row, dict)]
    difficult = any(yes_or_no(value, "difficult") for value in stated)
    image.add(
        shape.get("label"), _box(kind, points(shape.get("points"))), place, _KINDS[kind], difficult=difficult
    )


def _join_group(image: StatedImage, group: Any, first: dict[tuple[str, int | str], int]) -> None:
    """Join the last object to the first one of its label and group: they are parts of one, as LabelMe has it.

    first: where in the image the first of each group is.
    """
    if not isinstance(group, int | str):
        return
    part = image.objects[-1]
    known = first.setdefault((part.name, group), len(image.objects) - 1)
    if known == len(image.objects) - 1:
        return
    whole = image.objects[known]
    corners = [(x, y) for box in (whole.box, part.box) for x, y in (box[:2], box[2:])]
    image.objects[known] = whole._replace(
        box=box_of_points(corners), difficult=whole.difficult or part.difficult
    )
    image.objects.pop()


def _box(kind: str, corners: Sequence[tuple[float, float]]) -> Corners:
    if kind != "circle":
        return box_of_points(corners)
    if len(corners) < 2:
        raise LabelError("needs the centre of the circle and a point on it; correct or remove it")
    (cx, cy), (x, y) = corners[:2]
    radius = math.hypot(x - cx, y - cy)
    return cx - radius, cy - radius, cx + radius, cy + radius


LABELME = Format(
    name="labelme",
    looked_for="a json beside each image (LabelMe, X-AnyLabeling)",
    suffixes=(".json",),
    is_label_file=lambda file: json_format(file) == "labelme",
    parse=_parse,
    image_each=True,
).reader()

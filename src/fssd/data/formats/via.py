"""VGG Image Annotator: a project, or its annotations as json or csv."""

from __future__ import annotations

import json
import math
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from fssd.data.formats.csv_rows import csv_header, read_rows
from fssd.data.formats.json_values import is_number, is_text, json_format, numbers, read_json, show
from fssd.data.formats.labels import Corners, yes_or_no
from fssd.data.formats.outlines import box_of_ellipse, box_of_points
from fssd.data.formats.stated import LabelFile, StatedImage
from fssd.data.formats.tool_format import Format
from fssd.data.sample import Problem
from fssd.errors import DataError, LabelError

_CSV_HEADER = {"filename", "region_count", "region_shape_attributes", "region_attributes"}
_PREFERRED = ("class", "label")
ONE_CLASS = "object"  # of a project that did not need attributes


@dataclass
class _ViaImage:
    """One entry: the picture's name and (place, region) pairs, checked later. fault: of the entry itself."""

    name: str
    regions: list[tuple[str, Any]] = field(default_factory=list)
    fault: str = ""


def _is_label_file(file: Path) -> bool:
    if file.suffix.lower() == ".csv":
        return csv_header(file) >= _CSV_HEADER
    return json_format(file) == "via"


def _parse(file: Path) -> LabelFile:
    if file.suffix.lower() == ".csv":
        return _label_file(file, _from_csv(file), {}, 2)
    content = read_json(file)
    entries = content.get("_via_img_metadata", content) if isinstance(content, dict) else None
    if not isinstance(entries, dict):
        raise DataError("is no VIA file: its images are no object", file=file, place="_via_img_metadata")
    settings = content.get("_via_attributes")
    options = settings.get("region") if isinstance(settings, dict) else None
    images = [_from_json(key, row) for key, row in entries.items()]
    rank = 0 if "_via_img_metadata" in content else 1
    return _label_file(file, images, options if isinstance(options, dict) else {}, rank)


def _from_json(key: str, row: Any) -> _ViaImage:
    name = row.get("filename") if isinstance(row, dict) else None
    if not (isinstance(name, str) and is_text(name)):
        return _ViaImage("", fault=f"{show(key)} has no filename; add it or remove the entry")
    regions = row.get("regions", [])
    listed = list(regions.values()) if isinstance(regions, dict) else regions  # VIA 1 numbers them by key
    if not isinstance(listed, list):
        return _ViaImage(name, fault=f"regions is {show(regions)}, not a list; correct it")
    return _ViaImage(name, [(f"region {number}", region) for number, region in enumerate(listed, 1)])


def _from_csv(file: Path) -> list[_ViaImage]:
    images: dict[tuple[str, str], _ViaImage] = {}
    for line, row in read_rows(file):
        name = row.get("filename", "")
        key = (name, row.get("file_size", "")) if name else ("", f"line {line}")  # VIA's own key of an image
        image = images.setdefault(key, _ViaImage(name))
        if not name:
            image.fault = f"line {line} has no filename; add it or remove the line"
        elif row.get("region_count", "").strip() != "0":
            image.regions.append((f"line {line}", _csv_region(row)))
    return list(images.values())


def _csv_region(row: dict[str, str]) -> Any:
    """The region of a row; the text of a cell that is no json, which is an error later."""
    region: dict[str, Any] = {}
    for cell, key in (
        ("region_shape_attributes", "shape_attributes"),
        ("region_attributes", "region_attributes"),
    ):
        try:
            region[key] = json.loads(row.get(cell, ""))
        except (ValueError, RecursionError):
            region[key] = row.get(cell, "")
    return region


def _label_file(file: Path, entries: Sequence[_ViaImage], options: dict[str, Any], rank: int) -> LabelFile:
    regions = [region for entry in entries for _, region in entry.regions]
    attribute = _class_attribute(regions, file)
    images = tuple(_image(entry, attribute, file, number) for number, entry in enumerate(entries, 1))
    stated = options.get(attribute)
    order = stated.get("options") if isinstance(stated, dict) else None
    classes = tuple(name.strip() for name in order if is_text(name)) if isinstance(order, dict) else ()
    notes: tuple[Problem, ...] = ()
    if regions and not attribute:
        reason = f"no region has an attribute; all are taken as the one class {ONE_CLASS!r}"
        notes = (Problem("warning", file, "region_attributes", reason),)
    return LabelFile(file, images, classes, notes, rank)


def _class_attribute(regions: Sequence[Any], file: Path) -> str:
    """The region attribute that holds the class, "" if there is none. Raises DataError if several could."""
    rows = [region["region_attributes"] for region in regions if _has_attributes(region)]
    counts: Counter[str] = Counter(
        key for row in rows for key, value in row.items() if value not in ("", None, {})
    )
    everywhere = [key for key, count in counts.items() if count == len(rows)]
    candidates = everywhere or list(counts)
    named = [key for key in candidates if key.lower() in _PREFERRED]
    for group in (named, candidates):
        if len(group) == 1:
            return group[0]
    if not candidates and not any(rows):
        return ""
    if not candidates:
        reason = "no region has an attribute that could be its class; add one called `class` in VIA"
        raise DataError(reason, file=file, place="region_attributes")
    listed = ", ".join(sorted(candidates))
    reason = (
        f"several region attributes could be the class: {listed}; call that one `class`, or remove the others"
    )
    raise DataError(reason, file=file, place="region_attributes")


def _has_attributes(region: Any) -> bool:
    return isinstance(region, dict) and isinstance(region.get("region_attributes"), dict)


def _image(entry: _ViaImage, attribute: str, file: Path, number: int) -> StatedImage:
    image = StatedImage((entry.name,), file, f"image {entry.name}" if entry.name else f"image {number}")
    with image.reading(""):
        if entry.fault:
            raise LabelError(entry.fault)
    for place, region in entry.regions:
        with image.reading(place):
            _add(image, region, attribute, place)
    return image


def _add(image: StatedImage, region: Any, attribute: str, place: str) -> None:
    shape = region.get("shape_attributes") if isinstance(region, dict) else None
    if not isinstance(shape, dict) or not _has_attributes(region):
        raise LabelError("needs shape_attributes and region_attributes; correct or remove it")
    if shape.get("name") == "point":
        image.leave_out(place, "is a point, which has no extent, and is left out: draw a box")
        return
    box, kind = _box(shape)
    name = _class(region["region_attributes"].get(attribute)) if attribute else ONE_CLASS
    if name is None:
        raise LabelError(f"has no {attribute}; choose one in VIA or remove the region")
    image.add(name, box, f"{place} ({name})", kind)


def _class(value: Any) -> str | None:
    """The text of an attribute, or the one box that is ticked."""
    if isinstance(value, dict):
        ticked = [key for key, on in value.items() if yes_or_no(on, key)]
        if len(ticked) > 1:
            raise LabelError(f"has several classes ({', '.join(ticked)}); choose one in VIA")
        return ticked[0] if ticked else None
    if is_number(value):
        return str(value)
    return value.strip() if isinstance(value, str) and value.strip() else None


def _box(shape: dict[str, Any]) -> tuple[Corners, str]:
    kind = shape.get("name")
    if kind == "rect":
        x, y, width, height = numbers(shape, ("x", "y", "width", "height"))
        return (x, y, x + width, y + height), ""
    if kind == "circle":
        cx, cy, radius = numbers(shape, ("cx", "cy", "r"))
        return box_of_ellipse(cx, cy, radius, radius), "circle"
    if kind == "ellipse":
        cx, cy, rx, ry = numbers(shape, ("cx", "cy", "rx", "ry"))
        (theta,) = numbers(shape, ("theta",)) if "theta" in shape else (0.0,)
        return box_of_ellipse(cx, cy, rx, ry, math.degrees(theta)), "ellipse"
    if kind in ("polygon", "polyline"):  # a tuple, because `kind` may be a list
        return box_of_points(_points(shape)), str(kind)
    raise LabelError(
        f"is a {show(kind)}, known are rect, circle, ellipse, polygon and polyline; draw it as one of them"
    )


def _points(shape: dict[str, Any]) -> list[tuple[float, float]]:
    xs, ys = (_coordinates(shape, key) for key in ("all_points_x", "all_points_y"))
    if len(xs) != len(ys):
        raise LabelError(f"has {len(xs)} x and {len(ys)} y coordinates; correct or remove it")
    return list(zip(xs, ys, strict=True))


def _coordinates(shape: dict[str, Any], key: str) -> list[float]:
    values = shape.get(key)
    if not (isinstance(values, list) and values and all(map(is_number, values))):
        raise LabelError(f"{key} is {show(values)}, not a list of numbers; correct or remove it")
    return [float(value) for value in values]


VIA = Format(
    name="via",
    looked_for="a project, json or csv of VGG VIA",
    suffixes=(".json", ".csv"),
    is_label_file=_is_label_file,
    parse=_parse,
).reader()

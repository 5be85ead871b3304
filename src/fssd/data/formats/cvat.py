"""CVAT for images 1.1: annotations.xml, one `<image>` an image with its shapes as attributes."""

from __future__ import annotations

import re
from collections.abc import Callable
from pathlib import Path
from xml.etree import ElementTree

from fssd.data.formats.json_values import LARGEST
from fssd.data.formats.labels import Corners, yes_or_no
from fssd.data.formats.outlines import box_of_ellipse, box_of_points, box_of_rotated
from fssd.data.formats.stated import LabelFile, StatedImage
from fssd.data.formats.tool_format import Format
from fssd.data.formats.xml_text import first_bytes, xml_elements
from fssd.errors import DataError, LabelError

_ROOT = re.compile(rb"<annotations[\s>]")


def _is_label_file(file: Path) -> bool:
    return bool(_ROOT.search(first_bytes(file)))


def _parse(file: Path) -> LabelFile:
    images: list[StatedImage] = []
    classes: list[str] = []
    tracks = 0
    for element in xml_elements(file):
        if element.tag == "image":
            images.append(_image(element, file, len(images) + 1))
            element.clear()
        elif element.tag == "label" and (name := _text(element, "name")) and not _text(element, "parent"):
            classes.append(name)  # those with a parent are points of a skeleton
        tracks += element.tag == "track"
    if tracks and not images:
        reason = "holds the tracks of a video; export it from CVAT as `CVAT for images 1.1`"
        raise DataError(reason, file=file, place="track")
    return LabelFile(file, tuple(images), tuple(dict.fromkeys(classes)))


def _text(element: ElementTree.Element, tag: str) -> str:
    return (element.findtext(tag) or "").strip()


def _image(element: ElementTree.Element, file: Path, number: int) -> StatedImage:
    name = element.get("name", "").strip()
    image = StatedImage((name,), file, f"image {number} ({name})" if name else f"image {number}")
    image.split = element.get("subset", "")
    with image.reading(""):
        if not name:
            raise LabelError("has no name; give it the path of its picture or remove it")
        image.size = _size(element)
    for rank, shape in enumerate(element, 1):
        label = shape.get("label", "").strip()
        place = f"{shape.tag} {rank} ({label})" if label else f"{shape.tag} {rank}"
        with image.reading(place):
            _add(image, shape, label, place)
    return image


def _size(element: ElementTree.Element) -> tuple[int, int] | None:
    if element.get("width") is None and element.get("height") is None:
        return None
    width, height = _numbers(element, "width", "height")
    if min(width, height) < 1:
        raise LabelError(f"has a size of {width:g} x {height:g}; correct it")
    return round(width), round(height)


def _add(image: StatedImage, shape: ElementTree.Element, label: str, place: str) -> None:
    if shape.tag == "tag":
        image.leave_out(place, "is a tag of the whole image, not an object, and is left out")
    elif shape.tag in {"points", "skeleton"}:
        image.leave_out(place, "has no extent and is left out: draw a box around the object")
    elif shape.tag not in _BOXES:
        known = ", ".join(_BOXES)
        raise LabelError(f"is no shape known here ({known}); export the images again without it")
    else:
        box, kind = _BOXES[shape.tag](shape)
        difficult = any(
            yes_or_no(item.text, "attribute difficult")
            for item in shape.iter("attribute")
            if item.get("name") == "difficult"
        )
        image.add(label, box, place, kind, difficult=difficult)


def _box(shape: ElementTree.Element) -> tuple[Corners, str]:
    x1, y1, x2, y2 = _numbers(shape, "xtl", "ytl", "xbr", "ybr")
    (degrees,) = _numbers(shape, "rotation") if shape.get("rotation") else (0.0,)
    if degrees % 360 == 0:
        return (x1, y1, x2, y2), ""
    return box_of_rotated((x1, y1, x2, y2), degrees), "rotated box"


def _ellipse(shape: ElementTree.Element) -> tuple[Corners, str]:
    (degrees,) = _numbers(shape, "rotation") if shape.get("rotation") else (0.0,)
    cx, cy, rx, ry = _numbers(shape, "cx", "cy", "rx", "ry")
    return box_of_ellipse(cx, cy, rx, ry, degrees), "ellipse"


def _mask(shape: ElementTree.Element) -> tuple[Corners, str]:
    x, y, width, height = _numbers(shape, "left", "top", "width", "height")
    return (x, y, x + width, y + height), "mask"


def _cuboid(shape: ElementTree.Element) -> tuple[Corners, str]:
    keys = [
        f"{axis}{corner}"
        for corner in ("tl1", "bl1", "tr1", "br1", "tl2", "bl2", "tr2", "br2")
        for axis in "xy"
    ]
    values = _numbers(shape, *keys)
    return box_of_points(list(zip(values[::2], values[1::2], strict=True))), "cuboid"


def _drawn(kind: str) -> Callable[[ElementTree.Element], tuple[Corners, str]]:
    return lambda shape: (box_of_points(_points(shape)), kind)


_BOXES: dict[str, Callable[[ElementTree.Element], tuple[Corners, str]]] = {
    "box": _box,
    "polygon": _drawn("polygon"),
    "polyline": _drawn("polyline"),
    "ellipse": _ellipse,
    "mask": _mask,
    "cuboid": _cuboid,
}


def _points(shape: ElementTree.Element) -> list[tuple[float, float]]:
    """`10.0,20.0;30.0,40.0`"""
    pairs = [pair.split(",") for pair in shape.get("points", "").split(";")]
    if any(len(pair) != 2 for pair in pairs):
        raise LabelError(f"points is {shape.get('points')!r}, not a list like `1,2;3,4`; correct it")
    return [(_number(x, "points"), _number(y, "points")) for x, y in pairs]


def _numbers(element: ElementTree.Element, *keys: str) -> list[float]:
    return [_number(element.get(key), key) for key in keys]


def _number(word: str | None, key: str) -> float:
    try:
        value = float(word or "")
    except ValueError:
        value = LARGEST
    if not abs(value) < LARGEST:
        raise LabelError(f"{key} is {word!r}, not a number in range; correct or remove it")
    return value


CVAT = Format(
    name="cvat",
    looked_for="annotations.xml (CVAT for images)",
    suffixes=(".xml",),
    is_label_file=_is_label_file,
    parse=_parse,
).reader()

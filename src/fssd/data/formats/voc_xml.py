"""One xml file of Pascal VOC."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from xml.etree import ElementTree

from fssd.counted import counted
from fssd.data.formats.labels import LabelledObject, yes_or_no
from fssd.data.formats.xml_text import first_bytes, read_xml
from fssd.errors import LabelError

_ANNOTATION = re.compile(rb"<annotation[\s>]")  # CVAT's root is <annotations>


@dataclass(frozen=True)
class Annotation:
    """One XML file: the name and size in pixels (None: not stated) of the image, and its objects."""

    filename: str
    size: tuple[int, int] | None
    objects: tuple[LabelledObject, ...]


def is_annotation(file: Path) -> bool:
    """By a quick look at the file."""
    try:
        return bool(_ANNOTATION.search(first_bytes(file)))
    except OSError:  # for the parser to name
        return True


def parse_annotation(file: Path) -> Annotation | LabelError:
    """The content of a file, or what is wrong with it."""
    try:
        root = read_xml(file)
        objects = tuple(_object(item, number, file) for number, item in enumerate(root.findall("object"), 1))
        _require_all_read(root, len(objects), file)
        return Annotation(_word(root, "filename"), _size(root, file), objects)
    except LabelError as error:
        return error


def _require_all_read(root: ElementTree.Element, read: int, file: Path) -> None:
    """Raise LabelError for objects and boxes elsewhere than VOC has them, which would be lost unseen."""
    names = Counter(_object_tags(root))
    lost = max(names.values(), default=0) - read
    if lost > 0:
        reason = (
            f"holds {counted(lost, 'box')} besides those that are read, which are the one <bndbox> of each "
            "<object> right below <annotation>, without a namespace; write them so or remove them"
        )
        raise LabelError(reason, file=file)


def _object_tags(root: ElementTree.Element) -> Iterator[str]:
    """`object` and `bndbox` below the root in any spelling, without the boxes of VOC's parts of persons."""
    left = list(root)
    while left:
        item = left.pop()
        name = item.tag.rpartition("}")[2].lower()
        if name == "part":
            continue
        left += item
        if name in {"object", "bndbox"}:
            yield name


def _size(root: ElementTree.Element, file: Path) -> tuple[int, int] | None:
    size = root.find("size")
    if size is None:
        return None
    width, height = (round(_number(size, tag, "size", file)) for tag in ("width", "height"))
    if (width, height) == (0, 0):  # as some tools write what they do not know
        return None
    if width <= 0 or height <= 0:
        raise LabelError(f"has a <size> of {width} x {height}; correct it", file=file, place="size")
    return width, height


def _object(item: ElementTree.Element, number: int, file: Path) -> LabelledObject:
    name = _word(item, "name")
    place = f"object {number} ({name})" if name else f"object {number}"
    if not name:
        raise LabelError("has no <name>; give it a class or remove it", file=file, place=place)
    box = item.find("bndbox")
    if box is None:
        raise LabelError("has no <bndbox>; add one or remove the object", file=file, place=place)
    x1, y1, x2, y2 = (_number(box, side, place, file) for side in ("xmin", "ymin", "xmax", "ymax"))
    try:
        difficult = yes_or_no(item.findtext("difficult"), "<difficult>")
    except LabelError as error:
        raise LabelError(error.reason, file=file, place=place) from error
    return LabelledObject(name, (x1, y1, x2, y2), place, difficult)


def _number(parent: ElementTree.Element, tag: str, place: str, file: Path) -> float:
    word = _word(parent, tag)
    try:
        value = float(word)
    except ValueError:
        value = float("nan")
    if not abs(value) < float("inf"):
        raise LabelError(f"<{tag}> is {word!r}, not a finite number; correct it", file=file, place=place)
    return value


def _word(parent: ElementTree.Element, tag: str) -> str:
    return (parent.findtext(tag) or "").strip()

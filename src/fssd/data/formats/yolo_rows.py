"""One line of a YOLO label file: a box, a polygon or an oriented box, in shares of the image."""

from __future__ import annotations

import math
from codecs import BOM_UTF8, BOM_UTF16_BE, BOM_UTF16_LE
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from fssd.data.formats.labels import Corners, LabelledObject
from fssd.data.formats.outlines import box_of_points
from fssd.errors import LabelError

_SLACK = 1e-4  # share of the image by which rounding to a few digits may push a value beyond 0 or 1
_LOOKS_AT = 4096  # bytes


@dataclass(frozen=True)
class NameList:
    """The class names by number, and the file that states them. keypoints: numbers behind each box."""

    file: Path
    names: Mapping[int, str]
    keypoints: int = 0


def _first_words(file: Path) -> list[bytes]:
    """Of the first line that is not empty. Raises OSError."""
    with file.open("rb") as stream:
        start = stream.read(_LOOKS_AT)
    if start.startswith((BOM_UTF16_LE, BOM_UTF16_BE)):
        start = start.decode("utf-16", "ignore").encode()
    lines = start.removeprefix(BOM_UTF8).split(b"\n")
    return next((line.split() for line in lines if line.strip()), [])


def is_label_file(file: Path) -> bool | None:
    """Whether the first line is a row of labels; None of an empty file."""
    try:
        words = _first_words(file)
        values = list(map(float, words))
    except (OSError, ValueError):
        return False
    if not words:
        return None
    is_row = len(values) > 4 and values[0].is_integer() and values[0] >= 0
    return is_row and all(-_SLACK <= value <= 1 + _SLACK for value in values[1:])


def looks_like_labels(file: Path) -> bool:
    """Whether the first line is a row of numbers, also one with a fault such as a class by its name."""
    try:
        words = _first_words(file)
        return len(words) > 4 and all(math.isfinite(float(word)) for word in words[1:])
    except (OSError, ValueError):
        return False


def read_row(line: str, place: str, size: tuple[int, int], known: NameList) -> tuple[LabelledObject, str]:
    """The object of a line in pixels, and what it was if no box. Raises LabelError."""
    words = line.split()
    if not (len(words) >= 5 and (len(words) % 2 or len(words) - 5 == known.keypoints)):
        raise LabelError(f"has {len(words)} words where `class cx cy w h` has five", place=place)
    try:
        number, *values = map(float, words)
    except ValueError:
        raise LabelError(f"{line.strip()[:80]!r} is not five numbers: class cx cy w h", place=place) from None
    if not number.is_integer() or int(number) not in known.names:
        reason = (
            f"class {words[0]} is not among the {len(known.names)} classes of {known.file}, counted from 0"
        )
        raise LabelError(reason, place=place)
    values = values[:4] if len(values) - 4 == known.keypoints else values
    if not all(math.isfinite(value) and -_SLACK <= value <= 1 + _SLACK for value in values):
        reason = f"{' '.join(words[1:])[:80]!r} has a value outside 0..1; values are shares of the image"
        raise LabelError(reason, place=place)
    (x1, y1, x2, y2), kind = _box(values)
    box = (x1 * size[0], y1 * size[1], x2 * size[0], y2 * size[1])
    return LabelledObject(known.names[int(number)], box, place), kind


def _box(values: list[float]) -> tuple[Corners, str]:
    if len(values) == 4:
        cx, cy, w, h = values
        return (cx - w / 2, cy - h / 2, cx + w / 2, cy + h / 2), ""
    corners = list(zip(values[::2], values[1::2], strict=True))
    return box_of_points(corners), "oriented box" if len(values) == 8 else "polygon"

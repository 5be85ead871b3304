"""Makes a Record of the objects in a label file: one set of rules for every format."""

from __future__ import annotations

import math
import operator
from codecs import BOM_UTF16_BE, BOM_UTF16_LE
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np
import numpy.typing as npt

from fssd.data.sample import Problem, Record
from fssd.errors import DataError, LabelError, nearest

Corners = tuple[float, float, float, float]

LEAVES_BY = 0.5  # pixels; up to this a box that leaves its image is a rounding error
_LARGEST = 1e9  # pixels; keeps every coordinate finite in float32


class LabelledObject(NamedTuple):
    """One object as its label file states it. A tuple, because large files hold a million.

    name: class name. box: xyxy in pixels. place: where in the file, e.g. "object 3 (dog)" or "line 3".
    area: px^2 of the object itself, where the format states it.
    """

    name: str
    box: Corners
    place: str
    difficult: bool = False
    crowd: bool = False
    area: float | None = None


def yes_or_no(value: object, name: str) -> bool:
    """A value that means yes or no, also as 0, 1 or a word; no if it is missing. Raises LabelError."""
    if value is None or (type(value) is int and value in (0, 1)):
        return bool(value)
    word = str(value).strip().lower()
    if word in {"1", "1.0", "true", "yes"}:
        return True
    if word in {"0", "0.0", "false", "no", "none", ""}:
        return False
    raise LabelError(f"{name} is {word[:40]!r}, neither true nor false; correct it")


def read_lines(file: Path) -> list[str]:
    """The lines of a text file in UTF-8, or UTF-16 with its mark, as PowerShell writes. Raises DataError."""
    try:
        return _as_text(file.read_bytes()).splitlines()
    except (OSError, UnicodeDecodeError) as error:
        raise DataError(f"cannot be read as text ({error})", file=file) from error


def _as_text(content: bytes) -> str:
    if content.startswith((BOM_UTF16_LE, BOM_UTF16_BE)):
        text = content.decode("utf-16")
        if any(map(str.isascii, text)):  # other bytes may begin like the mark, and hold no end of a line
            return text
    return content.decode("utf-8-sig")


def build_record(
    image_id: str,
    path: Path,
    source: Path,
    size: tuple[int, int] | None,
    *,
    objects: Sequence[LabelledObject],
    index: Mapping[str, int],
) -> tuple[Record | None, list[Problem]]:
    """The record, with boxes clipped to the image; None if any object has an error. And all problems.

    size: (width, height) in pixels; boxes are not clipped if it is None. index: class name -> 0-based label.
    """
    boxes = np.array([item.box for item in objects], np.float64).reshape(-1, 4)
    known = [index.get(item.name, -1) for item in objects]
    problems: list[Problem] = []
    is_inside = _are_inside(boxes, size)
    if not (is_inside and min(known, default=0) >= 0):
        problems = [found for item in objects for found in _object_problems(item, size, index, source)]
        if any(problem.severity == "error" for problem in problems):
            return None, problems
    rounded = boxes.astype(np.float32)
    if size is not None and not is_inside:
        rounded = np.clip(rounded, 0, np.array(size * 2, np.float32))
    labels = np.array(known, np.int64)
    difficult = np.array([item.difficult for item in objects], np.bool_)
    crowd = np.array([item.crowd for item in objects], np.bool_)
    stated = [item.area for item in objects if item.area is not None]
    areas = np.array(stated, np.float64) if stated and len(stated) == len(objects) else None
    width, height = size or (None, None)
    return Record(image_id, path, source, width, height, rounded, labels, difficult, crowd, areas), problems


def _are_inside(boxes: npt.NDArray[np.float64], size: tuple[int, int] | None) -> bool:
    """Quickly whether all boxes are well inside their image, so that none has a problem."""
    if size is None:
        return False
    if not len(boxes):
        return True
    x1, y1, x2, y2 = boxes.T.tolist()
    if not math.isfinite(sum(map(sum, (x1, y1, x2, y2)))):
        return False
    widest, highest = size
    is_within = min(x1) >= 0 and min(y1) >= 0 and max(x2) <= widest and max(y2) <= highest
    sides = (*map(operator.sub, x2, x1), *map(operator.sub, y2, y1))
    return bool(is_within and min(sides) >= 0.01)


def missing_image(path: Path) -> Problem:
    """The problem of a label whose image is missing."""
    return Problem(
        "error",
        path,
        "",
        "the image file is missing; restore it, remove its labels, or give the folder of the images",
    )


def _object_problems(
    item: LabelledObject, size: tuple[int, int] | None, index: Mapping[str, int], source: Path
) -> list[Problem]:
    if item.name not in index:
        reason = f"unknown class {item.name!r}{nearest(item.name, index)}"
        return [Problem("error", source, item.place, reason)]
    if fault := box_fault(item.box, size):
        return [Problem("error", source, item.place, fault)]
    if size is not None and leaves(item.box, size):
        reason = f"box {_show(item.box)} leaves the image of {size[0]} x {size[1]}; it is clipped"
        return [Problem("warning", source, item.place, reason)]
    return []


def box_fault(box: Corners, size: tuple[int, int] | None) -> str:
    """What makes a box (xyxy, pixels) unusable in an image of (width, height); "" if nothing does."""
    if not all(math.isfinite(value) and abs(value) < _LARGEST for value in box):
        return f"box {_show(box)} has a coordinate that is not finite or too large; correct or remove it"
    x1, y1, x2, y2 = (float(np.float32(value)) for value in box)
    if x2 <= x1:
        return f"box {_show(box)} has xmax <= xmin; correct or remove it"
    if y2 <= y1:
        return f"box {_show(box)} has ymax <= ymin; correct or remove it"
    if size is not None and (x2 <= 0 or y2 <= 0 or x1 >= size[0] or y1 >= size[1]):
        return f"box {_show(box)} lies outside the image of {size[0]} x {size[1]}; correct or remove it"
    return ""


def leaves(box: Corners, size: tuple[int, int]) -> bool:
    """Whether a box leaves an image of (width, height) by more than a rounding error."""
    return max(-box[0], -box[1], box[2] - size[0], box[3] - size[1]) > LEAVES_BY


def _show(box: Corners) -> str:
    return "(" + ", ".join(f"{value:g}" for value in box) + ")"

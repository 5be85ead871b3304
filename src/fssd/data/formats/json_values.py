"""Values of json files, checked: json has no types that a reader may rely on. And a quick look at a file."""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Iterator
from functools import lru_cache
from pathlib import Path
from typing import Any, TypeGuard

from fssd.errors import DataError, LabelError

LARGEST = 1e9  # of a number that may be a coordinate
_LOOKS = (4096, 1 << 18)  # bytes read to tell the format; the second only if the first do not tell
_TOKEN = re.compile(rb'"((?:[^"\\]|\\.)*)"\s*(:?)|[{}\[\]]')


def read_json(file: Path, keep: Callable[[dict[str, Any]], Any] | None = None) -> Any:
    """The content of a json file, of which `keep` may drop what needs much memory.

    Raises DataError with the line of a fault.
    """
    try:
        return json.loads(file.read_bytes(), object_hook=keep)
    except FileNotFoundError as error:
        raise DataError("the annotation file is missing", file=file) from error
    except json.JSONDecodeError as error:
        place = f"line {error.lineno} column {error.colno}"
        raise DataError(f"is not valid json: {error.msg}", file=file, place=place) from error
    except (OSError, ValueError, RecursionError) as error:
        raise DataError(f"cannot be read as json ({error})", file=file) from error


def is_number(value: object) -> TypeGuard[int | float]:
    """A finite number that may be a coordinate. `true` is none, nor is 10^400."""
    return isinstance(value, (int, float)) and not isinstance(value, bool) and abs(value) < LARGEST


def is_text(value: object) -> bool:
    return isinstance(value, str) and bool(value.strip())


def show(value: object) -> str:
    """A value for a message, shortened."""
    text = repr(value)
    return text if len(text) <= 40 else f"{text[:37]}..."


def numbers(row: object, keys: tuple[str, ...]) -> tuple[float, ...]:
    """The values of an object's keys. Raises LabelError."""
    if not isinstance(row, dict):
        raise LabelError(f"is {show(row)}, not an object with {', '.join(keys)}; correct or remove it")
    for key in keys:
        if not is_number(row.get(key)):
            fault = f"is {show(row[key])}, not a number in range" if key in row else "is missing"
            raise LabelError(f"{key} {fault}; correct or remove it")
    return tuple(float(row[key]) for key in keys)


def points(value: object, key: str = "points") -> list[tuple[float, float]]:
    """A list of x, y pairs. Raises LabelError."""
    if not isinstance(value, list) or not value:
        raise LabelError(f"{key} is {show(value)}, not a list of x, y pairs; correct or remove it")
    for pair in value:
        if not (isinstance(pair, list) and len(pair) >= 2 and all(map(is_number, pair[:2]))):
            raise LabelError(f"{key} holds {show(pair)}, not a pair of numbers; correct or remove it")
    return [(float(pair[0]), float(pair[1])) for pair in value]


def pixels(width: object, height: object) -> tuple[int, int] | None:
    """An image size; None if neither side is stated. Raises LabelError."""
    if width is None and height is None:
        return None
    for side in (width, height):
        if not (is_number(side) and side > 0.5):
            raise LabelError(f"width {show(width)} and height {show(height)} are no size in pixels")
    assert is_number(width) and is_number(height)
    return round(width), round(height)


def json_format(file: Path) -> str:
    """The label format that the beginning of a json file shows; "" for none of those known here."""
    try:
        facts = file.stat()
        return _json_format(file, facts.st_mtime_ns, facts.st_size)
    except OSError:
        return ""


@lru_cache(maxsize=1 << 17)
def _json_format(file: Path, _changed: int, size: int) -> str:
    for limit in _LOOKS:
        with file.open("rb") as stream:
            text = stream.read(limit).lstrip(b"\xef\xbb\xbf \t\r\n")
        known = _of_object(text) if text.startswith(b"{") else _of_list(text) if text[:1] == b"[" else ""
        if known or size <= limit:
            return known
    return "coco" if text.startswith(b"{") and _begins_as_coco(text) else ""


def _begins_as_coco(text: bytes) -> bool:
    """A list so long that no other key of the file is in sight, of COCO's images or annotations."""
    keys = {"images": {"file_name"}, "annotations": {"image_id", "category_id"}}
    top, inner = "", {name: set[str]() for name in keys}
    for depth, key in _keys(text):
        top = key if depth == 1 else top
        if depth == 3 and top in inner:
            inner[top].add(key)
    return any(wanted <= inner[name] for name, wanted in keys.items())


def _keys(text: bytes) -> Iterator[tuple[int, str]]:
    """(depth, key) of the keys of objects, in order. Keys of the outermost object have depth 1."""
    depth = 0
    for match in _TOKEN.finditer(text):
        token = match[0]
        if token in b"{[":
            depth += 1
        elif token in b"}]":
            depth -= 1
        elif match[2]:
            yield depth, match[1].decode("utf-8", "replace")


def _of_object(text: bytes) -> str:
    top: set[str] = set()
    inner: set[str] = set()
    for depth, key in _keys(text):
        (top if depth == 1 else inner).add(key)
        if len(top & {"images", "annotations", "categories"}) > 1:
            return "coco"
        if top & {"_via_settings", "_via_img_metadata"} or _is_via_image(inner):
            return "via"
        shown = "imagePath" in top or {"version", "flags"} <= top or "points" in inner
        if "imageData" in top or ("shapes" in top and shown):
            return "labelme"
    return ""


def _is_via_image(keys: set[str]) -> bool:
    return "regions" in keys and bool(keys & {"filename", "fileref", "file_attributes"})


def _of_list(text: bytes) -> str:
    item: set[str] = set()
    inner: set[str] = set()
    for depth, key in _keys(text):
        (item if depth == 2 else inner).add(key)
        if "original_width" in inner or item & {"annotation_id", "annotator", "completions"}:
            return "label-studio"
        if item & {"annotations", "predictions"} and ("data" in item or "result" in inner):
            return "label-studio"
        if "coordinates" in inner and item & {"annotations", "annotation"}:
            return "createml"
    is_createml = item & {"image", "imagefilename"} and item & {"annotations", "annotation"}
    return "createml" if is_createml and "id" not in item else ""

"""Label Studio's JSON and JSON-MIN: a list of tasks, coordinates in percent of the image."""

from __future__ import annotations

from collections.abc import Callable, Collection
from pathlib import Path, PurePosixPath
from typing import Any

import numpy as np

from fssd.data.decode import IMAGE_EXTENSIONS
from fssd.data.formats.json_values import is_text, json_format, numbers, pixels, points, read_json, show
from fssd.data.formats.labels import Corners, yes_or_no
from fssd.data.formats.lookup import picture_names
from fssd.data.formats.outlines import box_of_ellipse, box_of_points, box_of_rotated
from fssd.data.formats.stated import LabelFile, StatedImage
from fssd.data.formats.tool_format import Format
from fssd.data.sample import Problem
from fssd.errors import DataError, LabelError

Size = tuple[int, int]


def _parse(file: Path) -> LabelFile:
    content = read_json(file)
    if not isinstance(content, list):
        raise DataError("is no Label Studio export: it must hold a list of tasks", file=file)
    is_full = any(isinstance(task, dict) and isinstance(task.get("data"), dict) for task in content)
    images: list[StatedImage] = []
    skipped: dict[str, int] = {}
    seen: set[tuple[int, str]] = set()
    for number, task in enumerate(content, 1):
        key = task.get("id") if isinstance(task, dict) else None
        if not is_full and isinstance(key, int):  # JSON-MIN repeats a task for each annotation
            own = key, _picture_url(task)
            if own in seen:
                skipped[_FURTHER] = skipped.get(_FURTHER, 0) + 1
                continue
            seen.add(own)
        image, reason = _full(task, file, number) if is_full else _minimal(task, file, number)
        images += [image] if image is not None else []
        if reason:
            skipped[reason] = skipped.get(reason, 0) + 1
    notes = tuple(Problem("warning", file, "", f"{reason}: {count}") for reason, count in skipped.items())
    return LabelFile(file, tuple(images), notes=notes, rank=0 if is_full else 1)


_FURTHER = "left out further annotations of images that have one already"
_UNLABELLED = "left out tasks without an annotation"


def _full(task: Any, file: Path, number: int) -> tuple[StatedImage | None, str]:
    """The image of a task, None if nobody has annotated it; and what was left out."""
    data = task.get("data") if isinstance(task, dict) else None
    image = _image(data, file, number)
    if image.problems:
        return image, ""
    rows = task.get("annotations", task.get("completions")) if isinstance(task, dict) else None
    listed = rows if isinstance(rows, list) else []
    usable = [row for row in listed if isinstance(row, dict)]
    with image.reading(""):
        usable = [row for row in usable if not yes_or_no(row.get("was_cancelled"), "was_cancelled")]
        usable.sort(key=lambda row: not yes_or_no(row.get("ground_truth"), "ground_truth"))
        if isinstance(rows, list) and not usable:
            return None, _UNLABELLED
        results = usable[0].get("result") if usable else None
        if not isinstance(results, list):
            raise LabelError(f"annotations is {show(rows)}, which holds no list `result`; correct it")
        labelled = {str(item.get("id")) for item in results if _labels(_value(item)) is not None}
        for rank, item in enumerate(results, 1):
            with image.reading(_place(rank, _value(item))):
                _add(image, item, _value(item), labelled, rank)
    return image, _FURTHER if len(usable) > 1 else ""


def _minimal(task: Any, file: Path, number: int) -> tuple[StatedImage, str]:
    """Every list of objects with `original_width` holds shapes, whatever the control tag is called."""
    image = _image(task, file, number)
    lists = [value for value in task.values() if isinstance(value, list)] if isinstance(task, dict) else []
    shapes = [
        item for value in lists for item in value if isinstance(item, dict) and "original_width" in item
    ]
    for rank, item in enumerate(shapes, 1):
        with image.reading(_place(rank, item)):
            _add(image, item, item, (), rank)
    return image, ""


def _image(data: Any, file: Path, number: int) -> StatedImage:
    url = _picture_url(data)
    image = StatedImage(
        picture_names(url) or ("",), file, f"task {number} ({url})" if url else f"task {number}"
    )
    with image.reading(""):
        if not url:
            raise LabelError("has no text that names a picture; add `image` or remove the task")
    return image


def _picture_url(data: Any) -> str:
    """The value of `image`, or the first that ends like a picture."""
    texts = {key: value for key, value in data.items() if is_text(value)} if isinstance(data, dict) else {}
    pictures = [
        value
        for value in texts.values()
        if any(_suffix(name) in IMAGE_EXTENSIONS for name in picture_names(value))
    ]
    return str(texts.get("image") or next(iter(pictures), ""))


def _suffix(name: str) -> str:
    return PurePosixPath(name).suffix.lower()


def _value(item: Any) -> dict[str, Any]:
    value = item.get("value") if isinstance(item, dict) else None
    return value if isinstance(value, dict) else {}


def _labels(value: dict[str, Any]) -> list[Any] | None:
    """The list in `rectanglelabels`, `polygonlabels`, ... or `labels`."""
    found = [item for key, item in value.items() if key.endswith("labels")]
    return found[0] if found and isinstance(found[0], list) else None


def _place(rank: int, value: dict[str, Any]) -> str:
    labels = _labels(value)
    return f"region {rank} ({labels[0]})" if labels else f"region {rank}"


def _add(image: StatedImage, item: Any, value: dict[str, Any], labelled: Collection[str], rank: int) -> None:
    labels = _labels(value)
    place = _place(rank, value)
    if labels is None and (not _is_shape(value) or str(item.get("id")) in labelled):
        if not _is_shape(value) and isinstance(item, dict) and item.get("type") not in (None, "relation"):
            image.leave_out(place, f"is no shape but {show(item['type'])} and is left out")
        return
    if "keypointlabels" in value or (labels is not None and not _is_shape(value)):
        image.leave_out(place, "has no extent and is left out: draw a box around the object")
        return
    if not labels or len(labels) != 1:
        found = ", ".join(map(str, labels or [])) or "no class"
        raise LabelError(f"has {found} where one class is needed; correct it in Label Studio")
    size = pixels(item.get("original_width"), item.get("original_height"))
    if size is not None:
        image.size = size
    elif image.size is None:
        raise LabelError("has no original_width and original_height; export it again from Label Studio")
    box, kind = _box(value, image.size)
    image.add(labels[0], box, place, kind)


def _is_shape(value: dict[str, Any]) -> bool:
    return any(key in value for key in ("width", "points", "vertices", "radiusX", "rle"))


def _box(value: dict[str, Any], size: Size) -> tuple[Corners, str]:
    width, height = size
    if "rle" in value:
        return _box_of_brush(value["rle"], size), "mask"
    if "points" in value or "vertices" in value:
        key = "points" if "points" in value else "vertices"
        corners = points(
            [
                [row["x"], row["y"]] if isinstance(row, dict) and {"x", "y"} <= row.keys() else row
                for row in value[key]
            ]
            if isinstance(value[key], list)
            else value[key],
            key,
        )
        return box_of_points([(x * width / 100, y * height / 100) for x, y in corners]), "polygon"
    (degrees,) = numbers(value, ("rotation",)) if value.get("rotation") is not None else (0.0,)
    if "radiusX" in value:
        cx, cy, rx, ry = numbers(value, ("x", "y", "radiusX", "radiusY"))
        pairs = (cx * width / 100, cy * height / 100, rx * width / 100, ry * height / 100)
        return box_of_ellipse(*pairs, degrees), "ellipse"
    x, y, w, h = numbers(value, ("x", "y", "width", "height"))
    box = (x * width / 100, y * height / 100, (x + w) * width / 100, (y + h) * height / 100)
    if degrees % 360 == 0:
        return box, ""
    return box_of_rotated(box, degrees, pivot=box[:2]), "rotated box"  # about the top left corner


def _box_of_brush(rle: Any, size: Size) -> Corners:
    """The box of a brush stroke, in pixels."""
    if not (isinstance(rle, list) and all(isinstance(byte, int) and 0 <= byte < 256 for byte in rle)):
        raise LabelError("rle is no list of bytes; correct or remove it")
    try:
        values = _unpack(bytes(rle), 4 * size[0] * size[1])
    except (IndexError, ValueError):
        raise LabelError("rle is cut or damaged; export it again from Label Studio") from None
    opaque = values.reshape(size[1], size[0], 4)[..., 3] > 0
    ys, xs = np.nonzero(opaque)
    if not len(xs):
        raise LabelError("is a brush stroke without a pixel; remove it")
    return float(xs.min()), float(ys.min()), float(xs.max() + 1), float(ys.max() + 1)


def _unpack(data: bytes, count: int) -> np.ndarray:
    """RGBA bytes of the packing that Label Studio's brush writes (rle-pack): a bit stream of runs.

    32 bits the number of values, 5 the bits of a value less 1, four times 4 the bits of a run length less 1.
    Then for each run: 1 bit whether it repeats one value, 2 bits which length, the length less 1, value(s).
    """
    read = _bits(data)
    if read(32) != count:
        raise ValueError("not the size of the image")
    word = read(5) + 1
    sizes = [read(4) + 1 for _ in range(4)]
    values = np.zeros(count, np.uint32)
    at = 0
    while at < count:
        repeats = read(1)
        end = at + 1 + read(sizes[read(2)])
        if end > count:
            raise ValueError("runs over the end")
        values[at:end] = read(word) if repeats else [read(word) for _ in range(end - at)]
        at = end
    return values


def _bits(data: bytes) -> Callable[[int], int]:
    """Reads the next bits of some bytes as a number. Raises IndexError at the end."""
    at = 0

    def read(count: int) -> int:
        nonlocal at
        first, last = at // 8, (at + count + 7) // 8
        if last > len(data):
            raise IndexError
        value = int.from_bytes(data[first:last], "big") >> (last * 8 - at - count)
        at += count
        return value & ((1 << count) - 1)

    return read


LABEL_STUDIO = Format(
    name="label-studio",
    looked_for="a JSON or JSON-MIN export (Label Studio)",
    suffixes=(".json",),
    is_label_file=lambda file: json_format(file) == "label-studio",
    parse=_parse,
).reader()

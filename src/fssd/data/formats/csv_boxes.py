"""One box a row: csv of TensorFlow's object detection, RetinaNet, Open Images and VoTT."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from fssd.data.decode import IMAGE_EXTENSIONS
from fssd.data.formats.csv_rows import first_row, read_words
from fssd.data.formats.json_values import LARGEST
from fssd.data.formats.labels import yes_or_no
from fssd.data.formats.lookup import visible_glob
from fssd.data.formats.stated import LabelFile, StatedImage
from fssd.data.formats.tool_format import Format
from fssd.errors import DataError, LabelError

# What the column is called, in lower case, by what it holds.
_COLUMNS = {
    "image": ("filename", "image", "path", "imageid", "image_id", "image_path", "img_path", "file_name"),
    "class": ("class", "label", "labelname", "class_name"),
    "x1": ("xmin", "x1", "x_min"),
    "y1": ("ymin", "y1", "y_min"),
    "x2": ("xmax", "x2", "x_max"),
    "y2": ("ymax", "y2", "y_max"),
    "width": ("width", "image_width"),
    "height": ("height", "image_height"),
    "crowd": ("isgroupof",),
}
_SIDES = ("x1", "y1", "x2", "y2")
_RETINANET = {"image": 0, "x1": 1, "y1": 2, "x2": 3, "y2": 4, "class": 5}
_TABLES = "*class*.csv"
_NUMBER = re.compile(r"[+-]?(\d+\.?\d*|\.\d+)([eE][+-]?\d+)?")


def _is_label_file(file: Path) -> bool:
    words = first_row(file)
    return _columns(words) is not None or _is_row(words)


def _columns(words: Sequence[str]) -> dict[str, int] | None:
    """Where each column stands; None if the row is no header of boxes."""
    lower = [word.lower() for word in words]
    found: dict[str, int] = {}
    for column, names in _COLUMNS.items():
        name = next((name for name in names if name in lower), None)
        if name is not None:
            found[column] = lower.index(name)
    return found if all(column in found for column in ("image", "class", *_SIDES)) else None


def _is_row(words: Sequence[str]) -> bool:
    """Whether a row is one of RetinaNet's files without header: path,x1,y1,x2,y2,class or path,,,,,"""
    if len(words) != 6 or Path(words[0]).suffix.lower() not in IMAGE_EXTENSIONS:
        return False
    return not any(words[1:]) or (bool(words[5]) and all(map(_NUMBER.fullmatch, words[1:5])))


def _parse(file: Path) -> LabelFile:
    header = first_row(file)
    columns = _columns(header)
    rows = read_words(file)
    if columns is None:
        table = _Table(_RETINANET, tuple(_RETINANET))
    else:
        next(rows, None)
        is_open_images = "imageid" in [word.lower() for word in header]
        names = _class_names(file) if is_open_images else {}
        table = _Table(columns, tuple(header), names, shares=is_open_images)
    return LabelFile(file, tuple(_images(file, rows, table)), _stated_classes(file))


@dataclass(frozen=True)
class _Table:
    """How a file is written. columns: where each stands. titles: what the file calls them.

    names: the name to show for a class, e.g. of /m/01g317. shares: boxes are shares of the image.
    """

    columns: Mapping[str, int]
    titles: Sequence[str]
    names: Mapping[str, str] = field(default_factory=dict)
    shares: bool = False

    def number(self, row: Mapping[str, str], column: str) -> float:
        word = row[column]
        value = float(word) if _NUMBER.fullmatch(word) else LARGEST
        if not abs(value) < LARGEST:
            title = self.titles[self.columns[column]]
            raise LabelError(f"{title} is {word[:40]!r}, not a number in range; correct or remove it")
        return value


def _images(file: Path, rows: Iterator[tuple[int, list[str]]], table: _Table) -> list[StatedImage]:
    """The images in the order of their first rows."""
    images: dict[str, StatedImage] = {}
    column = table.columns["image"]
    for line, words in rows:
        stated = words[column] if column < len(words) else ""
        key = stated or f"/line {line}"
        image = images.setdefault(key, StatedImage((stated,), file, "", shares=table.shares))
        with image.reading(f"line {line}"):
            _add(image, line, words, table)
    return list(images.values())


def _add(image: StatedImage, line: int, words: Sequence[str], table: _Table) -> None:
    needed = max(table.columns.values()) + 1
    if len(words) < needed:
        raise LabelError(f"has {len(words)} words, needed are {needed}; correct or remove it")
    row = {column: words[number] for column, number in table.columns.items()}
    if not row["image"]:
        raise LabelError("names no image; add the name or remove the line")
    if not any(row[column] for column in ("class", *_SIDES)):
        return  # an image without objects
    x1, y1, x2, y2 = (table.number(row, column) for column in _SIDES)
    if "width" in row and "height" in row:
        size = round(table.number(row, "width")), round(table.number(row, "height"))
        if min(size) < 1 or image.size not in (None, size):
            stated = f"; a line before states {image.size[0]} x {image.size[1]}" if image.size else ""
            raise LabelError(f"states an image of {size[0]} x {size[1]}{stated}; correct it")
        image.size = size
    name = table.names.get(row["class"], row["class"])
    stated = row.get("crowd", "")
    crowd = stated != "-1" and yes_or_no(stated, "IsGroupOf")  # -1: not known
    image.add(name, (x1, y1, x2, y2), f"line {line} ({name})", crowd=crowd)


def _class_names(file: Path) -> dict[str, str]:
    """The names in Open Images' class-descriptions file beside the labels or one folder up."""
    for folder in (file.parent, file.parent.parent):
        for table in visible_glob(folder, "*class-descriptions*.csv"):
            return {words[0]: words[1] for _, words in read_words(table) if len(words) == 2}
    return {}


def _stated_classes(file: Path) -> tuple[str, ...]:
    """The names in RetinaNet's file of classes (name,id) beside the labels, in the order of their ids."""
    for table in visible_glob(file.parent, _TABLES):
        rows = list(read_words(table)) if table != file and len(first_row(table)) == 2 else []
        if not all(words[1:] and words[1].isdecimal() for _, words in rows[1:]):
            continue
        pairs = [(int(words[1]), words[0]) for _, words in rows if len(words) == 2 and words[1].isdecimal()]
        if len(dict(pairs)) < len(pairs):
            raise DataError("gives one id to two classes; correct it", file=table)
        if pairs:
            return tuple(dict.fromkeys(name for _, name in sorted(pairs)))
    return ()


CSV = Format(
    name="csv",
    looked_for="a csv with a box a row (TensorFlow, RetinaNet, Open Images, VoTT)",
    suffixes=(".csv",),
    is_label_file=_is_label_file,
    parse=_parse,
    tables=_TABLES,
    for_shares="name the columns as Open Images does: ImageID,LabelName,XMin,XMax,YMin,YMax",
).reader()

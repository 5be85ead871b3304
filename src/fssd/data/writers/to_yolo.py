"""YOLO: data.yaml, images/<split> and labels/<split>, a text file an image: `class cx cy w h`."""

from __future__ import annotations

import re
from pathlib import Path, PurePosixPath
from typing import Any

import yaml

from fssd.data.formats.yolo_yaml import SPLITS
from fssd.data.writers.writer import Writer, WrittenImage, WrittenSet, write_text
from fssd.errors import ConfigError

_NAMES = {
    "": "train",
    "training": "train",
    "valid": "val",
    "validation": "val",
    "dev": "val",
    "testing": "test",
}


def _write(root: Path, content: WrittenSet) -> None:
    if not content.classes:
        raise ConfigError("YOLO's data.yaml needs a class, and there is none")
    for split, images in content.splits.items():
        labels = PurePosixPath("labels", split)
        for image in images:
            file = labels / image.file.relative_to(f"images/{split}").with_suffix(".txt")
            write_text(root / file, _rows(image, content))
    # Without `path`, the folders are those beside the file, wherever the data set lies.
    described: dict[str, Any] = {split: f"images/{split}" for split in SPLITS if split in content.splits}
    described = {**described, "names": dict(enumerate(content.classes))}
    write_text(root / "data.yaml", yaml.safe_dump(described, sort_keys=False, allow_unicode=True))


def _rows(image: WrittenImage, content: WrittenSet) -> str:
    width, height = image.size
    rows = []
    for item in content.objects(image):
        x1, y1, x2, y2 = item.box
        shares = ((x1 + x2) / 2 / width, (y1 + y2) / 2 / height, (x2 - x1) / width, (y2 - y1) / height)
        rows.append(f"{item.label} {' '.join(f'{share:.10g}' for share in shares)}\n")
    return "".join(rows)


def _split(name: str) -> str:
    word = re.sub(r"(19|20)\d\d$", "", name.lower())
    found = _NAMES.get(word, word)
    if found not in SPLITS:
        raise ConfigError(
            f"YOLO's data.yaml has train, val and test, and {name!r} is none of them; choose with --splits"
        )
    return found


YOLO_WRITER = Writer(
    name="yolo",
    title="YOLO",
    holds=frozenset({"classes", "folders"}),
    folder=lambda split: f"images/{split}",
    write=_write,
    file_each=True,
    split=_split,
)

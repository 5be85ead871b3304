"""The contract of a format that labels are written in. A new one is one file and one row in `WRITERS`."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import Any, Literal

from fssd.data.formats.labels import Corners
from fssd.data.sample import Record

Part = Literal["difficult", "crowd", "areas", "classes", "scores", "folders", "any split"]


@dataclass(frozen=True)
class WrittenObject:
    """One object as it is written.

    box: xyxy in pixels, the shortest decimals that name the float32 values. area: px^2 of the object itself,
    None if it is not known. score: 0..1 of a draft, None for a label that a person made.
    """

    name: str
    label: int
    box: Corners
    difficult: bool
    crowd: bool
    area: float | None
    score: float | None

    @property
    def width(self) -> float:
        return round(self.box[2] - self.box[0], 6)

    @property
    def height(self) -> float:
        return round(self.box[3] - self.box[1], 6)


@dataclass(frozen=True)
class WrittenImage:
    """An image and where its picture lies.

    file: the picture below the root of the data set written. size: (width, height) in pixels once EXIF has
    turned the picture. scores: (N,) of the objects if a model drafted them.
    """

    record: Record
    file: PurePosixPath
    size: tuple[int, int]
    scores: Sequence[float] | None = None


@dataclass(frozen=True)
class WrittenSet:
    """What is written. splits: by name; the name is "" where the source has no splits.

    model: the name of the model that drafted the labels, "" for labels of persons.
    category_ids: of the classes in COCO's json.
    """

    classes: tuple[str, ...]
    splits: dict[str, tuple[WrittenImage, ...]]
    category_ids: tuple[int, ...]
    model: str = ""

    @property
    def images(self) -> Iterator[WrittenImage]:
        """Every image of every split."""
        for images in self.splits.values():
            yield from images

    def objects(self, image: WrittenImage) -> Iterator[WrittenObject]:
        record, scores = image.record, image.scores
        for index, (corners, label) in enumerate(zip(record.boxes, record.labels.tolist(), strict=True)):
            x1, y1, x2, y2 = (float(str(value)) for value in corners)  # str of a float32 is the shortest
            yield WrittenObject(
                self.classes[label],
                label,
                (x1, y1, x2, y2),
                bool(record.difficult[index]),
                bool(record.crowd[index]),
                None if record.areas is None else float(record.areas[index]),
                None if scores is None else round(float(scores[index]), 4),
            )


@dataclass(frozen=True)
class Writer:
    """One format.

    name: as `--to` has it. title: its name in messages. holds: what the format has a place for; "folders" are
    folders below that of a split, "any split" splits of any name.
    folder: the folder of a split's pictures; the name is "" where there are no splits.
    write: the label files of a set, into the folder that holds its pictures.
    class_file: where the classes stand that no label file holds. file_each: each image has a label file of
    its own, named like the picture. split: the format's name for a split; raises ConfigError if it has none.
    """

    name: str
    title: str
    holds: frozenset[Part]
    folder: Callable[[str], str]
    write: Callable[[Path, WrittenSet], None]
    class_file: str = ""
    file_each: bool = False
    split: Callable[[str], str] = lambda name: name


def write_text(file: Path, text: str) -> None:
    file.parent.mkdir(parents=True, exist_ok=True)
    file.write_text(text, encoding="utf-8", newline="\n")


def write_json(file: Path, content: Any, indent: int | None = 1) -> None:
    """ASCII alone, because some tools read json in the encoding of the machine."""
    write_text(file, json.dumps(content, indent=indent) + "\n")


def decimal(value: float) -> str:
    """Whole numbers without a point, for programs that read coordinates as integers."""
    return str(int(value)) if value.is_integer() else repr(value)

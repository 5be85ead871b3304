"""An image and its labels on the way from files to the network: Record (not decoded), Sample (decoded)."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

import numpy as np
import numpy.typing as npt

from fssd.data.stored import PictureSource, StoredPicture

Boxes = npt.NDArray[np.float32]  # (N, 4) xyxy, absolute pixels
Labels = npt.NDArray[np.int64]  # (N,) index into the class names, 0-based, without background
Flags = npt.NDArray[np.bool_]  # (N,)
Image = npt.NDArray[np.uint8]  # (H, W, 3) RGB

Severity = Literal["error", "warning"]


@dataclass(frozen=True)
class Problem:
    """One finding about a data set.

    severity: "error" makes the image unusable; "warning" is repaired (a box is clipped) or harmless.
    file: the file that holds the fault. place: where in it: a line, object, row, json key; "" for all of it.
    """

    severity: Severity
    file: Path
    place: str
    reason: str


@dataclass(frozen=True)
class Record:
    """One image of a data set and its labels, before anything is decoded.

    image_id: unique in its data set; the VOC stem, the COCO id, or the YOLO path under the images folder.
    path: the image file. source: the file that the labels came from.
    stored: where a picture in a shard lies; its path is a name only.
    width, height: pixels, as the labels declare them; None where the format does not say.
    difficult: hard to see (Pascal VOC). crowd: one box for many objects (COCO iscrowd). A reader reports all
    objects, flagged or not. Evaluation ignores flagged ones; `load_sample` chooses which to train on.
    areas: (N,) px^2 of the objects themselves (COCO's masks); None where the format does not say.
    """

    image_id: str
    path: Path
    source: Path
    width: int | None
    height: int | None
    boxes: Boxes
    labels: Labels
    difficult: Flags
    crowd: Flags
    areas: npt.NDArray[np.float64] | None = None
    stored: StoredPicture | None = None

    @property
    def picture(self) -> PictureSource:
        """What the image is read from."""
        return self.stored or self.path


@dataclass(frozen=True)
class DataSet:
    """Class names and records of one split, and the problems that the reader found.

    records: a tuple, or the table of `open_data`, which makes a record each time it is asked for one.
    An image with an error is not in `records`; its error is in `problems`.
    """

    classes: tuple[str, ...]
    records: Sequence[Record]
    problems: tuple[Problem, ...] = ()
    facts: dict[str, Any] = field(default_factory=dict)  # of the reader, e.g. COCO category ids

    def __len__(self) -> int:
        return len(self.records)


@dataclass(frozen=True)
class Sample:
    """A decoded image with its labels. name: the image file, for messages."""

    image: Image
    boxes: Boxes
    labels: Labels
    difficult: Flags
    name: str


def background_record(image_id: str, path: Path) -> Record:
    """A record of an image without labels."""
    boxes, labels, flags = np.zeros((0, 4), np.float32), np.zeros(0, np.int64), np.zeros(0, bool)
    return Record(image_id, path, path, None, None, boxes, labels, flags, flags)

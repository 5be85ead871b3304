"""Detections as they were found, not rounded, on disk: what VOC's and COCO's files are made of in the end."""

from __future__ import annotations

import json
from collections.abc import Collection, Iterator
from pathlib import Path

import numpy as np

from fssd.atomic import atomic_path, names_file
from fssd.inference.detections import Detections


class ExactRows:
    """A file with a line of JSON for each image, in the order they were done.

    kept: the images of an earlier file that stay in it, each once; the others are taken out. Whatever ends
    the program, the file holds all lines of before or all that stay.
    """

    def __init__(self, path: Path, kept: Collection[str] = ()) -> None:
        self.path = path
        left = set(kept)
        with atomic_path(path) as temporary, temporary.open("wb") as file:
            for line in _whole_lines(path):
                if (image := _image(line)) in left:
                    left.discard(image)
                    file.write(line)
        self._file = path.open("ab", buffering=0)

    def add(self, image: str, found: Detections) -> None:
        """Write an image down. Raises OSError with the name of the file, e.g. for a full disk."""
        row = [image, found.boxes.tolist(), found.scores.tolist(), found.labels.tolist()]
        line = json.dumps(row).encode() + b"\n"
        with names_file(self.path):
            written = 0
            while written < len(line):  # a disk that fills up takes a part
                written += self._file.write(line[written:])

    def read(self, classes: tuple[str, ...]) -> Iterator[Detections]:
        """The detections of one image after another."""
        for _, boxes, scores, labels in map(json.loads, _whole_lines(self.path)):
            corners = np.array(boxes, np.float32).reshape(-1, 4)
            yield Detections(corners, np.array(scores, np.float32), np.array(labels, np.int64), classes)

    def images(self) -> Iterator[str]:
        """The names that `add` was given."""
        return exact_images(self.path)


def exact_images(path: Path) -> Iterator[str]:
    """The images of a file of exact rows; none if there is no file."""
    return filter(None, map(_image, _whole_lines(path)))


def _image(line: bytes) -> str:
    """The image of a line; "" of one that is damaged."""
    try:
        image, *_ = json.loads(line)
    except (ValueError, TypeError):
        return ""
    return image if isinstance(image, str) else ""


def _whole_lines(path: Path) -> Iterator[bytes]:
    """The lines of a file but for a last one that was cut short; nothing if there is no file."""
    if path.is_file():
        with path.open("rb") as file:
            yield from (line for line in file if line.endswith(b"\n"))

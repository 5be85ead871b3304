"""Detections as they were found, not rounded, on disk: what VOC's and COCO's files are made of in the end."""

from __future__ import annotations

import json
from collections.abc import Collection, Iterator
from pathlib import Path

import numpy as np

from fssd.inference.detections import Detections


class ExactRows:
    """A file with a line of JSON for each image, in the order they were done.

    kept: the images of an earlier file that stay in it; the others are taken out.
    """

    def __init__(self, path: Path, kept: Collection[str] = ()) -> None:
        self.path = path
        whole = b"".join(line for line in _whole_lines(path) if json.loads(line)[0] in kept) if kept else b""
        self._file = path.open("wb", buffering=0)
        self._file.write(whole)

    def add(self, image: str, found: Detections) -> None:
        row = [image, found.boxes.tolist(), found.scores.tolist(), found.labels.tolist()]
        self._file.write(json.dumps(row).encode() + b"\n")

    def read(self, classes: tuple[str, ...]) -> Iterator[Detections]:
        """The detections of one image after another."""
        for _, boxes, scores, labels in map(json.loads, _whole_lines(self.path)):
            corners = np.array(boxes, np.float32).reshape(-1, 4)
            yield Detections(corners, np.array(scores, np.float32), np.array(labels, np.int64), classes)

    def images(self) -> Iterator[str]:
        """The names that `add` was given."""
        for line in _whole_lines(self.path):
            yield json.loads(line)[0]

    def remove(self) -> None:
        self._file.close()
        self.path.unlink(missing_ok=True)


def _whole_lines(path: Path) -> Iterator[bytes]:
    """The lines of a file but for a last one that was cut short; nothing if there is no file."""
    if path.is_file():
        with path.open("rb") as file:
            yield from (line for line in file if line.endswith(b"\n"))

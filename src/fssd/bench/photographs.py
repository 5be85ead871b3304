"""Image files to time a detector on: the user's, or synthetic ones of the size of VOC's photographs."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from fssd.data.decode import decode_image, read_bytes
from fssd.data.sample import Image
from fssd.export.images import make_pictures
from fssd.inference.draw import write_jpeg
from fssd.inference.inputs import find_only_stills

WIDTH, HEIGHT = 500, 375  # pixels; the most frequent size in VOC
MADE = 16
MOST = 64  # images that are held in memory


@dataclass(frozen=True)
class Photographs:
    """The same images as files, as the bytes of the files, and decoded. what: a phrase for the report."""

    files: tuple[Path, ...]
    contents: tuple[bytes, ...]
    images: tuple[Image, ...]
    what: str

    def indices(self, turn: int, batch: int) -> list[int]:
        """The images of batch number `turn`; the first image follows the last."""
        return [number % len(self.files) for number in range(turn * batch, (turn + 1) * batch)]


def user_pictures(arguments: Sequence[str]) -> Photographs:
    """At most `MOST` evenly spaced images among the user's files, folders and patterns.

    Raises DataError for a film, and if there is none.
    """
    files = find_only_stills(arguments)
    taken = files[:: -(-len(files) // MOST)]
    return _read(taken, f"{len(taken)} of {len(files)} images given")


def made_pictures(folder: Path, count: int = MADE) -> Photographs:
    """Synthetic JPEGs of 500 x 375 in `folder`: clouds with boxes and discs on them."""
    files = [folder / f"{number:03}.jpg" for number in range(count)]
    made = make_pictures(count + 1, (WIDTH, WIDTH))[1:]  # the first one is all black
    for file, picture in zip(files, made, strict=True):
        write_jpeg(file, np.ascontiguousarray(picture.permute(1, 2, 0).numpy()[:HEIGHT]))
    return _read(files, f"{count} made JPEGs of {WIDTH} x {HEIGHT}")


def _read(files: Sequence[Path], what: str) -> Photographs:
    contents = tuple(read_bytes(file) for file in files)
    images = tuple(decode_image(data, file) for data, file in zip(contents, files, strict=True))
    return Photographs(tuple(files), contents, images, what)

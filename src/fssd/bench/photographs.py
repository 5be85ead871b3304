"""Image files to time a detector on: the user's, or made ones of the size of VOC's photographs."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from fssd.data.decode import decode_image, read_bytes
from fssd.data.sample import Image
from fssd.errors import DataError
from fssd.export.images import make_pictures
from fssd.inference.draw import write_jpeg
from fssd.inference.inputs import find_inputs, is_video

WIDTH, HEIGHT = 500, 375  # pixels; the commonest size in VOC
MADE = 16
MOST = 64  # images that are held in memory


@dataclass(frozen=True)
class Pictures:
    """Images as files, as the bytes of those, and decoded; as many of each. what: a phrase for the report."""

    files: tuple[Path, ...]
    contents: tuple[bytes, ...]
    images: tuple[Image, ...]
    what: str

    def places(self, turn: int, batch: int) -> list[int]:
        """Which images batch number `turn` holds; after the last comes the first."""
        return [number % len(self.files) for number in range(turn * batch, (turn + 1) * batch)]


def user_pictures(arguments: Sequence[str]) -> Pictures:
    """The images among the user's files, folders and patterns, evenly taken where they are more than `MOST`.

    Raises DataError if there is none.
    """
    files = [file for file in find_inputs(arguments) if not is_video(file)]
    if not files:
        raise DataError("there is no image among these; name images or folders that hold some")
    taken = files[:: -(-len(files) // MOST)]
    return _read(taken, f"{len(taken)} of {len(files)} images given")


def made_pictures(folder: Path, count: int = MADE) -> Pictures:
    """Made JPEGs of 500 x 375 in `folder`: clouds with boxes and discs on them."""
    files = []
    made = make_pictures(count + 1, (WIDTH, WIDTH))[1:]  # the first one is all black
    for number, picture in enumerate(made):
        pixels = np.ascontiguousarray(picture.permute(1, 2, 0).numpy()[:HEIGHT])
        files.append(folder / f"{number:03}.jpg")
        write_jpeg(files[-1], pixels)
    return _read(files, f"{count} made JPEGs of {WIDTH} x {HEIGHT}")


def _read(files: Sequence[Path], what: str) -> Pictures:
    contents = tuple(read_bytes(file) for file in files)
    images = tuple(decode_image(data, file) for data, file in zip(contents, files, strict=True))
    return Pictures(tuple(files), contents, images, what)

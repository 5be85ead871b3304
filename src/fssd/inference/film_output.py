"""The drawn copy of a film: its times and its sound, in the best format that can be written here."""

from __future__ import annotations

from contextlib import ExitStack
from pathlib import Path

from fssd.data.sample import Image
from fssd.inference.video import Film, FilmWriter
from fssd.inference.web_film import WebFilmWriter, can_write

FALLBACK = (
    "films are drawn as MPEG-4 without sound, which browsers do not play;"
    ' pip install "fssd[video]" writes VP9 with the sound'
)


class FilmOutput:
    """Writes the drawn frames of `film`, in their order, to the file `path`.

    VP9 with the film's sound and shape by PyAV, else MPEG-4 without sound, of square pixels, by OpenCV at the
    film's mean rate. A frame stands in for lost ones before it, so that times stay the same. Raises what the
    writers do.
    is_written: whether the frames that were added are in the file, when the block has ended.
    """

    def __init__(self, path: Path, film: Film) -> None:
        self._film = film
        can = can_write()
        self._web = WebFilmWriter(path, film.rate, film.path, film.pixel_shape) if can else None
        self._plain = None if self._web is not None else FilmWriter(path, film.rate)
        self._written = 0
        self._next = (0, 0.0)  # the number of the next frame and its time, if none is lost
        self._files = ExitStack()
        self.is_written = False

    def add(self, image: Image, index: int) -> None:
        """Add the drawn image, (H, W, 3) uint8 RGB, of the frame `film.decoded[index]`."""
        number, seconds = self._film.decoded[index], self._film.times[index]
        first, start = self._next
        self._next = (number + 1, seconds + 1 / self._film.rate)
        if self._plain is not None:
            times = max(0, round(seconds * self._film.rate) + 1 - self._written)
            self._plain.write(image, times)
            self._written += times
            return
        assert self._web is not None
        lost = number - first
        for missing in range(lost):
            self._web.write(image, start + (seconds - start) * missing / lost)
        self._web.write(image, seconds)

    def __enter__(self) -> FilmOutput:
        writer = self._web or self._plain
        assert writer is not None
        self._files.enter_context(writer)
        return self

    def __exit__(self, *_: object) -> None:
        self._files.close()
        self.is_written = True

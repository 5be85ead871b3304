"""Stretches of films, in the order of a plan: a film stays open, so that each frame is decoded once."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from tempfile import TemporaryDirectory

from fssd.data.sample import Image
from fssd.errors import ImageError
from fssd.inference.video import Film
from fssd.parts.plan_rows import PlanRow
from fssd.storage.folders import is_remote
from fssd.storage.open_folder import open_folder


@contextmanager
def _told(place: str) -> Iterator[None]:
    """Errors of a film name it as the plan does: one of a store lies in a temporary file."""
    try:
        yield
    except ImageError as error:
        if not is_remote(place):
            raise
        raise ImageError(error.reason, file=place) from error


class FilmReader:
    """Reads stretch after stretch. base: the folder that relative names begin at.

    A stretch that does not begin where the last one ended is decoded from the film's start, as the numbers of
    its frames are counted. A film in a store is fetched whole first.
    """

    def __init__(self, base: Path) -> None:
        self._base = base
        self._next: tuple[str, int | None] = ("", None)  # the film that is open, and the frame it stands at
        self._fetched: TemporaryDirectory[str] | None = None

    def stretch(self, row: PlanRow) -> tuple[Iterator[tuple[int, Image]], Callable[[], None]]:
        """The frames with their numbers, and what raises ImageError for those that were lost.

        Raises ImageError if the film cannot be opened, DataError if it is not there.
        """
        start = row.start or 0
        if self._next != (row.place, start):
            with _told(row.place):
                self._film = Film(self._local(row.place))
            self._frames = self._film.frames(start)
            self._pending: tuple[int, Image] | None = None
        self._next = ("", None)  # until this stretch has been read to its end
        return self._until(row), partial(self._require_whole, row)

    def _require_whole(self, row: PlanRow) -> None:
        with _told(row.place):
            self._film.require_whole(row.start or 0, row.stop)

    def _until(self, row: PlanRow) -> Iterator[tuple[int, Image]]:
        while (frame := self._pending or self._following()) is not None:
            if row.stop is not None and frame[0] >= row.stop:
                self._pending = frame
                break
            self._pending = None
            yield frame
        self._next = (row.place, row.stop)

    def _following(self) -> tuple[int, Image] | None:
        image = next(self._frames, None)
        return None if image is None else (self._film.decoded[-1], image)

    def _local(self, place: str) -> Path:
        if not is_remote(place):
            return self._base / place
        if self._fetched is not None:
            self._fetched.cleanup()
        self._fetched = TemporaryDirectory(prefix="fssd-film-")
        folder, _, name = place.rpartition("/")
        file = Path(self._fetched.name, f"film{Path(name).suffix}")
        file.write_bytes(open_folder(folder).read(name))
        return file

"""Images of a plan, read and decoded in a few threads ahead of the network."""

from __future__ import annotations

from collections import deque
from collections.abc import Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from functools import lru_cache
from pathlib import Path

from fssd.data.decode import decode_image, read_bytes
from fssd.data.sample import Image
from fssd.errors import DataError
from fssd.inference.inputs import require_target
from fssd.parts.plan_rows import PlanRow
from fssd.storage.folders import Folder, is_remote
from fssd.storage.open_folder import open_folder

READERS = 4  # threads: decoding does not hold Python's lock, and a store answers after a while


def read_ahead(rows: Iterable[PlanRow], base: Path, ahead: int) -> Iterator[Image | DataError]:
    """The pixels of each row (H, W, 3) uint8 RGB, or the error that says why there are none.

    base: the folder that relative names begin at. ahead: the most images that are held. Raises ConfigError if
    a store does not answer: that is no fault of an image.
    """
    waiting: deque[Future[Image | DataError]] = deque()
    with ThreadPoolExecutor(READERS) as readers:
        try:
            for row in rows:
                waiting.append(readers.submit(_read, row, base))
                if len(waiting) >= ahead:
                    yield waiting.popleft().result()
            while waiting:
                yield waiting.popleft().result()
        finally:
            for future in waiting:
                future.cancel()


def _read(row: PlanRow, base: Path) -> Image | DataError:
    try:
        return decode_image(_content(row, base), row.place)
    except DataError as error:
        return error


def _content(row: PlanRow, base: Path) -> bytes:
    place = row.place
    if row.kind == "packed":
        assert row.start is not None and row.stop is not None
        folder, name = _split(place, base)
        return folder.read_range(name, row.start, row.stop - row.start)
    if is_remote(place):
        folder, name = _split(place, base)
        return folder.read(name)
    require_target(base / place)
    return read_bytes(base / place)


def _split(place: str, base: Path) -> tuple[Folder, str]:
    """The folder and the name in it."""
    parent, _, name = (place if is_remote(place) else str(base / place)).rpartition("/")
    return _folder(parent), name


@lru_cache(maxsize=256)
def _folder(location: str) -> Folder:
    return open_folder(location)

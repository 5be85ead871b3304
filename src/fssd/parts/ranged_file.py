"""A file of a `Folder` as an open file, so that pyarrow reads only the bytes it needs."""

from __future__ import annotations

import io
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any

from fssd.errors import DataError
from fssd.storage.folders import Folder, is_remote
from fssd.storage.s3_folder import require_arrow

_AHEAD = 1 << 20  # bytes: a request for each kilobyte would take longer than the kilobyte


class RangedFile(io.RawIOBase):
    """Reads `name` of a folder in ranges. size: of the file, bytes."""

    def __init__(self, folder: Folder, name: str, size: int) -> None:
        super().__init__()
        self._folder, self._name, self._size = folder, name, size
        self._offset = 0

    def readable(self) -> bool:
        return True

    def seekable(self) -> bool:
        return True

    def tell(self) -> int:
        return self._offset

    def seek(self, offset: int, whence: int = io.SEEK_SET) -> int:
        start = {io.SEEK_SET: 0, io.SEEK_CUR: self._offset, io.SEEK_END: self._size}[whence]
        self._offset = max(0, start + offset)
        return self._offset

    def readinto(self, buffer: Any) -> int:
        size = max(0, min(len(buffer), self._size - self._offset))
        buffer[:size] = self._folder.read_range(self._name, self._offset, size) if size else b""
        self._offset += size
        return size


def open_parquet(folder: Folder, name: str) -> Any:
    """The `pyarrow.parquet.ParquetFile` of a file. Raises DataError if it is missing or damaged.

    Damage behind its beginning and its end is found only when that is read: see `reading_parquet`.
    """
    require_arrow()
    from pyarrow import PythonFile
    from pyarrow.parquet import ParquetFile

    with reading_parquet(folder.path(name)):
        if not is_remote(folder.location):
            return ParquetFile(folder.path(name), memory_map=True)
        raw = RangedFile(folder, name, folder.size(name))
        return ParquetFile(PythonFile(io.BufferedReader(raw, _AHEAD), mode="r"))


def read_columns(folder: Folder, name: str, columns: Sequence[str]) -> Any:
    """The table of some columns of a parquet file. Raises DataError if it is damaged or lacks one of them."""
    parquet = open_parquet(folder, name)
    with reading_parquet(folder.path(name)):
        table = parquet.read(columns=list(columns)).select(list(columns))
        table.validate(full=True)  # text that is none would be found by whoever looks at it
        return table


@contextmanager
def reading_parquet(place: str) -> Iterator[None]:
    """Turns what pyarrow raises for a file that is missing, damaged or of another kind into a DataError."""
    from pyarrow import ArrowException

    try:
        yield
    except FileNotFoundError:
        raise DataError("there is no such file; check the path", file=place) from None
    except (ArrowException, OSError, UnicodeDecodeError, KeyError, IndexError) as error:
        fault = (str(error).splitlines() or [""])[0][:120]
        reason = f"is no whole parquet file ({fault}); remove it or write it again"
        raise DataError(reason, file=place) from error

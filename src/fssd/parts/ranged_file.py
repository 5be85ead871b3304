"""A file of a `Folder` as an open file, so that pyarrow reads only the bytes it needs."""

from __future__ import annotations

import io
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
    """The `pyarrow.parquet.ParquetFile` of a file. Raises DataError if it is missing or damaged."""
    require_arrow()
    from pyarrow import ArrowException, PythonFile
    from pyarrow.parquet import ParquetFile

    try:
        if not is_remote(folder.location):
            return ParquetFile(folder.path(name), memory_map=True)
        raw = RangedFile(folder, name, folder.size(name))
        return ParquetFile(PythonFile(io.BufferedReader(raw, _AHEAD), mode="r"))
    except FileNotFoundError:
        raise DataError("there is no such file; check the path", file=folder.path(name)) from None
    except (ArrowException, OSError) as error:
        reason = f"is no whole parquet file ({str(error).splitlines()[0][:120]}); remove it or write it again"
        raise DataError(reason, file=folder.path(name)) from error

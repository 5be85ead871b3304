"""A folder on a disk."""

from __future__ import annotations

import os
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from fssd.atomic import atomic_path, atomic_write, make_folder, require_writable_folder
from fssd.errors import ConfigError, DataError
from fssd.storage.folders import Entry, Folder


@dataclass(frozen=True)
class LocalFolder(Folder):
    """A folder on a disk. Files are synced and renamed into place."""

    def exists(self, name: str) -> bool:
        return self._file(name).is_file()

    def stamp(self, name: str) -> str:
        try:
            facts = self._file(name).stat()
        except OSError as error:
            raise _refused(self.path(name), error) from error
        return f"{facts.st_size}-{facts.st_mtime_ns}"

    def size(self, name: str) -> int:
        try:
            return self._file(name).stat().st_size
        except OSError as error:
            raise _refused(self.path(name), error) from error

    def list(self, below: str = "") -> Iterator[Entry]:
        try:
            entries = os.scandir(self._file(below))
        except FileNotFoundError:
            return
        except OSError as error:
            raise _refused(self.path(below), error) from error
        with entries:
            for entry in entries:
                name = f"{below.rstrip('/')}/{entry.name}" if below else entry.name
                if entry.name.startswith("."):
                    continue
                if entry.is_dir(follow_symlinks=False):
                    yield from self.list(name)
                elif entry.is_file():
                    yield Entry(name, entry.stat().st_size)

    def read(self, name: str) -> bytes:
        try:
            return self._file(name).read_bytes()
        except OSError as error:
            raise _refused(self.path(name), error) from error

    def read_range(self, name: str, offset: int, size: int) -> bytes:
        try:
            with self._file(name).open("rb") as file:
                file.seek(offset)
                data = file.read(size)
        except OSError as error:
            raise _refused(self.path(name), error) from error
        if len(data) != size:
            raise cut_short(self.path(name), offset, size)
        return data

    def write(self, name: str, data: bytes) -> None:
        file = self._file(name)
        make_folder(file.parent)
        atomic_write(file, data)

    def upload(self, file: Path, name: str) -> None:
        target = self._file(name)
        make_folder(target.parent)
        with atomic_path(target) as temporary:
            file.replace(temporary)

    def remove(self, name: str) -> None:
        self._file(name).unlink(missing_ok=True)

    def require_writable(self) -> None:
        make_folder(self._file(""))
        require_writable_folder(self._file(""))

    def _file(self, name: str) -> Path:
        return Path(self.location, name)


def cut_short(path: str, offset: int, size: int) -> DataError:
    """The error of a file that ends before a range that should be in it."""
    return DataError(f"ends before byte {offset + size:,}; it is damaged, write or fetch it again", file=path)


def _refused(path: str, error: OSError) -> DataError | ConfigError:
    if isinstance(error, FileNotFoundError):
        return DataError("there is no such file; check its name", file=path)
    return ConfigError(f"{path}: cannot be used ({error.strerror}); check the path and its permissions")

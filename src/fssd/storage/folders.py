"""The contract of a folder, wherever it lies: names in it are relative, with `/` between their parts."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

from fssd.errors import shown


class Entry(NamedTuple):
    """A file: its name relative to the folder that was listed, and its size in bytes."""

    name: str
    size: int


@dataclass(frozen=True)
class Folder(ABC):
    """A folder that is cheap to copy to another process; each process opens a client of its own when needed.

    location: its path, or `s3://bucket/key`. It need not exist: writing makes it.
    A missing file is a DataError, a place that cannot be reached or may not be used is a ConfigError.
    """

    location: str

    def __str__(self) -> str:
        return self.location

    def path(self, name: str) -> str:
        """The full name of a file, as messages and other programs have it."""
        return f"{self.location.rstrip('/')}/{name}" if name else self.location

    @abstractmethod
    def exists(self, name: str) -> bool:
        """Whether there is a file of this name."""

    @abstractmethod
    def stamp(self, name: str) -> str:
        """A text that differs once a file has been written again: its size and time."""

    @abstractmethod
    def size(self, name: str) -> int:
        """Bytes of a file."""

    @abstractmethod
    def list(self, below: str = "") -> Iterator[Entry]:
        """All files below a folder of it, in no particular order; nothing if there is no such folder.

        Files whose name begins with a dot are passed over, as are those in folders of such names.
        """

    @abstractmethod
    def read(self, name: str) -> bytes:
        """The content of a file."""

    @abstractmethod
    def read_range(self, name: str, offset: int, size: int) -> bytes:
        """`size` bytes of a file from `offset`. Raises DataError if the file ends before."""

    @abstractmethod
    def write(self, name: str, data: bytes) -> None:
        """Write a file whole or not at all, whatever ends the process; it replaces one of the same name."""

    @abstractmethod
    def upload(self, file: Path, name: str) -> None:
        """Like `write`, with the content of a local file, which is never held in memory as a whole.

        On a disk the file is moved, so it must lie on the same one; otherwise it is removed when it is sent.
        """

    @abstractmethod
    def remove(self, name: str) -> None:
        """Remove a file; one that is missing is no error."""

    @abstractmethod
    def require_writable(self) -> None:
        """Raise ConfigError if no file can be written here. May leave an empty folder."""


def is_remote(place: Path | str) -> bool:
    """Whether a place is an `s3://` URL; a Path that was made of one counts too."""
    return shown(place).startswith("s3://")


def location(place: Path | str) -> str:
    """The text of a place without a slash at its end: `s3://bucket/key`, also of a Path, or a local path."""
    text = shown(place)
    return text.rstrip("/") if is_remote(text) else str(Path(text))

"""A picture whose bytes lie inside a larger file, such as a shard."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from fssd.storage.folders import Folder


@dataclass(frozen=True)
class StoredPicture:
    """`size` bytes from `offset` on of the file `shard` in `folder`. path: how messages name the picture."""

    folder: Folder
    shard: str
    offset: int
    size: int
    path: Path

    def read(self) -> bytes:
        """The bytes of the picture. Raises DataError, or ConfigError where the folder cannot be reached."""
        return self.folder.read_range(self.shard, self.offset, self.size)


PictureSource = Path | str | StoredPicture
"""What images are read from."""


def picture_name(picture: PictureSource) -> Path | str:
    """What a picture is called in messages."""
    return picture.path if isinstance(picture, StoredPicture) else picture

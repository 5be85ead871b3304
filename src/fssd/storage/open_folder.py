"""Which kind of folder a place is."""

from __future__ import annotations

from pathlib import Path

from fssd.errors import ConfigError, shown
from fssd.storage.folders import Folder, is_remote, location
from fssd.storage.local_folder import LocalFolder
from fssd.storage.s3_folder import S3Folder


def open_folder(place: Path | str) -> Folder:
    """The folder at a path or `s3://bucket/key`; nothing is read yet.

    Raises ConfigError for another kind of URL, and where pyarrow is missing.
    """
    if is_remote(place):
        return S3Folder(location(place))
    scheme, colon, _ = shown(place).partition(":/")
    if colon and len(scheme) > 1 and scheme.isalnum():  # one letter is a drive of Windows
        raise ConfigError(f"{place}: this kind of place is not known; give a folder or s3://bucket/folder")
    return LocalFolder(location(place))

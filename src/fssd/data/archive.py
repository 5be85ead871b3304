"""A data set in an archive, as an annotation tool exports it: unpacked once into the user's cache folder."""

from __future__ import annotations

import hashlib
import sys
from pathlib import Path
from tempfile import TemporaryDirectory

from fssd.data.formats.lookup import folder_split
from fssd.data.unpack import TAR, ZIP, unpack
from fssd.errors import DataError, FetchError
from fssd.storage.cache_folder import cache_folder


def is_archive(path: Path) -> bool:
    return path.name.lower().endswith((*ZIP, *TAR)) and path.is_file()


def unpacked(archive: Path) -> Path:
    """The folder with the content of an archive; the same archive is unpacked once. Raises DataError."""
    facts = archive.stat()
    stamp = f"{archive.resolve()}\n{facts.st_size}\n{facts.st_mtime_ns}"
    digest = hashlib.blake2b(stamp.encode("utf-8", "surrogateescape"), digest_size=8).hexdigest()
    folder = cache_folder() / "unpacked" / f"{archive.name.partition('.')[0]}-{digest}"
    if not folder.is_dir():
        print(f"unpacking {archive} into {folder}", file=sys.stderr)
        folder.parent.mkdir(parents=True, exist_ok=True)
        with TemporaryDirectory(
            prefix=f".{folder.name}-", dir=folder.parent, ignore_cleanup_errors=True
        ) as own:
            _unpack_to(folder, archive, Path(own) / "content")  # which others may read, unlike `own`
    return _without_wrapper(folder)


def _unpack_to(folder: Path, archive: Path, staging: Path) -> None:
    """The folder appears whole or not at all; another process may be faster."""
    try:
        staging.mkdir()
        unpack(archive, staging)
        staging.rename(folder)
    except FetchError as error:
        raise DataError(str(error).removeprefix(f"{archive}: "), file=archive) from error
    except OSError:
        if not folder.is_dir():
            raise


def _without_wrapper(folder: Path) -> Path:
    """The folder inside, if that is all an archive holds and it is no split."""
    inside = [item for item in folder.iterdir() if item.name != "__MACOSX" and item.name[0] != "."]
    is_wrapped = len(inside) == 1 and inside[0].is_dir() and not folder_split([inside[0].name])
    return inside[0] if is_wrapped else folder

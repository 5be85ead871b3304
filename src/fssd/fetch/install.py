"""Installs an archive of the table: download, check, unpack, and write a note that it is done."""

from __future__ import annotations

import json
import os
from collections.abc import Sequence
from pathlib import Path, PurePosixPath

from fssd.atomic import atomic_write, make_folder
from fssd.data.unpack import silent, unpack
from fssd.fetch.archives import Archive
from fssd.fetch.download import PAUSES
from fssd.fetch.obtain import ObtainedFile, Stages, stage

NOTES = ".fetched"  # folder with one note for each unpacked archive


def install(
    archive: Archive,
    folder: Path,
    *,
    keep: bool = False,
    report: Stages = silent,
    pauses: Sequence[float] = PAUSES,
) -> str:
    """Fetch an archive and unpack it into a folder; returns its checksum, such as `md5:c52e27...`.

    If the folder already holds a file of that name, it is used instead of a download and not deleted. If the
    table has no checksum for the archive, nothing is compared and its sha256 is returned. keep: do not delete
    the downloaded archive.
    Raises FetchError, also for a file that is there with other content; ConfigError if the folder cannot be
    made.
    """
    make_folder(folder)
    file = folder / archive.file_name
    obtained = ObtainedFile(archive.url, file, size=archive.size, report=report, pauses=pauses)
    kind, expected = archive.checksum or ("sha256", None)
    checksum = f"{kind}:{obtained.check(kind, expected)}"
    last = unpack(file, folder, stage(report, "unpack"), reserved={NOTES})
    if hasattr(os, "sync"):
        os.sync()  # the unpacked files must be on the disk before the note that says so
    make_folder(folder / NOTES)
    note = {"url": archive.url, "checksum": checksum, "last": None if last is None else str(last)}
    atomic_write(_note(archive, folder), json.dumps(note))
    obtained.discard(keep)
    return checksum


def is_installed(archive: Archive, folder: Path) -> bool:
    """Whether this archive has been unpacked there, and its last file still exists."""
    try:
        note = json.loads(_note(archive, folder).read_bytes())
        checksum, url, last = note["checksum"], note["url"], note["last"]
    except (OSError, ValueError, KeyError, TypeError):
        return False
    same = url == archive.url if archive.checksum is None else checksum == ":".join(archive.checksum)
    return same and (last is None or (folder / PurePosixPath(last)).is_file())


def _note(archive: Archive, folder: Path) -> Path:
    return folder / NOTES / f"{archive.file_name}.json"

"""Installs an archive of the table: download, check, unpack, and write a note that it is done."""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Callable, Sequence
from pathlib import Path, PurePosixPath

from fssd.atomic import atomic_write, make_folder
from fssd.data.unpack import CHUNK, Progress, silent, unpack
from fssd.errors import FetchError
from fssd.fetch.archives import Archive
from fssd.fetch.download import PAUSES, download

NOTES = ".fetched"  # folder with one note for each unpacked archive

Stages = Callable[[str, int, int | None], None]  # "download", "check" or "unpack", bytes done, bytes in total


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
    Raises FetchError; ConfigError if the folder cannot be made.
    """
    make_folder(folder)
    file = folder / archive.file_name
    brought = file.is_file()  # by the user, so it is not deleted
    if not brought:
        download(archive.url, file, size=archive.size, report=_stage(report, "download"), pauses=pauses)
    checksum = _compare(archive, file, _stage(report, "check"), brought)
    last = unpack(file, folder, _stage(report, "unpack"))
    if hasattr(os, "sync"):
        os.sync()  # the unpacked files must be on the disk before the note that says so
    make_folder(folder / NOTES)
    note = {"url": archive.url, "checksum": checksum, "last": None if last is None else str(last)}
    atomic_write(_note(archive, folder), json.dumps(note))
    if not (keep or brought):
        file.unlink()
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


def _compare(archive: Archive, file: Path, report: Progress, brought: bool) -> str:
    """The checksum of a file. If it is not the table's, deletes a downloaded file and raises FetchError."""
    kind, expected = archive.checksum or ("sha256", None)
    found = _digest(file, kind, report)
    if expected not in (None, found):
        if brought:
            raise FetchError(f"{file}: its {kind} is {found}, not {expected}; delete it to fetch it again")
        file.unlink()
        reason = f"its {kind} is {found}, not {expected}; the file was deleted, fetch it again"
        raise FetchError(f"{archive.url}: {reason}")
    return f"{kind}:{found}"


def _digest(file: Path, kind: str, report: Progress) -> str:
    digest = hashlib.new(kind, usedforsecurity=False)
    total = file.stat().st_size
    with file.open("rb") as handle:
        while chunk := handle.read(CHUNK):
            digest.update(chunk)
            report(handle.tell(), total)
    return digest.hexdigest()


def _stage(report: Stages, name: str) -> Progress:
    return lambda done, total: report(name, done, total)

"""Unpacks an untrusted archive: only files and folders, inside one folder, completely or not at all.

Only names and bytes of an archive are used, not owners, permissions and times. Links are refused, so nothing
can be written outside the folder.
"""

from __future__ import annotations

import errno
import filecmp
import lzma
import shutil
import stat
import tarfile
import zipfile
import zlib
from collections.abc import Callable, Collection, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import IO

from fssd.errors import FetchError

ZIP = (".zip",)
TAR = (".tar", ".tar.gz", ".tgz", ".tar.bz2", ".tar.xz")
CHUNK = 1 << 20  # bytes
Progress = Callable[[int, int | None], None]  # bytes done, bytes in total if known


def silent(*_: object) -> None:
    """Reports no progress."""


# The errors of the standard library for damaged bytes; NotImplementedError is for an unknown compression.
_DAMAGE: tuple[type[Exception], ...] = (tarfile.TarError, zipfile.BadZipFile, zlib.error, lzma.LZMAError)
_DAMAGE += (EOFError, NotImplementedError, UnicodeDecodeError)


@dataclass(frozen=True)
class _Member:
    """A file or folder of an archive: its path, its declared size, and how to open it (None: folder)."""

    path: PurePosixPath
    size: int
    open: Callable[[], IO[bytes] | None] | None


def unpack(
    file: Path, folder: Path, report: Progress = silent, *, reserved: Collection[str] = ()
) -> PurePosixPath | None:
    """Unpack a tar or zip file into a folder, which may hold other files; returns the path of its last file.

    Everything is first written to `.unpacking-NAME` in the folder and then moved, so a failure leaves nothing
    behind. reserved: names that nothing of the archive may have at its top.
    Raises FetchError for a damaged archive, a path outside the folder, a link, a device, an encrypted member,
    a file that is there with other content, and if the disk is too full.
    """
    staging = folder / f".unpacking-{file.name}"
    shutil.rmtree(staging, ignore_errors=True)  # left by a killed process
    try:
        with _members(file) as members:
            _refuse_names(members, {staging.name, *reserved}, file)
            _require_space(members, folder, file)
            staging.mkdir(parents=True)
            _write(members, staging, file, report)
        _require_free(staging, folder)
        _merge(staging, folder)
    finally:
        shutil.rmtree(staging, ignore_errors=True)
    files = [member.path for member in members if member.open is not None]
    return files[-1] if files else None


@contextmanager
def _members(file: Path) -> Iterator[list[_Member]]:
    try:
        if file.name.lower().endswith(ZIP):
            with zipfile.ZipFile(file) as archive:
                yield [_zip_member(archive, info, file) for info in archive.infolist()]
        else:
            with tarfile.open(file) as tar:
                members = [_tar_member(tar, info, file) for info in tar]
                _require_end(tar)
                yield members
    except _DAMAGE as error:
        raise _damaged(file, error) from error
    except OSError as error:
        # gzip and bz2 raise OSError for damaged bytes, and seeking to the place that they name is an EINVAL.
        if error.errno not in (None, errno.EINVAL):
            raise  # an error of the disk, not of the archive
        raise _damaged(file, error) from error


def _require_end(tar: tarfile.TarFile) -> None:
    """Raise ReadError unless the members end with a block of zeros, and nothing comes after them.

    tarfile takes a damaged or cut header for the end of the archive, so that the members after it would be
    missing. Reading on to the end also compares the checksum of a compressed archive.
    """
    reader = tar.fileobj
    assert reader is not None
    reader.seek(tar.offset)
    block = reader.read(tarfile.BLOCKSIZE)
    if len(block) < tarfile.BLOCKSIZE or block.strip(b"\0"):
        raise tarfile.ReadError(f"no member and no end of the archive at byte {tar.offset}")
    while rest := reader.read(CHUNK):
        if rest.strip(b"\0"):
            raise tarfile.ReadError(f"it goes on after its end at byte {tar.offset}")


def _damaged(file: Path, error: Exception) -> FetchError:
    return FetchError(f"{file}: is damaged or not an archive ({error}); delete it and fetch it again")


def _zip_member(archive: zipfile.ZipFile, info: zipfile.ZipInfo, file: Path) -> _Member:
    kind = stat.S_IFMT(info.external_attr >> 16)
    if kind not in (0, stat.S_IFREG, stat.S_IFDIR):
        raise _refused(file, info.filename, "is a link or a device")
    if info.flag_bits & 1:
        raise _refused(file, info.filename, "is encrypted")
    path = _inside(info.filename, file)
    return _Member(path, info.file_size, None if info.is_dir() else lambda: archive.open(info))


def _tar_member(tar: tarfile.TarFile, info: tarfile.TarInfo, file: Path) -> _Member:
    if not (info.isreg() or info.isdir()):
        raise _refused(file, info.name, "is a link or a device")
    path = _inside(info.name, file)
    return _Member(path, info.size, None if info.isdir() else lambda: tar.extractfile(info))


def _inside(name: str, file: Path) -> PurePosixPath:
    """The path of a member, relative and without `..`; `C:` and `\\` are refused because of Windows."""
    path = PurePosixPath(name.replace("\\", "/"))
    if path.is_absolute() or ".." in path.parts or ":" in name.partition("/")[0]:
        raise _refused(file, name, "leads out of the folder")
    if "\\" in name:
        raise _refused(file, name, "has \\ between its folders instead of /", "pack the archive again")
    return path


def _refused(file: Path, name: str, reason: str, remedy: str = "get the archive elsewhere") -> FetchError:
    return FetchError(f"{file}: member {name!r} {reason}; nothing was unpacked, {remedy}")


def _refuse_names(members: Sequence[_Member], names: Collection[str], file: Path) -> None:
    folded = {name.casefold() for name in names}  # as file systems may do
    for member in members:
        if member.path.parts and member.path.parts[0].casefold() in folded:
            raise _refused(file, str(member.path), "has a name that fssd keeps for itself")


def _require_space(members: Sequence[_Member], folder: Path, file: Path) -> None:
    needed, free = sum(member.size for member in members), shutil.disk_usage(folder).free
    if needed > free:
        reason = f"unpacks to {needed} bytes, {folder} has {free} free"
        raise FetchError(f"{file}: {reason}; make room or choose another --to")


def _write(members: Sequence[_Member], staging: Path, file: Path, report: Progress) -> None:
    done, total = 0, sum(member.size for member in members)
    for member in members:
        target = staging / member.path
        try:
            if member.open is None:
                target.mkdir(parents=True, exist_ok=True)
                continue
            target.parent.mkdir(parents=True, exist_ok=True)
            written = _copy(member.open, target)
        except (FileExistsError, NotADirectoryError, IsADirectoryError) as error:
            raise _refused(file, str(member.path), "occurs twice") from error
        if written != member.size:
            raise _damaged(file, EOFError(f"{member.path} has {written} of {member.size} bytes"))
        done += written
        report(done, total)


def _copy(source: Callable[[], IO[bytes] | None], target: Path) -> int:
    reading = source()
    if reading is None:
        return 0
    with reading, target.open("xb") as writing:
        shutil.copyfileobj(reading, writing, CHUNK)
        return writing.tell()


def _require_free(source: Path, target: Path) -> None:
    """Raise FetchError if something in `source` would replace anything but an equal file in `target`."""
    for item in source.iterdir():
        there = target / item.name
        if item.is_dir() and there.is_dir():
            _require_free(item, there)
        elif there.is_dir() or (item.is_dir() and there.exists()):
            raise FetchError(f"{there}: is in the way of an unpacked file; move it away")
        elif there.exists() and not filecmp.cmp(item, there, shallow=False):
            reason = "is there already, and the archive has it with other content"
            raise FetchError(f"{there}: {reason}; move it away or choose another folder")


def _merge(source: Path, target: Path) -> None:
    """Move the content of `source` to `target`: a new folder in one step, an existing one file by file."""
    for item in sorted(source.iterdir()):
        moved = target / item.name
        if item.is_dir() and moved.is_dir():
            _merge(item, moved)
        else:
            item.replace(moved)

"""Atomic file writes: a temporary file in the same folder is synced to disk, then renamed."""

from __future__ import annotations

import os
import re
import secrets
import shutil
import socket
import time
from collections.abc import Iterator, Mapping
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path
from tempfile import TemporaryDirectory, TemporaryFile

from fssd.errors import ConfigError

_PREFIX = ".tmp-"  # of what is not yet, or was never, renamed
STALE = 3600.0  # seconds without a change after which a temporary file is taken to be nobody's


def atomic_write(path: Path | str, data: bytes | str) -> None:
    """Replace the content of `path` (text as UTF-8); after a crash it is the old or the new content.

    Bytes of file names that are not UTF-8, which Python keeps as lone surrogates, become escapes such as
    `\\udcdf`; JSON means the same by them.
    """
    with atomic_path(path) as temporary:
        temporary.write_bytes(data.encode("utf-8", "backslashreplace") if isinstance(data, str) else data)


@contextmanager
def atomic_path(path: Path | str) -> Iterator[Path]:
    """A path to write to, in the folder of `path` and with its suffix, renamed to `path` on success.

    If the block raises, the temporary file is removed and `path` is unchanged. A killed process can leave a
    file called `.tmp-*` behind, see `remove_leftovers`. A symbolic link is kept: the file that it points to
    is replaced. An OSError names `path`, also that of a full disk, which names no file. Raises ConfigError if
    `path` is a folder.
    """
    target = Path(os.path.realpath(path))
    if target.is_dir():
        raise ConfigError(f"{path}: is a folder; give the name of a file")
    temporary = target.parent / f"{temporary_prefix()}{secrets.token_hex(6)}{target.suffix}"
    try:
        yield temporary
        with temporary.open("r+b") as handle:
            os.fsync(handle.fileno())
        if target.exists():
            shutil.copymode(target, temporary)
        temporary.replace(target)
    except BaseException as error:
        temporary.unlink(missing_ok=True)
        with names_file(path, instead_of=temporary):
            raise error
    _sync_folder(target.parent)


def replace_together(moves: Mapping[Path, Path]) -> None:
    """Move files, in this order, to places where older ones may be; after an error all of those are back.

    moves: places by the file that goes there. Each move is one of `atomic_path`, and in between a reader sees
    some of them. The older files are kept beside the first place meanwhile.
    """
    places = [Path(os.path.realpath(place)) for place in moves.values()]
    with (
        TemporaryDirectory(prefix=temporary_prefix(), dir=places[0].parent) as folder,
        ExitStack() as undo,
    ):
        for number, place in enumerate(places):
            kept = Path(folder) / str(number)
            _keep(place, kept)
            undo.callback(_put_back, kept, place)
        for file, place in zip(moves, moves.values(), strict=True):
            with atomic_path(place) as temporary:
                shutil.move(file, temporary)  # a link at the place may lead to another file system
        undo.pop_all()


def _keep(file: Path, kept: Path) -> None:
    """Let `kept` be what `file` is now, by a second name where the file system has them, else by a copy."""
    if not file.is_file():
        return
    try:
        os.link(file, kept)
    except OSError:
        shutil.copy2(file, kept)


def _put_back(kept: Path, file: Path) -> None:
    if kept.exists():
        shutil.move(kept, file)
    elif file.is_file():
        file.unlink()


def temporary_prefix() -> str:
    """How the names of temporary files and folders of this process begin: with its machine and number."""
    return f"{_PREFIX}{_host()}-{os.getpid()}-"


def remove_leftovers(folder: Path) -> None:
    """Remove the temporary files and folders in `folder` that killed processes left behind.

    What another process of this machine is writing stays. Whether one of another machine lives cannot be
    seen, nor whose a file is that another program has named: what changed within an hour stays.
    """
    for path in folder.glob(f"{_PREFIX}*"):
        with suppress(OSError):  # another process removes it too, or it is not ours to remove
            if _may_be_in_use(path):
                continue
            if path.is_dir() and not path.is_symlink():
                shutil.rmtree(path)
            else:
                path.unlink()


def _may_be_in_use(path: Path) -> bool:
    named = re.match(rf"{re.escape(_PREFIX)}{_host()}-(\d{{1,9}})-", path.name)
    if named is None or os.name == "nt":
        return time.time() - path.lstat().st_mtime < STALE
    number = int(named[1])
    if number == os.getpid():
        return False  # of an earlier process of this number: this one has not begun to write here
    try:
        os.kill(number, 0)  # asks whether there is such a process
    except ProcessLookupError:
        return False
    except PermissionError:  # there is one, of another user
        pass
    return True


def _host() -> str:
    return re.sub(r"\W", "_", socket.gethostname())


@contextmanager
def names_file(path: Path | str, instead_of: Path | None = None) -> Iterator[None]:
    """Let an OSError that names no file, or the file `instead_of`, name `path`."""
    try:
        yield
    except OSError as error:
        if error.errno is None or error.filename not in (None, str(instead_of), instead_of):
            raise
        raise OSError(error.errno, error.strerror, str(path)) from error


def make_folder(folder: Path) -> None:
    """Make a folder and its missing parents. Raises ConfigError."""
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise ConfigError(f"{folder}: cannot be made a folder ({error.strerror}); choose another") from error


def require_writable_folder(folder: Path) -> None:
    """Raise ConfigError unless files can be made in a folder, or in the one that it would be made in."""
    there = next(parent for parent in (folder, *folder.absolute().parents) if parent.exists())
    try:
        with TemporaryFile(dir=there):
            pass
    except OSError as error:
        reason = f"nothing can be written into this folder ({error.strerror}); choose another"
        raise ConfigError(f"{folder}: {reason}") from error


def require_writable(*files: Path) -> None:
    """Raise ConfigError now if one of the files could not be written later. Makes their folders."""
    for file in files:
        if file.is_dir():
            raise ConfigError(f"{file}: is a folder; give the name of a file")
    for folder in {file.parent for file in files}:
        make_folder(folder)
        require_writable_folder(folder)


def _sync_folder(folder: Path) -> None:
    """Make the renaming itself durable. Windows cannot open folders and does not need this."""
    if os.name == "nt":
        return
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)

"""What readers made of the labels of large data sets, kept in the user's cache folder.

A data set is read again when any file of its folder is new, gone or changed (path, size, times), when this
package or the kinds of pictures that can be decoded are others, or when another split or other classes are
asked for. A cache that cannot be read or written is no error: the labels are read instead.
"""

from __future__ import annotations

import gc
import hashlib
import json
import os
import time
import zipfile
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import replace
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from fssd.atomic import atomic_path
from fssd.data.columns import Columns, Paths, RecordTable, Texts, compact
from fssd.data.decode import IMAGE_EXTENSIONS
from fssd.data.formats.reader import Reader
from fssd.data.sample import DataSet, Problem
from fssd.storage.cache_folder import cache_folder, code_digest

LEAST_IMAGES = 2000  # fewer are read in less than a second
MOST_BYTES = 1 << 30  # of the whole folder; the files used least recently are removed
FILES_PER_IMAGE = 8  # a folder with more is not that of the data set alone, and slow to walk through
_SETTLED = 2_000_000_000  # nanoseconds; a younger file may change again without another time stamp
_UNREADABLE = (OSError, ValueError, KeyError, TypeError, IndexError, EOFError, zipfile.BadZipFile)
_ARRAYS = ("source", "width", "height", "ends", "boxes", "labels", "flags", "has_areas", "areas")
_File = tuple[str, int, int, int]  # name, bytes, and the times of the last change of content and of the entry


def read_labels(reader: Reader, root: Path, split: str | None, classes: Sequence[str] | None) -> DataSet:
    """`reader.read`, or its result of an earlier time if nothing has changed, with a table of records.

    Raises the reader's errors.
    """
    names = None if classes is None else list(classes)
    made_by = [_code(), sorted(IMAGE_EXTENSIONS)]  # which pictures can be read depends on what is installed
    key = json.dumps([*made_by, reader.name, str(root), str(root.absolute()), split, names])
    file = cache_folder() / "labels" / f"{hashlib.blake2b(key.encode(), digest_size=20).hexdigest()}.npz"
    with _without_collector():
        known = _load(file)
        if known is not None:
            return known
        start = time.time_ns()
        data = reader.read(root, split, classes, None)
        data = replace(data, records=compact(data.records))
        # Not of joined sources: each of them is kept by itself.
        if len(data) >= LEAST_IMAGES and data.facts.get("format") == reader.name:
            _save(file, data, root, start)
    return data


@contextmanager
def _without_collector() -> Iterator[None]:
    """Pause the collector, which would look again and again at hundreds of thousands of objects in use."""
    was_enabled = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        if was_enabled:
            gc.enable()


@cache
def _code() -> str:
    """A digest of the code that reads labels: its results may differ in another version."""
    return code_digest(sorted(Path(__file__).parent.rglob("*.py")))


def _load(file: Path) -> DataSet | None:
    try:
        with np.load(file, allow_pickle=False) as arrays:
            document = json.loads(bytes(arrays["document"]))
            if document["stamp"] != _digest(_stamps(Path(document["base"]))):
                return None
            data = _unpack(document, arrays)
        os.utime(file)
    except Exception:  # damaged bytes raise any exception; the labels are read instead
        return None
    return data


def _save(file: Path, data: DataSet, root: Path, start: int) -> None:
    """Keep a result if all that it depends on lies below one folder and has not changed since `start`."""
    with suppress(*_UNREADABLE):
        base = _base(root, data)
        if base is None:
            return
        files, left = [], FILES_PER_IMAGE * len(data)
        for folder, rows in _stamps(base):
            files.append((folder, rows))
            left -= len(rows)
            if left < 0 or max((max(row[2:]) for row in rows), default=0) > start - _SETTLED:
                return
        arrays = _pack(data, {"base": str(base), "stamp": _digest(files)})
        file.parent.mkdir(parents=True, exist_ok=True)
        with atomic_path(file) as temporary:
            np.savez(temporary, allow_pickle=False, **arrays)
        _prune(file.parent)


def _base(root: Path, data: DataSet) -> Path | None:
    """The folder that holds the labels, the pictures and `root`, at most two above it; None if none does."""
    if root.suffix.lower() in {".yaml", ".yml"} and b".txt" in root.read_bytes():
        return None  # lists of images, which may lie anywhere
    table = compact(data.records).columns
    folders = {*table.paths.folders, *table.sources.folders}
    folders |= {problem.file.parent for problem in data.problems if problem.file != root}
    start = _plain(root if root.is_dir() else root.parent)
    base = Path(os.path.commonpath([start, *map(_plain, folders)]))
    return base if base in (start, *start.parents[:2]) else None


def _plain(folder: Path) -> Path:
    """The absolute path without `..`; links are not followed."""
    return Path(os.path.normpath(folder.absolute()))


def _digest(files: Iterable[tuple[str, list[_File]]]) -> str:
    digest = hashlib.blake2b(digest_size=20)
    for folder, rows in files:
        digest.update(repr((folder, sorted(rows))).encode())
    return digest.hexdigest()


def _stamps(base: Path) -> Iterator[tuple[str, list[_File]]]:
    """A row for every file that a result may depend on, folder by folder. Raises OSError."""
    tables = [(file.name, file.stat()) for file in base.parent.glob("*.csv")]  # of classes, beside a folder
    yield "..", [(name, facts.st_size, facts.st_mtime_ns, facts.st_ctime_ns) for name, facts in tables]
    yield from _files(str(base), set())


def _files(folder: str, seen: set[tuple[int, int]]) -> Iterator[tuple[str, list[_File]]]:
    """A folder and those below it, also where links lead, each with a row for itself and its files."""
    facts = Path(folder).stat()
    if (facts.st_dev, facts.st_ino) in seen:  # a link to a folder above itself
        return
    seen.add((facts.st_dev, facts.st_ino))
    rows, folders = [("", 0, facts.st_mtime_ns, facts.st_ctime_ns)], []
    with os.scandir(folder) as entries:
        for entry in entries:
            if entry.is_dir():
                folders.append(entry.path)
                continue
            try:
                facts = entry.stat()
            except FileNotFoundError:  # a link to nothing
                facts = entry.stat(follow_symlinks=False)
            rows.append((entry.name, facts.st_size, facts.st_mtime_ns, facts.st_ctime_ns))
    yield folder, rows
    for each in sorted(folders):
        yield from _files(each, seen)


def _prune(folder: Path) -> None:
    files = sorted(
        ((file.stat(), file) for file in folder.glob("*.npz")), key=lambda pair: -pair[0].st_mtime_ns
    )
    total = 0
    for facts, file in files:
        total += facts.st_size
        if total > MOST_BYTES:
            file.unlink(missing_ok=True)


def _pack(data: DataSet, document: dict[str, Any]) -> dict[str, npt.NDArray[Any]]:
    """A data set as arrays. Raises ValueError for a value that would not come back equal."""
    table = compact(data.records).columns
    document |= {
        "classes": data.classes,
        "problems": [[p.severity, str(p.file), p.place, p.reason] for p in data.problems],
        "facts": {key: [type(value).__name__, value] for key, value in data.facts.items()},
        "folders": [str(folder) for folder in table.paths.folders],
        "source_folders": [str(folder) for folder in table.sources.folders],
    }
    text = json.dumps(document, default=str)
    if _facts(json.loads(text)) != data.facts:
        raise ValueError("facts of a type that JSON does not have")
    texts = {"ids": table.ids, "names": table.paths.names, "source_names": table.sources.names}
    return {
        "document": np.frombuffer(text.encode(), np.uint8),
        "folder": table.paths.folder,
        "source_folder": table.sources.folder,
        **{name: of.data for name, of in texts.items()},
        **{f"{name}_ends": of.ends for name, of in texts.items()},
        **{name: getattr(table, name) for name in _ARRAYS},
    }


def _unpack(document: dict[str, Any], arrays: Any) -> DataSet:
    ids, names, source_names = (
        Texts(arrays[name], arrays[f"{name}_ends"]) for name in ("ids", "names", "source_names")
    )
    folders, source_folders = (tuple(map(Path, document[name])) for name in ("folders", "source_folders"))
    paths = Paths(folders, arrays["folder"], names)
    sources = Paths(source_folders, arrays["source_folder"], source_names)
    columns = Columns(ids, paths, sources, *(arrays[name] for name in _ARRAYS))
    problems = tuple(Problem(row[0], Path(row[1]), *row[2:]) for row in document["problems"])
    return DataSet(tuple(document["classes"]), RecordTable(columns), problems, _facts(document))


def _facts(document: dict[str, Any]) -> dict[str, Any]:
    kinds = {"tuple": tuple, "PosixPath": Path, "WindowsPath": Path}
    pairs = document["facts"].items()
    return {key: kinds[kind](value) if kind in kinds else value for key, (kind, value) in pairs}

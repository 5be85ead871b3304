"""The images of a data set as a few arrays, from which records are made when they are asked for.

A Record is some thirty Python objects. Of 100,000 images they take 200 MB, and every process of a loader
copies them page by page, because looking at a Python object writes to its reference count. Arrays are shared.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, overload

import numpy as np
import numpy.typing as npt

from fssd.data.sample import Record
from fssd.data.stored import StoredPicture
from fssd.storage.folders import Folder

Ints = npt.NDArray[np.integer[Any]]
DIFFICULT, CROWD = 1, 2  # bits of `Columns.flags`
TEXT = ("utf-8", "surrogatepass")  # file names may hold bytes that are no text


def _ends(counts: Sequence[int]) -> Ints:
    """(N + 1,) int64: where each of N parts of these lengths begins, and the end of the last."""
    return np.cumsum([0, *counts], dtype=np.int64)


@dataclass(frozen=True, eq=False)
class Texts(Sequence[str]):
    """Strings in one array. ends: (N + 1,) where each begins in `data`, (M,) uint8 of UTF-8, and the end."""

    data: npt.NDArray[np.uint8]
    ends: Ints

    @classmethod
    def of(cls, texts: Iterable[str]) -> Texts:
        parts = [text.encode(*TEXT) for text in texts]
        return cls(np.frombuffer(b"".join(parts), np.uint8), _ends([len(part) for part in parts]))

    def __len__(self) -> int:
        return len(self.ends) - 1

    def __getitem__(self, index: Any) -> Any:
        return self.data[self.ends[index] : self.ends[index + 1]].tobytes().decode(*TEXT)


@dataclass(frozen=True, eq=False)
class Paths:
    """Paths as a folder, by its index, and a name in it."""

    folders: tuple[Path, ...]
    folder: Ints
    names: Texts

    @classmethod
    def of(cls, paths: Sequence[Path]) -> Paths:
        folders = {folder: index for index, folder in enumerate(dict.fromkeys(path.parent for path in paths))}
        indices = np.array([folders[path.parent] for path in paths], np.int32)
        return cls(tuple(folders), indices, Texts.of(path.name for path in paths))

    def __getitem__(self, index: int) -> Path:
        return self.folders[int(self.folder[index])] / str(self.names[index])


@dataclass(frozen=True, eq=False)
class Spans:
    """Where the pictures lie. shard: (N,) index into `shards`, -1 for a file. offset, size: (N,) bytes."""

    shards: tuple[tuple[Folder, str], ...]
    shard: Ints
    offset: Ints
    size: Ints

    @classmethod
    def of(cls, records: Sequence[Record]) -> Spans | None:
        """None if every picture is a file."""
        stored = [record.stored for record in records]
        if not any(stored):
            return None
        shards = dict.fromkeys((one.folder, one.shard) for one in stored if one is not None)
        index = {shard: number for number, shard in enumerate(shards)}
        rows = [(-1, 0, 0) if s is None else (index[s.folder, s.shard], s.offset, s.size) for s in stored]
        shard, offset, size = np.array(rows, np.int64).T.copy()
        return cls(tuple(shards), shard, offset, size)

    def stored(self, index: int, path: Path) -> StoredPicture | None:
        if self.shard[index] < 0:
            return None
        folder, name = self.shards[self.shard[index]]
        return StoredPicture(folder, name, int(self.offset[index]), int(self.size[index]), path)


@dataclass(frozen=True, eq=False)
class Columns:
    """All images. source: (N,) index into `sources`. width, height: (N,), -1 if not known.

    ends: (N + 1,) where the objects of each image begin in the arrays of all objects, and their number.
    boxes: (M, 4) float32. labels: (M,). flags: (M,) bits. areas: (M,) float64, or (0,) if no image has any;
    has_areas: (N,) bool. spans: of pictures in shards. reopen: makes these columns in another process, where
    they are a file that need not be copied.
    """

    ids: Texts
    paths: Paths
    sources: Paths
    source: Ints
    width: Ints
    height: Ints
    ends: Ints
    boxes: npt.NDArray[np.float32]
    labels: Ints
    flags: npt.NDArray[np.uint8]
    has_areas: npt.NDArray[Any]
    areas: npt.NDArray[np.float64]
    spans: Spans | None = None
    reopen: Callable[[], Columns] | None = field(default=None)

    def __reduce__(self) -> Any:
        if self.reopen is not None:
            return self.reopen, ()
        return Columns, tuple(getattr(self, name) for name in self.__dataclass_fields__)

    def __len__(self) -> int:
        return len(self.ids)

    def record(self, index: int) -> Record:
        start, end = self.ends[index], self.ends[index + 1]
        width, height = int(self.width[index]), int(self.height[index])
        flags = self.flags[start:end]
        path = self.paths[index]
        return Record(
            self.ids[index],
            path,
            self.sources[self.source[index]],
            width if width > 0 else None,
            height if height > 0 else None,
            self.boxes[start:end],
            self.labels[start:end].astype(np.int64),
            (flags & DIFFICULT) != 0,
            (flags & CROWD) != 0,
            self.areas[start:end] if self.has_areas[index] else None,
            None if self.spans is None else self.spans.stored(index, path),
        )


class RecordTable(Sequence[Record]):
    """The records of a data set, or some of them in any order. rows: their indices in `columns`, or all."""

    def __init__(self, columns: Columns, rows: Ints | None = None) -> None:
        self.columns = columns
        self.rows = rows

    def __len__(self) -> int:
        return len(self.columns) if self.rows is None else len(self.rows)

    @overload
    def __getitem__(self, index: int) -> Record: ...
    @overload
    def __getitem__(self, index: slice) -> RecordTable: ...
    def __getitem__(self, index: int | slice) -> Record | RecordTable:
        if isinstance(index, slice):
            return self.take(range(len(self))[index])
        row = range(len(self))[index]  # also of a negative index; raises IndexError
        return self.columns.record(row if self.rows is None else int(self.rows[row]))

    def __iter__(self) -> Iterator[Record]:
        rows = range(len(self.columns)) if self.rows is None else self.rows.tolist()
        return map(self.columns.record, rows)

    def take(self, indices: Iterable[int]) -> RecordTable:
        """The records at these indices, which share their arrays with this table."""
        chosen = np.fromiter(indices, np.int64)
        return RecordTable(self.columns, chosen if self.rows is None else self.rows[chosen])


def take(records: Sequence[Record], indices: Iterable[int]) -> Sequence[Record]:
    """Some records in the order given, as compact as they were."""
    if isinstance(records, RecordTable):
        return records.take(indices)
    return tuple(records[index] for index in indices)


def compact(records: Sequence[Record]) -> RecordTable:
    """The same records as a table."""
    if isinstance(records, RecordTable):
        return records
    paths = [record.path for record in records]
    sources = {source: index for index, source in enumerate(dict.fromkeys(r.source for r in records))}
    objects = [len(record.labels) for record in records]
    flags = [r.difficult * np.uint8(DIFFICULT) + r.crowd * np.uint8(CROWD) for r in records]
    has_areas = np.array([record.areas is not None for record in records], np.bool_)
    areas = [np.zeros(len(r.labels)) if r.areas is None else r.areas for r in records if has_areas.any()]
    return RecordTable(
        Columns(
            Texts.of(record.image_id for record in records),
            Paths.of(paths),
            Paths.of(list(sources)),
            np.array([sources[record.source] for record in records], np.int32),
            np.array([record.width or -1 for record in records], np.int32),
            np.array([record.height or -1 for record in records], np.int32),
            _ends(objects),
            np.concatenate([np.zeros((0, 4), np.float32), *(record.boxes for record in records)]),
            np.concatenate([np.zeros(0, np.int64), *(r.labels for r in records)]).astype(np.int32),
            np.concatenate([np.zeros(0, np.uint8), *flags]).astype(np.uint8),
            has_areas,
            np.concatenate([np.zeros(0), *areas]),
            Spans.of(records),
        )
    )

"""index.arrow: a row for each image of each split, in an Arrow file that is mapped into memory.

Columns: id, file, split, shard, offset, size, width, height, and objects: a list of {box: 4 x float32 xyxy in
pixels, label: int32, flags: 1 difficult + 2 crowd, and area: float64 px^2 where the labels state areas}.
The schema's metadata `fssd` is JSON with classes, splits and shards. Several splits may have the same image:
then its bytes are in a shard once, and it has a row for each.
"""

from __future__ import annotations

import json
import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial
from hashlib import blake2b
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from fssd.atomic import atomic_write, names_file
from fssd.data.columns import Columns, Ints, Paths, Spans, Texts
from fssd.data.shards.index_check import check_columns, check_facts
from fssd.errors import DataError
from fssd.storage.cache_folder import cache_folder
from fssd.storage.folders import Folder, is_remote
from fssd.storage.open_folder import open_folder
from fssd.storage.s3_folder import S3Folder, require_arrow

INDEX_FILE = "index.arrow"
CACHE_VARIABLE = "FSSD_CACHE"  # names a folder for whole shards of remote data sets
FORMAT = 1
_KEY = b"fssd"


@dataclass(frozen=True)
class IndexFacts:
    """What the metadata hold. splits: name to (first, end) of its rows. shards: name to size in bytes.

    facts: those of the data set. plan: a digest of what was written; see `shard_plan`.
    """

    classes: tuple[str, ...]
    splits: Mapping[str, tuple[int, int]]
    shards: Mapping[str, int]
    facts: Mapping[str, Any]
    plan: str


@dataclass(frozen=True)
class ShardIndex:
    """An index that is open. columns: a row for each image of each split, split after split."""

    facts: IndexFacts
    columns: Columns


def write_index(file: Path, columns: Columns, shard: npt.NDArray[np.int32], facts: IndexFacts) -> None:
    """Write an index. columns: with spans; shard: (N,) index into `facts.shards`."""
    arrow = require_arrow()
    spans = columns.spans
    assert spans is not None
    objects = {
        "box": arrow.FixedSizeListArray.from_arrays(arrow.array(columns.boxes.reshape(-1)), 4),
        "label": arrow.array(columns.labels, arrow.int32()),
        "flags": arrow.array(columns.flags, arrow.uint8()),
        **({"area": arrow.array(columns.areas)} if columns.has_areas.any() else {}),
    }
    counts = [end - start for start, end in facts.splits.values()]
    split = np.repeat(np.arange(len(counts), dtype=np.int16), counts)
    arrays = {
        "id": _strings(columns.ids),
        "file": _strings(columns.paths.names),
        "split": arrow.DictionaryArray.from_arrays(split, list(facts.splits)),
        "shard": arrow.array(shard, arrow.int32()),
        "offset": arrow.array(spans.offset, arrow.int64()),
        "size": arrow.array(spans.size, arrow.int64()),
        "width": arrow.array(columns.width, arrow.int32()),
        "height": arrow.array(columns.height, arrow.int32()),
        "objects": arrow.LargeListArray.from_arrays(
            columns.ends, arrow.StructArray.from_arrays(list(objects.values()), list(objects))
        ),
        **({"has_areas": arrow.array(columns.has_areas, arrow.bool_())} if "area" in objects else {}),
    }
    document = json.dumps({"format": FORMAT, **vars(facts)})
    batch = arrow.RecordBatch.from_arrays(list(arrays.values()), list(arrays))
    batch = batch.replace_schema_metadata({_KEY: document.encode()})
    with names_file(file), arrow.ipc.new_file(str(file), batch.schema) as writer:
        writer.write_batch(batch)


def _strings(texts: Texts) -> Any:
    arrow = require_arrow()
    buffers = [None, arrow.py_buffer(np.asarray(texts.ends, np.int64)), arrow.py_buffer(texts.data)]
    return arrow.LargeStringArray.from_buffers(len(texts), *buffers[1:])


def open_index(place: str) -> ShardIndex:
    """The index of a folder of shards, mapped into memory. Raises DataError, or ConfigError.

    That of a remote folder is copied into the user's cache folder, if that can be written.
    """
    folder = open_folder(place)
    index = _mapped(place, folder)
    facts, columns = index.facts, index.columns
    try:
        check_columns(columns, len(facts.classes), list(facts.shards.values()), facts.splits)
    except ValueError as error:
        raise _damaged(folder, str(error)) from error
    if not is_remote(place):
        _check_shards(folder, facts)
    return index


def read_facts(place: str) -> IndexFacts:
    """The metadata of an index alone. Raises as `open_index`."""
    folder = open_folder(place)
    return _batch(_local_copy(folder), folder)[1]


def _mapped(place: str, folder: Folder) -> ShardIndex:
    source = _local_copy(folder)
    batch, facts = _batch(source, folder)
    reopen = None if isinstance(source, bytes) else partial(_reopen, place)
    try:
        return ShardIndex(facts, _columns(batch, facts, folder, reopen))
    except (KeyError, AttributeError, ValueError, TypeError) as error:
        raise _damaged(folder, str(error)) from error


def _reopen(place: str) -> Columns:
    """In a process of a loader: its parent has checked the rows."""
    return _mapped(place, open_folder(place)).columns


def _local_copy(folder: Folder) -> Path | bytes:
    """The file of an index on a disk; its bytes where nothing can be kept."""
    if not is_remote(folder.location):
        return Path(folder.path(INDEX_FILE))
    try:
        stamp = folder.stamp(INDEX_FILE)
    except DataError as error:
        raise _missing(folder) from error
    digest = blake2b(f"{folder.location}\n{stamp}".encode(), digest_size=16).hexdigest()
    file = cache_folder() / "shards" / f"{digest}.arrow"
    if file.is_file():
        return file
    content = folder.read(INDEX_FILE)
    try:
        file.parent.mkdir(parents=True, exist_ok=True)
        atomic_write(file, content)
    except OSError:  # a home that cannot be written
        return content
    return file


def _batch(source: Path | bytes, folder: Folder) -> tuple[Any, IndexFacts]:
    arrow = require_arrow()
    try:
        mapped = arrow.BufferReader(source) if isinstance(source, bytes) else arrow.memory_map(str(source))
        reader = arrow.ipc.open_file(mapped)
        document = json.loads(reader.schema.metadata[_KEY])
        if document.pop("format") != FORMAT:
            raise _damaged(folder, "is of another version of this program")
        facts = IndexFacts(**document)
        splits = {name: (int(first), int(end)) for name, (first, end) in facts.splits.items()}
        facts = IndexFacts(tuple(facts.classes), splits, dict(facts.shards), facts.facts, facts.plan)
        check_facts(facts.classes, facts.shards)
        return reader.get_batch(0), facts
    except FileNotFoundError as error:
        raise _missing(folder) from error
    except (arrow.ArrowException, OSError, KeyError, TypeError, ValueError, AttributeError) as error:
        raise _damaged(folder, str(error)) from error


def _missing(folder: Folder) -> DataError:
    reason = "there is no such file; write it with `fssd shard DATA DEST`, or check the path"
    return DataError(reason, file=folder.path(INDEX_FILE))


def _damaged(folder: Folder, reason: str) -> DataError:
    text = " ".join(reason.split())[:120]
    reason = f"is damaged ({text}); copy the folder again, or remove it and write it with `fssd shard`"
    return DataError(reason, file=folder.path(INDEX_FILE))


def _columns(batch: Any, facts: IndexFacts, folder: Folder, reopen: Any) -> Columns:
    """Columns that point into the file, nothing is copied."""
    objects = batch.column("objects")
    rows, fields = len(batch), objects.values
    has_areas = fields.type.get_field_index("area") >= 0
    shard = _array(batch.column("shard"))
    place = Path(folder.location)
    if isinstance(folder, S3Folder) and (kept := os.environ.get(CACHE_VARIABLE)):
        digest = blake2b(f"{folder.location}\n{facts.plan}".encode(), digest_size=16).hexdigest()
        folder = replace(folder, kept=str(Path(kept, "shards", digest)))
    return Columns(
        ids=_texts(batch.column("id")),
        paths=Paths(tuple(place / name for name in facts.shards), shard, _texts(batch.column("file"))),
        sources=Paths((place,), np.zeros(1, np.int32), Texts.of([INDEX_FILE])),
        source=np.broadcast_to(np.int32(0), rows),
        width=_array(batch.column("width")),
        height=_array(batch.column("height")),
        ends=_array(objects.offsets),
        boxes=_array(fields.field("box").values).reshape(-1, 4),
        labels=_array(fields.field("label")),
        flags=_array(fields.field("flags")),
        has_areas=(
            batch.column("has_areas").to_numpy(zero_copy_only=False)
            if has_areas
            else np.broadcast_to(np.bool_(False), rows)
        ),
        areas=_array(fields.field("area")) if has_areas else np.zeros(0),
        spans=Spans(
            tuple((folder, name) for name in facts.shards),
            shard,
            _array(batch.column("offset")),
            _array(batch.column("size")),
        ),
        reopen=reopen,
    )


def _array(column: Any) -> npt.NDArray[Any]:
    values: npt.NDArray[Any] = column.to_numpy(zero_copy_only=True)
    return values


def _texts(column: Any) -> Texts:
    _, ends, data = column.buffers()
    content = np.zeros(0, np.uint8) if data is None else np.frombuffer(data, np.uint8)
    return Texts(content, np.frombuffer(ends, np.int64, len(column) + 1))


def _check_shards(folder: Folder, facts: IndexFacts) -> None:
    """Raise DataError if a shard is missing or has another size."""
    for name, size in facts.shards.items():
        file = Path(folder.path(name))
        own = file.stat().st_size if file.is_file() else None
        if own != size:
            what = "is missing" if own is None else f"has {own:,} bytes, not {size:,}"
            raise DataError(f"{what}; copy the folder again, or run the same `fssd shard` again", file=file)


def split_rows(index: ShardIndex, names: Sequence[str]) -> npt.NDArray[np.int64] | None:
    """The rows of some splits, or without names of all, each image once; None for every row.

    An image that an earlier split has too, with the same objects, is left out. With others it is that of
    another source: joined ones may label different objects of the same pictures.
    """
    ranges = [index.facts.splits[name] for name in names or index.facts.splits]
    rows = np.concatenate([np.arange(first, end) for first, end in ranges])
    if len(ranges) == 1:
        return None if len(rows) == len(index.columns) else rows
    split = np.repeat(np.arange(len(ranges)), [end - first for first, end in ranges])
    return rows[_is_first(index.columns, rows, split)]


def _is_first(columns: Columns, rows: Ints, split: Ints) -> npt.NDArray[np.bool_]:
    """(N,) whether no earlier split has the same image with the same objects. rows, split: (N,)."""
    spans = columns.spans
    assert spans is not None
    places = np.stack([spans.shard[rows], spans.offset[rows]], axis=1)
    _, picture, counts = np.unique(places, axis=0, return_inverse=True, return_counts=True)
    picture = picture.reshape(-1)
    found, first = np.ones(len(rows), bool), dict[tuple[object, ...], int]()
    for at in np.flatnonzero(counts[picture] > 1).tolist():
        own = slice(columns.ends[rows[at]], columns.ends[rows[at] + 1])
        objects = (values[own].tobytes() for values in (columns.labels, columns.boxes, columns.flags))
        found[at] = first.setdefault((picture[at], *objects), split[at]) == split[at]
    return found

"""Shards: a folder that `fssd shard` wrote, on a disk or in S3."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path

from fssd.data.columns import RecordTable
from fssd.data.formats.reader import Reader
from fssd.data.join import match_classes
from fssd.data.sample import DataSet
from fssd.data.shards.shard_index import INDEX_FILE, open_index, read_facts, split_rows
from fssd.errors import ConfigError, DataError, nearest
from fssd.storage.folders import Folder, is_remote, location
from fssd.storage.local_folder import LocalFolder

UNFINISHED_FILE = "unfinished.json"  # while shards are written


def _find(path: Path) -> Path | None:
    if is_remote(path):
        return path.parent if path.name == INDEX_FILE else path
    if path.name == INDEX_FILE and path.is_file():
        return path.parent
    folder = LocalFolder(location(path))
    is_written = path.is_dir() and (folder.exists(INDEX_FILE) or holds_unfinished(folder))
    return path if is_written else None


def holds_unfinished(folder: Folder) -> bool:
    """Whether shards are being written there; plain `fssd detect` has a file of the same name."""
    if not folder.exists(UNFINISHED_FILE):
        return False
    try:
        content = json.loads(folder.read(UNFINISHED_FILE))
    except ValueError:
        return False
    return isinstance(content, dict) and "plan" in content


def _splits(root: Path) -> tuple[str, ...]:
    return tuple(filter(None, read_facts(_place(root)).splits))


def _classes(root: Path) -> tuple[str, ...]:
    return read_facts(_place(root)).classes


def _place(root: Path) -> str:
    """Where the shards are. Raises DataError if they are not finished."""
    if not is_remote(root) and not (root / INDEX_FILE).exists():
        raise DataError("was not written to the end; run the same `fssd shard` again to go on", file=root)
    return location(root)


def _read(root: Path, split: str | None, classes: Sequence[str] | None, images: Path | None) -> DataSet:
    if images is not None:
        raise ConfigError(f"{root}: shards hold their pictures, so --images has no effect; leave it out")
    index = open_index(_place(root))
    names = [] if split is None else list(dict.fromkeys(name.strip() for name in split.split("+")))
    for name in names:
        if not name or name not in index.facts.splits:
            known = nearest(name, filter(None, index.facts.splits))
            raise DataError(f"has no split {name!r}{known}", file=location(root))
    records = RecordTable(index.columns, split_rows(index, names))
    own = index.facts.facts.items()
    facts = {key: tuple(value) if isinstance(value, list) else value for key, value in own}
    facts |= {"format": SHARDS.name, "images": len(records)}
    data = DataSet(index.facts.classes, records, (), facts)
    return data if classes is None or tuple(classes) == data.classes else match_classes(data, classes)


SHARDS = Reader(
    name="shards",
    looked_for="index.arrow of `fssd shard`",
    recognise=_find,
    splits=_splits,
    classes=_classes,
    read=_read,
)

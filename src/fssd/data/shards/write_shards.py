"""`fssd shard`: a data set of any known format becomes tar files of its pictures and an index."""

from __future__ import annotations

import io
import json
import tarfile
import tempfile
from collections.abc import Callable, Mapping, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass, replace
from functools import partial
from itertools import starmap
from pathlib import Path
from typing import Any

import numpy as np

from fssd.atomic import remove_leftovers, temporary_prefix
from fssd.data.columns import Spans, compact
from fssd.data.decode import read_bytes
from fssd.data.formats.shards import UNFINISHED_FILE
from fssd.data.headers import with_headers
from fssd.data.join import (
    category_ids,
    class_numbers,
    join_classes,
    left_out_of_splits,
    match_classes,
    open_splits,
)
from fssd.data.progress import Track, as_given
from fssd.data.sample import DataSet
from fssd.data.shards.shard_index import INDEX_FILE, IndexFacts, read_facts, write_index
from fssd.data.shards.shard_plan import Measured, Member, PlannedShard, ShardPlan, plan_shards
from fssd.data.source import find_reader, list_splits, open_data
from fssd.errors import ConfigError, DataError
from fssd.storage.folders import Folder, is_remote
from fssd.storage.open_folder import open_folder
from fssd.storage.s3_folder import require_arrow

SHARD_SIZE = 256 << 20  # bytes


@dataclass(frozen=True)
class Sharded:
    """What lies at `location` now. images, objects: by split. shards, size: their number and bytes.

    written: how many of the shards this call wrote; the others were there. left_out: images with errors.
    """

    location: str
    images: Mapping[str, int]
    objects: Mapping[str, int]
    shards: int
    size: int
    written: int
    left_out: int
    notes: tuple[str, ...]


def shard_data(
    path: Path | str,
    dest: Path | str,
    *,
    splits: Sequence[str] = (),
    images: Path | str | None = None,
    shard_size: int = SHARD_SIZE,
    bad_share: float = 0.0,
    track: Track = as_given,
) -> Sharded:
    """Write the images and labels of a data set as shards; pictures are copied byte by byte.

    dest: a folder or `s3://bucket/key`, new or empty, or with what an earlier call of the same on the same
    data has written of it: then it goes on after the last whole shard. The index is written last; without it
    a folder is not taken for a data set. splits: by default all, ("none",) for every image without a split.
    images: a folder to look for the pictures in. shard_size: bytes, at most. bad_share: the share of each
    split's images (0..1) that may have errors and are left out, printed by name.
    Raises ConfigError, DataError.
    """
    require_arrow()
    path, folder = Path(path), open_folder(dest)
    _, root = find_reader(path)
    _check_outside(folder, root)
    sets, classes, notes = _open(path, splits, partial(open_data, path, images=images))
    measured = {
        name: list(starmap(Measured, with_headers(data, track(data.records, "reading"), bad_share)))
        for name, data in sets.items()
    }
    base = root if not is_remote(root) and root.is_dir() else None
    plan = plan_shards(measured, classes, base, shard_size)
    facts = _facts(plan, classes, measured, sets)
    written = 0
    if not _is_done(folder, plan.digest):
        folder.require_writable()
        written = _write(folder, plan, measured, facts, track)
    lost = sum(int(data.facts.get("images", len(data))) for data in sets.values())
    return Sharded(
        folder.location,
        {name: len(own) for name, own in measured.items()},
        {name: sum(len(one.record.labels) for one in own) for name, own in measured.items()},
        len(plan.shards),
        sum(facts.shards.values()),
        written,
        lost - sum(map(len, measured.values())),
        tuple(notes),
    )


def _check_outside(folder: Folder, root: Path) -> None:
    if is_remote(folder.location) or is_remote(root) or not root.is_dir():
        return
    if Path(folder.location).resolve().is_relative_to(root.resolve()):
        raise ConfigError(f"{folder}: lies inside the data set {root}; choose a folder outside")


def _open(
    path: Path, splits: Sequence[str], opened_as: Callable[..., DataSet]
) -> tuple[dict[str, DataSet], tuple[str, ...], list[str]]:
    """The data sets by split, with labels into the same classes, these, and notes."""
    chosen = tuple(dict.fromkeys(splits)) or list_splits(path)
    if not chosen or chosen == ("none",):
        whole = opened_as()
        return {"": whole}, whole.classes, []
    for name in chosen:
        if not name.isprintable() or set(name) & set("/\\:+") or name.startswith("."):
            raise ConfigError(f"the split {name!r} cannot be the name of a file; rename it")
    opened = open_splits(chosen, opened_as)
    classes = join_classes([data.classes for data in opened.values()], {})
    notes = [] if splits else left_out_of_splits(opened_as(), opened.values())
    return {name: match_classes(data, classes) for name, data in opened.items()}, classes, notes


def _facts(
    plan: ShardPlan,
    classes: tuple[str, ...],
    measured: Mapping[str, Sequence[Measured]],
    sets: Mapping[str, DataSet],
) -> IndexFacts:
    ranges: dict[str, tuple[int, int]] = {}
    first = 0
    for name, own in measured.items():
        ranges[name] = (first, first + len(own))
        first += len(own)
    facts: dict[str, Any] = {}
    if (known := category_ids(sets.values(), classes)) is not None:
        facts["category_ids"] = list(known)
    if (numbers := class_numbers(sets.values())) is not None:
        facts["class_numbers"] = numbers
    return IndexFacts(classes, ranges, {shard.name: shard.size for shard in plan.shards}, facts, plan.digest)


def _is_done(folder: Folder, digest: str) -> bool:
    """Whether the folder holds all of a plan. Raises ConfigError if it holds anything else."""
    if folder.exists(INDEX_FILE):
        facts = read_facts(folder.location)
        if facts.plan != digest:
            raise ConfigError(f"{folder}: holds other shards; remove them or choose another folder")
        there = {entry.name: entry.size for entry in folder.list()}
        if any(there.get(name) != size for name, size in facts.shards.items()):
            return False  # one was lost since
        folder.remove(UNFINISHED_FILE)  # a process that was killed at the very end leaves it
        return True
    if folder.exists(UNFINISHED_FILE):
        if _unfinished(folder) == {"plan": digest}:
            return False
        raise ConfigError(
            f"{folder}: holds a part of other shards, or the data set or the settings have changed since;"
            " remove it or choose another folder"
        )
    found = next(folder.list(), None)
    if found is not None:
        raise ConfigError(f"{folder}: is not empty, it holds {found.name}; choose a new folder")
    return False


def _unfinished(folder: Folder) -> Any:
    """What says which shards are being written. Raises DataError if it is damaged."""
    try:
        return json.loads(folder.read(UNFINISHED_FILE))
    except ValueError as error:
        reason = "is damaged, so nobody knows what the shards beside it are of; remove them or choose another"
        raise DataError(f"{reason} folder", file=folder.path(UNFINISHED_FILE)) from error


def _write(
    folder: Folder,
    plan: ShardPlan,
    measured: Mapping[str, Sequence[Measured]],
    facts: IndexFacts,
    track: Track,
) -> int:
    """Write the shards that are missing, then the index. Returns how many shards were written."""
    there = {entry.name: entry.size for entry in folder.list()}
    folder.write(UNFINISHED_FILE, json.dumps({"plan": plan.digest}).encode())
    missing = [shard for shard in plan.shards if there.get(shard.name) != shard.size]
    with _workplace(folder) as place:
        for shard in track(missing, "writing"):
            file = Path(place, shard.name)
            _write_tar(file, shard)
            folder.upload(file, shard.name)
        index = Path(place, INDEX_FILE)
        _write_rows(index, plan, measured, facts)
        folder.upload(index, INDEX_FILE)
    folder.remove(UNFINISHED_FILE)
    return len(missing)


def _workplace(folder: Folder) -> AbstractContextManager[str]:
    """A temporary folder: on the disk of a local folder, without those that killed processes left there."""
    if is_remote(folder.location):
        return tempfile.TemporaryDirectory(prefix="fssd-shard-")
    remove_leftovers(Path(folder.location))
    return tempfile.TemporaryDirectory(prefix=temporary_prefix(), dir=folder.location)


def _write_tar(file: Path, shard: PlannedShard) -> None:
    with tarfile.open(file, "w", format=tarfile.USTAR_FORMAT) as tar:
        for member in shard.members:
            _add(tar, member.name, _content(member))
            _add(tar, f"{Path(member.name).stem}.json", member.labels)
    assert file.stat().st_size == shard.size, "the layout of a tar file was foreseen wrongly"


def _content(member: Member) -> bytes:
    data = read_bytes(member.record.picture)
    if len(data) != member.size:
        raise DataError("was changed while the shards were written; run again", file=member.record.path)
    return data


def _add(tar: tarfile.TarFile, name: str, content: bytes) -> None:
    facts = tarfile.TarInfo(name)  # of time 0 and no user, so that equal data are equal bytes
    facts.size = len(content)
    tar.addfile(facts, io.BytesIO(content))


def _write_rows(
    file: Path, plan: ShardPlan, measured: Mapping[str, Sequence[Measured]], facts: IndexFacts
) -> None:
    places = {
        member.record.path: (number, member.offset, member.size)
        for number, shard in enumerate(plan.shards)
        for member in shard.members
    }
    images = [one for own in measured.values() for one in own]
    rows = np.array([places[one.record.path] for one in images], np.int64)
    spans = Spans((), rows[:, 0], rows[:, 1].copy(), rows[:, 2].copy())
    sized = [
        replace(record, path=Path(plan.files[record.path]), width=header.width, height=header.height)
        for record, header in images
    ]
    columns = replace(compact(sized).columns, spans=spans)
    names = columns.paths
    whole = replace(names, names=type(names.names).of(plan.files[one.record.path] for one in images))
    write_index(file, replace(columns, paths=whole), rows[:, 0].astype(np.int32), facts)

"""Which picture a record is of, told by names that stay when the data set is moved or becomes shards."""

from __future__ import annotations

import os
from collections.abc import Iterable, Sequence
from pathlib import Path, PurePosixPath

from fssd.data.decode import IMAGE_EXTENSIONS
from fssd.data.formats.lookup import composed
from fssd.data.sample import Record


def named_by_id(record: Record) -> PurePosixPath | None:
    """The end of the picture's path that its id is, with or without the suffix; None for ids like COCO's."""
    ends = (record.image_id, f"{record.image_id}{record.path.suffix}")
    path = f"/{record.path.as_posix().lstrip('/')}"  # an id that is the whole path is no name
    return next((PurePosixPath(end) for end in ends if path.endswith(f"/{end}")), None)


def inside_shard(record: Record) -> Path | None:
    """The path that a picture in a shard has in the data set; None for a file."""
    shard = "" if record.stored is None else PurePosixPath(record.stored.shard).name
    parts = record.path.parts
    inside = parts[parts.index(shard) + 1 :] if shard in parts else ()
    return Path(*inside) if inside else None


def own_names(records: Sequence[Record]) -> list[str]:
    """The id of each record whose picture is called so; of the others the path below the folder of all."""
    unnamed = [index for index, record in enumerate(records) if named_by_id(record) is None]
    names = [record.image_id for record in records]
    whole = [plain_path(records[index]) for index in unnamed]
    base = os.path.commonpath({os.path.split(path)[0] for path in whole}) if whole else ""
    for index, path in zip(unnamed, whole, strict=True):
        names[index] = os.path.relpath(path, base).replace(os.sep, "/")
    return names


def plain_path(record: Record) -> str:
    """Where the picture lies; of one in a shard without the shard's name, which parts a film."""
    inside = inside_shard(record)
    if record.stored is None or inside is None:
        return _absolute(record.path)
    return _absolute(Path("/", record.stored.folder.location) / inside)


def _absolute(path: Path) -> str:
    """Without `..`; links are not followed."""
    return os.path.normpath(path.absolute())


def is_called(record: Record, name: str) -> bool:
    """Whether a name is the end of the picture's path. Suffixes do not count: they change with the format."""
    return f"/{bare_name(record.path.as_posix())}".endswith(f"/{bare_name(name)}")


def bare_name(name: str) -> str:
    """Without the suffix, in the composed form of Unicode."""
    stem, dot, suffix = name.rpartition(".")
    return composed(stem if f"{dot}{suffix}".lower() in IMAGE_EXTENSIONS else name)


def renamed_ids(ids: Iterable[str], records: Sequence[Record]) -> dict[str, str]:
    """What ids that are kept in a file are now, where they differ.

    Where two pictures share a name, earlier versions took the path as their ids.
    """
    own = {record.image_id for record in records}
    lost = [key for key in ids if key not in own]
    paths = {_absolute(record.path): record.image_id for record in records} if lost else {}
    return {key: paths[path] for key in lost if (path := _absolute(Path(key))) in paths}

"""What goes into which shard, decided before anything is written."""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

from fssd.data.decode import SUFFIXES, ImageHeader
from fssd.data.sample import Record
from fssd.data.shards.shard_index import FORMAT
from fssd.errors import ConfigError

_BLOCK = 512  # bytes; of a tar file: a header is one, contents are filled up to whole ones
_RECORD = 20 * _BLOCK  # the whole file is filled up to these
_NOTHING = 2 * _BLOCK  # the end of an archive


class Measured(NamedTuple):
    """A record that can be written, and what its picture's header states."""

    record: Record
    header: ImageHeader


class Member(NamedTuple):
    """A picture in a shard. name: of its tar member; labels: the content of the json beside it.

    offset, size: of the picture's bytes in the shard.
    """

    record: Record
    name: str
    labels: bytes
    offset: int
    size: int


@dataclass(frozen=True)
class PlannedShard:
    """A tar file and its members. size: bytes of the whole file."""

    name: str
    members: tuple[Member, ...]
    size: int


@dataclass(frozen=True)
class ShardPlan:
    """shards: in the order they are written. files: the name of each picture. digest: of all of it.

    The digest also covers the sizes and times of the pictures' files: it is another one if any was changed.
    """

    shards: tuple[PlannedShard, ...]
    files: Mapping[Path, str]
    digest: str


def plan_shards(
    splits: Mapping[str, Sequence[Measured]], classes: Sequence[str], root: Path | None, shard_size: int
) -> ShardPlan:
    """Each picture once, in the shards of the smallest split that has it; a shard holds one split's.

    root: the folder of the data set; pictures are named as they lie below it. shard_size: bytes, at most,
    but each shard has at least one picture. Raises ConfigError for a file name that is no text.
    """
    files = _file_names([one.record.path for own in splits.values() for one in own], root)
    digest = hashlib.blake2b(json.dumps([FORMAT, shard_size, list(classes)]).encode(), digest_size=16)
    shards: list[PlannedShard] = []
    done: set[Path] = set()
    for split, own in sorted(splits.items(), key=lambda item: len(item[1])):
        members: list[Member] = []
        end, number = 0, 0
        for record, header in own:
            if record.path in done:
                continue
            name = f"{len(done):08}{SUFFIXES[header.format][0]}"
            done.add(record.path)
            labels = _labels(record, header, files[record.path], split, classes)
            size = record.stored.size if record.stored is not None else record.path.stat().st_size
            length = _length(size) + _length(len(labels))
            if members and _whole(end + length) > shard_size:
                shards.append(_shard(split, number, members, end))
                members, end, number = [], 0, number + 1
            members.append(Member(record, name, labels, end + _BLOCK, size))
            end += length
            digest.update(labels + _stamp(record))
        if members:
            shards.append(_shard(split, number, members, end))
    for split, own in splits.items():
        digest.update(split.encode())
        for record, _ in own:
            digest.update(f"{record.image_id}\n{files[record.path]}\n".encode(errors="surrogatepass"))
            digest.update(b"".join(part.tobytes() for part in _arrays(record)))
    return ShardPlan(tuple(shards), files, digest.hexdigest())


def _length(size: int) -> int:
    """The bytes that a member takes in a tar file."""
    return _BLOCK + -(-size // _BLOCK) * _BLOCK


def _shard(split: str, number: int, members: Sequence[Member], end: int) -> PlannedShard:
    return PlannedShard(f"{split or 'all'}-{number:06}.tar", tuple(members), _whole(end))


def _whole(end: int) -> int:
    """The bytes of a tar file whose last member ends there."""
    return -(-(end + _NOTHING) // _RECORD) * _RECORD


def _arrays(record: Record) -> list[Any]:
    areas = [] if record.areas is None else [record.areas]
    return [record.boxes, record.labels, record.difficult, record.crowd, *areas]


def _stamp(record: Record) -> bytes:
    if record.stored is not None:
        return f"{record.stored.shard} {record.stored.offset} {record.stored.size}".encode()
    facts = record.path.stat()
    return f"{facts.st_size} {facts.st_mtime_ns}".encode()


def _labels(record: Record, header: ImageHeader, file: str, split: str, classes: Sequence[str]) -> bytes:
    """The labels for readers of WebDataset; training reads the index."""
    content = {
        "id": record.image_id,
        "file": file,
        "split": split,
        "width": header.width,
        "height": header.height,
        "boxes": [[float(f"{side:.9g}") for side in box] for box in record.boxes.tolist()],
        "labels": [classes[label] for label in record.labels],
        "difficult": record.difficult.tolist(),
        "crowd": record.crowd.tolist(),
        **({} if record.areas is None else {"areas": record.areas.tolist()}),
    }
    return json.dumps(content).encode()


def _file_names(paths: Sequence[Path], root: Path | None) -> dict[Path, str]:
    """The name of each picture below the root of the data set, or below the folder that holds them all."""
    whole = {path: path.absolute() for path in dict.fromkeys(paths)}
    base = Path(os.path.commonpath(list({path.parent for path in whole.values()})))
    if root is not None and root.absolute() in (base, *base.parents):
        base = root.absolute()
    names = {path: own.relative_to(base).as_posix() for path, own in whole.items()}
    for path, name in names.items():
        try:
            name.encode()
        except UnicodeEncodeError as error:
            raise ConfigError(f"{path}: its name is no text in UTF-8; rename the file") from error
    return names

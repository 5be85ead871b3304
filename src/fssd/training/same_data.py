"""Whether a resumed run sees the images and labels that it was started with, wherever they lie now."""

from __future__ import annotations

import json
from collections.abc import Collection, Mapping, Sequence
from dataclasses import replace
from hashlib import blake2b
from pathlib import Path
from typing import Any, NamedTuple

import torch
from torch import Tensor

from fssd.data.picture_identity import renamed_ids
from fssd.data.sample import DataSet, Record, background_record
from fssd.errors import ConfigError

IDS, LABELS, REPEATS = "data/ids", "data/labels", "data/repeats"  # tensors of a saved state


class Content(NamedTuple):
    """What a run is trained on. ids: of the images, in order. digests: (N,) int64, of each one's labels.

    repeats: (N,) float64, how often each is shown in a pass, in a run that oversamples.
    """

    ids: tuple[str, ...]
    digests: Tensor
    repeats: Tensor | None = None

    def digest(self) -> str:
        """Equal in all processes that see the same."""
        return blake2b(json.dumps([self.ids, self.digests.tolist()]).encode()).hexdigest()

    def tensors(self) -> dict[str, Tensor]:
        """For a saved state; JSON would be too long for a file's header."""
        repeats = {} if self.repeats is None else {REPEATS: self.repeats}
        return repeats | {
            IDS: torch.frombuffer(bytearray(json.dumps(self.ids).encode()), dtype=torch.uint8),
            LABELS: self.digests,
        }


class Resumed(NamedTuple):
    """A data set as the run was started with. absent: indices of records whose images are not there now."""

    dataset: DataSet
    content: Content
    absent: frozenset[int]


def content_of(dataset: DataSet) -> Content:
    """The images of a data set, and digests of their boxes, labels and flags."""
    records = dataset.records
    return Content(tuple(r.image_id for r in records), torch.tensor([_digest(r) for r in records]))


def _digest(record: Record) -> int:
    parts = (record.boxes, record.labels, record.difficult, record.crowd)
    data = b"".join(part.tobytes() for part in parts)
    return int.from_bytes(blake2b(data, digest_size=8).digest(), "little", signed=True)


def same_data(
    document: Mapping[str, Any], tensors: Mapping[str, Tensor], dataset: DataSet, unusable: int, state: Path
) -> Resumed:
    """`dataset` in the order of the state, with a record for each image that may be missing now.

    Those are the images that the run has left out, and as many as the reader has left out since then.
    unusable: how many images the reader has left out. Raises ConfigError if anything else differs. A state of
    an older version knows the number of its images alone.
    """
    now = content_of(dataset)
    if IDS not in tensors:
        if document["images"] != len(dataset):
            raise _changed(document["images"], dataset, [], state)
        return Resumed(dataset, now, frozenset())
    stored = json.loads(tensors[IDS].numpy().tobytes())
    renamed = renamed_ids(stored, dataset.records)
    ids = tuple(renamed.get(key, key) for key in stored)
    before = Content(ids, tensors[LABELS], tensors.get(REPEATS))
    if before.ids == now.ids and torch.equal(before.digests, now.digests):
        return Resumed(dataset, before, frozenset())
    known = dict(zip(before.ids, before.digests.tolist(), strict=True))
    found = dict(zip(now.ids, now.digests.tolist(), strict=True))
    records = dict(zip(now.ids, dataset.records, strict=True))
    missing = [key for key in known if key not in found]
    left_out = {renamed.get(key, key) for key in document.get("left_out", ())}
    unexplained = [key for key in missing if key not in left_out]
    if len(unexplained) <= unusable - document.get("unusable", 0):
        unexplained = []
    added = [key for key in found if key not in known]
    relabelled = [key for key in known if key in found and known[key] != found[key]]
    changes = [("added", added), ("removed", unexplained), ("given other labels", relabelled)]
    if added or unexplained or relabelled or len(known) != len(before.ids):
        raise _changed(len(before.ids), dataset, changes, state)
    whole = tuple(records.get(key) or background_record(key, Path(key)) for key in before.ids)
    absent = frozenset(index for index, key in enumerate(before.ids) if key not in found)
    return Resumed(replace(dataset, records=whole), before, absent)


def _changed(
    before: int, dataset: DataSet, changes: Sequence[tuple[str, Collection[str]]], state: Path
) -> ConfigError:
    parts = [f"{len(keys)} {what} (first: {next(iter(keys))})" for what, keys in changes if keys]
    listed = f": {', '.join(parts)}" if parts else ""
    return ConfigError(
        f"{state}: was made with {before} images, the data set has {len(dataset)}{listed};"
        " resume with the same images and labels or start another run in a new --out"
    )

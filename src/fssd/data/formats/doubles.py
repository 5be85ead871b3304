"""Finds what a data set holds twice: pictures under two names, and files that are equal."""

from __future__ import annotations

import filecmp
from collections.abc import Sequence
from pathlib import Path

from fssd.data.same_files import true_paths
from fssd.data.sample import Problem, Record


def are_equal(one: Path, other: Path) -> bool:
    """Whether two files are equal byte by byte; files that cannot be read are not known to be."""
    try:
        return filecmp.cmp(one, other, shallow=False)
    except OSError:
        return False


def same_pictures(records: Sequence[Record], root: Path) -> list[Problem]:
    """A warning that counts the records whose picture another record has under another path (a link)."""
    first: dict[str, Record] = {}
    again: list[tuple[Record, Record]] = []
    for record, path in zip(records, true_paths(one.path for one in records), strict=True):
        known = first.setdefault(path, record)
        if known is not record:
            again.append((record, known))
    if not again:
        return []
    one, other = again[0]
    ids = f"{one.path} with the ids {other.image_id} and {one.image_id}"
    reason = f"{len(again)} pictures are listed twice, the first is {ids}; keep one of them"
    return [Problem("warning", root, "", reason)]

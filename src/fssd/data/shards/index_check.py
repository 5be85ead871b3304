"""Whether an index of shards can be one that was written: a damaged one would give wrong labels in silence.

A shard's name becomes a path, also in the cache; that of somebody else's store must not lead elsewhere.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from fssd.data.columns import TEXT, Columns, Ints, Texts

_LARGEST = 2**63 - 1  # bytes


def check_facts(classes: Sequence[Any], shards: Mapping[Any, Any]) -> None:
    """Raise ValueError with what is wrong with the metadata."""
    for name in classes:
        if not isinstance(name, str):
            raise ValueError(f"the class {name!r} is no text")
    for name, size in shards.items():
        if name in ("", ".", "..") or set(name) & set("/\\:\0"):
            raise ValueError(f"the shard {name!r} is not the name of a file in this folder")
        if type(size) is not int or not 0 <= size <= _LARGEST:
            raise ValueError(f"the shard {name!r} has {size!r} bytes")


def check_columns(
    columns: Columns, classes: int, sizes: Sequence[int], splits: Mapping[str, tuple[int, int]]
) -> None:
    """Raise ValueError with what is wrong with the rows.

    classes: their number. sizes: of the shards, in bytes. splits: the first row of each, and its end.
    """
    rows, spans = len(columns), columns.spans
    assert spans is not None
    for split, (first, end) in splits.items():
        if not 0 <= first <= end <= rows:
            raise ValueError(f"split {split!r} is the rows {first} to {end} of {rows}")
    _check_texts("id", columns.ids)
    _check_texts("file", columns.paths.names)
    _check_range("width", columns.width, 1)
    _check_range("height", columns.height, 1)
    _check_range("shard", spans.shard, 0, len(sizes) - 1)
    _check_range("size", spans.size, 1)
    _check_range("offset", spans.offset, 0)
    beyond = spans.offset > np.asarray(sizes, np.int64)[spans.shard] - spans.size  # a sum might overflow
    _check("offset", beyond, "lies with its size beyond its shard")
    _check_ends("objects", columns.ends, len(columns.labels))
    if len(columns.boxes) != len(columns.labels):
        raise ValueError(f"{len(columns.labels)} objects have {len(columns.boxes)} boxes")
    _check_range("label", columns.labels, 0, classes - 1)
    if not np.isfinite(columns.boxes).all():  # by row it takes three times as long
        _check("box", ~np.isfinite(columns.boxes).all(axis=1), "has a side that is no number")


def _check(column: str, wrong: Any, reason: str) -> None:
    if wrong.any():
        raise ValueError(f"{column} {int(wrong.argmax())} {reason}")


def _check_range(column: str, values: Ints, least: int, most: int = _LARGEST) -> None:
    if not np.issubdtype(values.dtype, np.integer):
        raise ValueError(f"the column {column} holds no whole numbers")
    if len(values) and not (least <= values.min() and values.max() <= most):
        row = int(np.argmax((values < least) | (values > most)))
        raise ValueError(f"{column} {row} is {values[row]}")


def _check_ends(column: str, ends: Ints, whole: int) -> None:
    if ends[0] < 0 or ends[-1] > whole or (ends[1:] < ends[:-1]).any():
        raise ValueError(f"the parts of {column} do not follow each other")


def _check_texts(column: str, texts: Texts) -> None:
    """As one text, and none of its parts begins inside a character: so each of them is a text."""
    _check_ends(column, texts.ends, len(texts.data))
    try:
        str(texts.data.data, *TEXT)
    except UnicodeDecodeError as error:
        raise ValueError(f"the column {column} is no text in UTF-8 (byte {error.start})") from error
    starts = texts.ends[texts.ends < len(texts.data)]
    _check(column, (texts.data[starts] & 0xC0) == 0x80, "begins inside a character")

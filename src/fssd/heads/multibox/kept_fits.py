"""Fitted levels, kept in the user's cache folder: a fit to a coverage takes a minute, and runs repeat it.

Every seed of an ablation, every trial of a search and every run on the same data asks for the same levels. A
file that cannot be read or written is no error: the levels are fitted instead.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Sequence
from contextlib import suppress
from functools import cache
from pathlib import Path
from typing import Any

from fssd.atomic import atomic_write
from fssd.heads.multibox.priors import Level
from fssd.storage.cache_folder import cache_folder, code_digest

Levels = tuple[Level, ...]
_CODE = ("fit.py", "missed.py", "priors.py")  # what fitted levels follow from


def kept_fit(boxes: bytes, dtype: str, levels: Levels, share: float, fit: Callable[[], Levels]) -> Levels:
    """What `fit` returns, or returned for the same boxes, levels and share at an earlier time."""
    key = hashlib.blake2b(boxes, digest_size=20)
    key.update(json.dumps([_code(), dtype, levels, share]).encode())
    file = cache_folder() / "priors" / f"{key.hexdigest()}.json"
    known = _read(file)
    if known is not None:
        return known
    fitted = fit()
    with suppress(OSError):
        file.parent.mkdir(parents=True, exist_ok=True)
        atomic_write(file, json.dumps({"levels": [level._asdict() for level in fitted]}))
    return fitted


@cache
def _code() -> str:
    """A digest of the code that fits: another version may fit other levels."""
    return code_digest(Path(__file__).with_name(name) for name in _CODE)


def _read(file: Path) -> Levels | None:
    try:
        rows = json.loads(file.read_text(encoding="utf-8"))["levels"]
        return tuple(map(_level, rows))
    except (OSError, ValueError, TypeError, KeyError):
        return None


def _level(row: dict[str, Any]) -> Level:
    centres, furthest = row["centres"], row["furthest"]
    return Level(
        row["rows"],
        row["columns"],
        _pair(row["step"]),
        tuple(map(_pair, row["shapes"])),
        None if centres is None else tuple(map(_pair, centres)),
        None if furthest is None else _pair(furthest),
    )


def _pair(values: Sequence[float]) -> tuple[float, float]:
    x, y = values
    return x, y

"""Names without duplicates and in a fixed order, on disk: a million of them take no memory."""

from __future__ import annotations

import os
import sqlite3
from collections.abc import Iterator, Sequence
from pathlib import Path
from tempfile import TemporaryDirectory

from fssd.parts.sources import Sources

_CACHE = 32_768  # KiB


def unique_names(arguments: Sequence[str], sources: Sources) -> Iterator[str]:
    """Each name once, in the order of the arguments; those of a folder are sorted, those of a list are not.

    The first place counts for a name that comes twice. Raises what `Sources.names` does.
    """
    with TemporaryDirectory(prefix="fssd-names-") as folder:
        database = sqlite3.connect(Path(folder, "names"))
        try:
            yield from _sorted(database, arguments, sources)
        finally:
            database.close()


def _sorted(database: sqlite3.Connection, arguments: Sequence[str], sources: Sources) -> Iterator[str]:
    for pragma in ("journal_mode=OFF", "synchronous=OFF", "temp_store=FILE", f"cache_size=-{_CACHE}"):
        database.execute(f"PRAGMA {pragma}")
    database.execute("CREATE TABLE names (name BLOB PRIMARY KEY, source INT, place INT) WITHOUT ROWID")
    for source, argument in enumerate(arguments):
        rows = (
            (os.fsencode(name), source, place if ordered else 0)
            for place, (name, ordered) in enumerate(sources.names(argument))
        )
        database.executemany("INSERT OR IGNORE INTO names VALUES (?, ?, ?)", rows)
    for (name,) in database.execute("SELECT name FROM names ORDER BY source, place, name"):
        yield os.fsdecode(name)

"""Rows of a plan without duplicates and in a fixed order, on disk: a million of them take no memory."""

from __future__ import annotations

import os
import sqlite3
from collections.abc import Iterator, Sequence
from contextlib import closing
from pathlib import Path
from tempfile import TemporaryDirectory

from fssd.errors import ConfigError
from fssd.parts.plan_rows import PlanRow
from fssd.parts.sources import Sources

_CACHE = 32_768  # KiB
_PRAGMAS = ("journal_mode=OFF", "synchronous=OFF", "temp_store=FILE", f"cache_size=-{_CACHE}")


def unique_rows(arguments: Sequence[str], sources: Sources) -> Iterator[PlanRow]:
    """Each image once, in the order of the arguments; those of a folder are sorted, those of a list are not.

    The first place counts for one that comes twice. Raises what `Sources.rows` does, and ConfigError if the
    temporary files find no room.
    """
    with TemporaryDirectory(prefix="fssd-names-") as folder:
        try:
            with closing(sqlite3.connect(Path(folder, "names"))) as database:
                for pragma in _PRAGMAS:
                    database.execute(f"PRAGMA {pragma}")
                yield from _sorted(database, arguments, sources)
        except sqlite3.OperationalError as error:
            place = Path(folder).parent
            reason = f"{place}: the names of the inputs cannot be sorted there ({error})"
            raise ConfigError(f"{reason}; make room, or set TMPDIR to a folder that has some") from error


def _sorted(database: sqlite3.Connection, arguments: Sequence[str], sources: Sources) -> Iterator[PlanRow]:
    columns = "image BLOB PRIMARY KEY, source INT, place INT, kind TEXT, file BLOB, start INT, stop INT"
    database.execute(f"CREATE TABLE names ({columns}) WITHOUT ROWID")
    for source, argument in enumerate(arguments):
        rows = (
            (os.fsencode(row.image), source, place * ordered, row.kind, os.fsencode(row.file), *row[3:])
            for place, (row, ordered) in enumerate(sources.rows(argument))
        )
        database.executemany("INSERT OR IGNORE INTO names VALUES (?, ?, ?, ?, ?, ?, ?)", rows)
    found = database.execute("SELECT image, kind, file, start, stop FROM names ORDER BY source, place, image")
    for image, kind, file, start, stop in found:
        yield PlanRow(os.fsdecode(image), kind, os.fsdecode(file), start, stop)

"""What SOURCE of `fssd detect --engine` stands for: one name after another, never all of them at once."""

from __future__ import annotations

import glob
import os
from codecs import BOM_UTF8
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from fssd.data.formats.json_values import show
from fssd.data.formats.shards import holds_unfinished
from fssd.data.shards.shard_index import INDEX_FILE, open_index
from fssd.errors import ConfigError, DataError
from fssd.inference.inputs import count_other, counts_by_suffix, files_below, is_input
from fssd.parts.plan_rows import PlanRow
from fssd.parts.ranged_file import open_parquet, reading_parquet
from fssd.storage.folders import is_remote
from fssd.storage.open_folder import open_folder

LISTS = (".txt", ".lst")
NAME_COLUMNS = ("image", "path", "file", "name")
_BATCH = 10_000  # names of a parquet file that are read at a time


@dataclass
class Sources:
    """Images and films from files, folders, patterns, lists, parquet files, shards and places in S3.

    passed_over: how many other files lie there, by suffix.
    """

    passed_over: Counter[str] = field(default_factory=Counter)

    def rows(self, source: str) -> Iterator[tuple[PlanRow, bool]]:
        """A row for each name, and whether its place in the source is its order; else they are to be sorted.

        A list, a parquet file and shards have an order. Raises DataError for a source that names nothing.
        """
        found = 0
        ordered, rows = self._open(source)
        for row in rows:
            found += 1
            yield row, ordered
        if not found:
            others = counts_by_suffix(self.passed_over)
            reason = f"names no image or video{', but ' * bool(others)}{others}; check it"
            raise DataError(reason, file=source)

    def _open(self, source: str) -> tuple[bool, Iterator[PlanRow]]:
        path = Path(source.removeprefix("@"))
        if source.startswith("@") or (path.suffix.lower() in LISTS and path.is_file()):
            return True, map(PlanRow, _listed(path))
        if source.lower().endswith(".parquet"):
            return True, map(PlanRow, _in_parquet(source))
        if _holds_shards(source):
            return True, _in_shards(source)
        return False, map(PlanRow, self._files(source))

    def _files(self, source: str) -> Iterator[str]:
        path = Path(source)
        if is_remote(source):
            return self._in_store(source)
        if path.is_dir():
            return self._sifted(files_below(path))
        if path.exists() or path.is_symlink():
            if not is_input(path):
                raise DataError("is no image, video, list (.txt) or .parquet of names", file=path)
            return iter([source])
        matches = glob.iglob(source, recursive=True)  # noqa: PTH207 (absolute patterns too)
        return self._sifted(file for file in map(Path, matches) if not file.is_dir())

    def _sifted(self, files: Iterator[Path]) -> Iterator[str]:
        for file in files:
            if is_input(file):
                yield str(file)
            else:
                count_other(file, self.passed_over)

    def _in_store(self, source: str) -> Iterator[str]:
        """The images and films below a prefix, or the one object of that name."""
        folder = open_folder(source)
        parent, _, name = folder.location.rpartition("/")
        if is_input(name) and open_folder(parent).exists(name):
            yield folder.location
            return
        for entry in folder.list():
            if is_input(entry.name):
                yield folder.path(entry.name)
            else:
                self.passed_over[Path(entry.name).suffix.lower() or "without a suffix"] += 1


def _listed(file: Path) -> Iterator[str]:
    """The lines of a text file, with or without a byte order mark; empty ones are passed over."""
    try:
        with file.open("rb") as lines:
            for number, line in enumerate(lines, start=1):
                if b"\0" in line:
                    reason = "is no name of a file, it has a zero byte; write the list as UTF-8"
                    raise DataError(reason, file=file, place=f"line {number}")
                own = line.removeprefix(BOM_UTF8) if number == 1 else line
                if name := os.fsdecode(own.strip()):
                    yield name
    except OSError as error:
        raise DataError(f"this list cannot be read ({error.strerror}); check its name", file=file) from error


def _in_parquet(source: str) -> Iterator[str]:
    """The names in a column `image`, `path`, `file` or `name`, or in the only one there is."""
    parent, slash, name = source.rpartition("/")
    parquet = open_parquet(open_folder(parent or slash or "."), name)
    column = _name_column(parquet.schema_arrow, source)
    with reading_parquet(source):
        for batch in parquet.iter_batches(_BATCH, columns=[column]):
            for value in batch.column(0).to_pylist():
                yield _name(value, source, f"column {column}")


def _name(value: object, source: str, place: str) -> str:
    if value is None or value in ("", b""):
        raise DataError("a name is empty; remove that row", file=source, place=place)
    if not isinstance(value, (str, bytes)):
        reason = f"{show(value)} is no name; give the names of files as text"
        raise DataError(reason, file=source, place=place)
    name = os.fsdecode(value)
    if "\0" in name:
        raise DataError(f"{show(value)} has a zero byte and is no name of a file", file=source, place=place)
    return name


def _name_column(schema: Any, source: str) -> str:
    columns = [str(name) for name in schema.names]
    known = [name for name in NAME_COLUMNS if name in columns] or (columns if len(columns) == 1 else [])
    if not known:
        shown = ", ".join(columns[:8])
        raise ConfigError(
            f"{source}: has the columns {shown}; name the one with the names {' or '.join(NAME_COLUMNS)}"
        )
    return known[0]


def _holds_shards(source: str) -> bool:
    folder = open_folder(source)
    return folder.exists(INDEX_FILE) or holds_unfinished(folder)


def _in_shards(source: str) -> Iterator[PlanRow]:
    """The images of all splits; one that several splits have comes once, as its name does."""
    columns = open_index(open_folder(source).location).columns
    spans = columns.spans
    assert spans is not None
    for index in range(len(columns)):
        folder, shard = spans.shards[int(spans.shard[index])]
        start, file = int(spans.offset[index]), folder.path(shard)
        name = f"{file}/{columns.paths.names[index]}"
        yield PlanRow(name, "packed", file, start, start + int(spans.size[index]))

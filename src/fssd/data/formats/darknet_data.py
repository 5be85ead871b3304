"""What Darknet's obj.data states: the lists of pictures of its splits, and the list of class names."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

from fssd.data.formats.labels import read_lines
from fssd.data.formats.lookup import common_end, nearness, path_parts, suffix_of, visible_entries


class StatedPath(NamedTuple):
    """A path in an obj.data by its parts, which Darknet takes from where it runs."""

    file: Path
    key: str
    parts: tuple[str, ...]


def stated_paths(root: Path) -> list[StatedPath]:
    """All rows of every .data below a folder. Raises DataError."""
    files = [Path(entry) for entry in visible_entries(root) if suffix_of(entry.name) == ".data"]
    rows = [(file, line.partition("=")) for file in files for line in read_lines(file)]
    found = [
        StatedPath(file, key.strip(), tuple(path_parts(value.strip()))) for file, (key, _, value) in rows
    ]
    return [stated for stated in found if stated.parts]


def nearest_stated(stated: StatedPath, files: Sequence[Path]) -> Path | None:
    """The file of that name nearest to its obj.data, and of those the one in most of the stated folders."""
    alike = [file for file in files if file.name == stated.parts[-1]]
    return max(
        alike, key=lambda file: (nearness(file, stated.file), common_end(file, stated.parts)), default=None
    )

"""Finds what a data set holds twice without saying so: pictures under two names, classes in two spellings."""

from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path

from fssd.data.sample import Problem, Record


def same_pictures(records: Sequence[Record], root: Path) -> list[Problem]:
    """A warning that counts the records whose picture another record has under another path (a link)."""
    folders: dict[str, str] = {}
    first: dict[str, Path] = {}
    again: list[tuple[Path, Path]] = []
    for record in records:
        folder, name = os.path.split(record.path)
        real = folders.get(folder) or folders.setdefault(folder, os.path.realpath(folder))
        path = os.path.realpath(record.path) if record.path.is_symlink() else f"{real}/{name}"
        known = first.setdefault(path, record.path)
        if known is not record.path:
            again.append((record.path, known))
    if not again:
        return []
    reason = (
        f"{len(again)} pictures are listed under two names, the first is {again[0][0]}, also {again[0][1]}"
    )
    return [Problem("warning", root, "", f"{reason}; keep one of them")]


def similar_classes(names: Sequence[str], root: Path) -> list[Problem]:
    """A warning for classes that differ only in capitals or spaces."""
    spellings: dict[str, list[str]] = {}
    for name in names:
        spellings.setdefault("".join(name.split()).casefold(), []).append(name)
    alike = [", ".join(map(repr, group)) for group in spellings.values() if len(group) > 1]
    if not alike:
        return []
    reason = f"classes that differ only in capitals or spaces: {'; '.join(alike)}; give them one name"
    return [Problem("warning", root, "classes", reason)]

"""Whether files are the same under other paths: relative and absolute ones, through links."""

from __future__ import annotations

import os
from collections.abc import Iterable, Iterator
from pathlib import Path


def true_paths(paths: Iterable[Path]) -> Iterator[str]:
    """Each path without links and relative parts, by which the same file is known. Folders are read once."""
    folders: dict[Path, str] = {}
    for path in paths:
        folder = path.parent
        real = folders.get(folder) or folders.setdefault(folder, os.path.realpath(folder))
        yield os.path.realpath(path) if path.is_symlink() else f"{real}/{path.name}"

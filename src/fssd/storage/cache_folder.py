"""Where files go that can be made again, and what names those that follow from code."""

from __future__ import annotations

import hashlib
import os
from collections.abc import Iterable
from pathlib import Path


def cache_folder() -> Path:
    """Where files go that can be made again: XDG_CACHE_HOME/fssd, or ~/.cache/fssd."""
    base = os.environ.get("XDG_CACHE_HOME")
    return (Path(base) if base else Path.home() / ".cache") / "fssd"


def code_digest(files: Iterable[Path]) -> str:
    """A digest of source files, for the names of what another version of them would make otherwise."""
    return hashlib.blake2b(b"".join(file.read_bytes() for file in files), digest_size=20).hexdigest()

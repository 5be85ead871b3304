"""Where files go that can be made again."""

from __future__ import annotations

import os
from pathlib import Path


def cache_folder() -> Path:
    """Where files go that can be made again: XDG_CACHE_HOME/fssd, or ~/.cache/fssd."""
    base = os.environ.get("XDG_CACHE_HOME")
    return (Path(base) if base else Path.home() / ".cache") / "fssd"

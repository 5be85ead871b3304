"""How many cores this process may use, which in a container are fewer than the machine has."""

from __future__ import annotations

import os


def usable_cores() -> int:
    """One or more."""
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1

"""The number of cores that this process may use; in a container they are fewer than the machine has."""

from __future__ import annotations

import os


def usable_cores() -> int:
    """At least one."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1

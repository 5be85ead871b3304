"""Memory that a step frees stays with the process for the next step, which needs as much again."""

from __future__ import annotations

import ctypes
import sys

# Of mallopt(3); the second is the size from which glibc asks the system for a block of its own.
M_TRIM_THRESHOLD, M_MMAP_THRESHOLD = -1, -3
LARGEST_KEPT = 1 << 30  # bytes


def keep_freed_memory() -> None:
    """Have glibc keep blocks of up to 1 GiB that are freed, and never give back the end of its heap.

    By default it asks the system for each large tensor, which then comes page by page and zeroed, and gives
    it back at once. It holds for the whole process from now on. Does nothing where there is no glibc.
    """
    if not sys.platform.startswith("linux"):
        return
    mallopt = getattr(ctypes.CDLL(None), "mallopt", None)
    if mallopt is not None:
        mallopt(M_MMAP_THRESHOLD, LARGEST_KEPT)
        mallopt(M_TRIM_THRESHOLD, -1)

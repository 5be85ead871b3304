"""Memory that threads hand back."""

from __future__ import annotations

import ctypes
import sys

_ARENA_MAX = -8  # M_ARENA_MAX of malloc.h


def share_heaps(number: int = 2) -> None:
    """Let all threads to come share a few heaps, where the C library is glibc.

    By itself it gives every thread a heap of its own, and each keeps what its largest image once took.
    """
    if not sys.platform.startswith("linux"):
        return
    mallopt = getattr(ctypes.CDLL(None), "mallopt", None)
    if mallopt is not None:
        mallopt(_ARENA_MAX, number)

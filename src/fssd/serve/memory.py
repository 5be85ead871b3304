"""Lower memory use: few heaps for all threads, and free memory returned to the system."""

from __future__ import annotations

import asyncio
import ctypes
import gc
import sys
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from fssd.serve.limits import (
        Gate,  # it imports optional packages, which are asked for after `share_heaps`
    )

_ARENA_MAX = -8  # M_ARENA_MAX of malloc.h
IDLE_SECONDS = 1.0


def share_heaps(number: int = 2) -> None:
    """Make all threads started later share a few heaps, if the C library is glibc.

    By default every thread has its own heap, and each heap keeps the memory of its largest image.
    """
    mallopt = _glibc("mallopt")
    if mallopt is not None:
        mallopt(_ARENA_MAX, number)


async def trim_when_idle(gate: Gate, seconds: float = IDLE_SECONDS) -> None:
    """Run forever: return free memory to the system whenever nothing was accepted for some time.

    Otherwise a heap would keep the free space between its used blocks after a burst of large images.
    """
    trim = _glibc("malloc_trim")
    if trim is None:
        return
    before = trimmed = gate.entries
    while True:
        await asyncio.sleep(seconds)
        if before == gate.entries != trimmed and gate.empty:
            gc.collect()  # what only cycles hold, such as images in tracebacks; quick, as start-up is frozen
            await asyncio.to_thread(trim, 0)
            trimmed = before
        before = gate.entries


def _glibc(name: str) -> Any:
    """A function of the C library; None if that is not glibc or has no such function."""
    return getattr(ctypes.CDLL(None), name, None) if sys.platform.startswith("linux") else None

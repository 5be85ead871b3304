"""Memory that threads hand back, to each other and to the system."""

from __future__ import annotations

import asyncio
import ctypes
import sys
from typing import Any

from fssd.serve.limits import Gate

_ARENA_MAX = -8  # M_ARENA_MAX of malloc.h
IDLE_SECONDS = 1.0


def share_heaps(number: int = 2) -> None:
    """Let all threads to come share a few heaps, where the C library is glibc.

    By itself it gives every thread a heap of its own, and each keeps what its largest image once took.
    """
    mallopt = _glibc("mallopt")
    if mallopt is not None:
        mallopt(_ARENA_MAX, number)


async def trim_when_idle(gate: Gate, seconds: float = IDLE_SECONDS) -> None:
    """For ever: give what is free back to the system once nothing has been taken on for a while.

    Between what is in use, a heap keeps the holes that a burst of large images left, for as long as it lives.
    """
    trim = _glibc("malloc_trim")
    if trim is None:
        return
    before = trimmed = gate.entries
    while True:
        await asyncio.sleep(seconds)
        if before == gate.entries != trimmed and gate.empty:
            await asyncio.to_thread(trim, 0)
            trimmed = before
        before = gate.entries


def _glibc(name: str) -> Any:
    """A function of the C library; None where that is not glibc or has no such function."""
    return getattr(ctypes.CDLL(None), name, None) if sys.platform.startswith("linux") else None

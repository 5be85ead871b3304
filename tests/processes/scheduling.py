"""The scheduling of this thread, which a library may change for its own purposes."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager


@contextmanager
def as_before() -> Iterator[None]:
    """Give the thread back the scheduling that it has now when the block ends.

    Where root runs it, SVT-AV1 makes the thread that opens it a real-time one: all that this thread starts
    later would have precedence over every other process of the machine.
    """
    if not hasattr(os, "sched_getscheduler"):
        yield
        return
    policy, parameters = os.sched_getscheduler(0), os.sched_getparam(0)
    try:
        yield
    finally:
        os.sched_setscheduler(0, policy, parameters)

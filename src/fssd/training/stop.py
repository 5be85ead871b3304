"""A request to stop training: Ctrl-C, or what job managers and closed terminals send."""

from __future__ import annotations

import contextlib
import os
import signal
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

SIGNALS = [getattr(signal, name) for name in ("SIGINT", "SIGTERM", "SIGHUP") if hasattr(signal, name)]
READER_GONE = 13  # SIGPIPE: nobody reads the standard output any more
ONCE = 1.0  # seconds: `timeout` signals a process and then its group, which is one request
NOTICE = b"stopping after this update and saving; repeat to stop at once\n"


class StopRequest:
    """number: of the signal that asked to stop, 0 for none."""

    def __init__(self) -> None:
        self.number = 0
        self._asked_at = 0.0

    def ask(self, number: int) -> None:
        """Note the first request."""
        if not self.number:
            self.number, self._asked_at = number, time.monotonic()

    @property
    def is_old(self) -> bool:
        """Whether another signal is a second request, no echo of the first."""
        return self.number > 0 and time.monotonic() - self._asked_at >= ONCE


@contextmanager
def handled(handle: Callable[[int, Any], None], before: dict[int, Any]) -> Iterator[None]:
    """Let `handle` act on the signals for the length of a with block; `before` gets what handled them.

    A signal that is ignored, or that the program handles itself, stays as it is, and so do all of them
    outside of the main thread, where Python allows no handlers.
    """
    if threading.current_thread() is threading.main_thread():
        for number in SIGNALS:
            if signal.getsignal(number) in (signal.SIG_DFL, signal.default_int_handler):
                before[number] = signal.signal(number, handle)
    try:
        yield
    finally:
        restore(before)


def restore(before: dict[int, Any]) -> None:
    while before:
        signal.signal(*before.popitem())


@contextmanager
def stop_requests() -> Iterator[StopRequest]:
    """Turn the first signal into a request for the length of a with block; a second acts as it did before."""
    request = StopRequest()
    before: dict[int, Any] = {}

    def handle(number: int, _: Any) -> None:
        if request.is_old:
            restore(before)
            signal.raise_signal(number)
        elif not request.number:
            request.ask(number)
            # print is not reentrant: the signal may have interrupted another print.
            with contextlib.suppress(OSError):
                os.write(2, NOTICE)

    with handled(handle, before):
        yield request

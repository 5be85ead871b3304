"""Signals that ask a program to end, as exceptions, so that what is done can be kept."""

from __future__ import annotations

import signal
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any, NoReturn

from fssd.training.stop import handled


class Ended(BaseException):
    """A signal has asked the program to end; number: of the signal."""

    def __init__(self, number: int) -> None:
        super().__init__(number)
        self.number = number


@contextmanager
def ending_signals() -> Iterator[None]:
    """Turn the first signal that asks the program to end into `Ended`, raised wherever the program is.

    Later ones are ignored until the block has ended: `timeout` sends one twice, and keeping what is done
    takes a moment. A signal that is ignored or handled already stays as it is.
    """
    before: dict[int, Any] = {}

    def end(number: int, _: Any) -> NoReturn:
        for other in before:
            signal.signal(other, signal.SIG_IGN)
        raise Ended(number)

    with handled(end, before):
        yield

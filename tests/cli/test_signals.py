"""Signals as exceptions."""

from __future__ import annotations

import signal
import threading

import pytest

from fssd.cli.signals import Ended, ending_signals


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM, signal.SIGHUP])
def test_the_first_signal_is_raised_and_later_ones_wait(number: signal.Signals) -> None:
    before = signal.getsignal(number)
    with pytest.raises(Ended) as caught, ending_signals():
        try:
            signal.raise_signal(number)
        finally:
            for again in (signal.SIGINT, signal.SIGTERM, number):
                signal.raise_signal(again)
    assert caught.value.number == number
    assert signal.getsignal(number) is before


def test_a_signal_that_is_ignored_stays_so() -> None:
    """`nohup` ignores SIGHUP."""
    before = signal.signal(signal.SIGHUP, signal.SIG_IGN)
    try:
        with ending_signals():
            signal.raise_signal(signal.SIGHUP)
        assert signal.getsignal(signal.SIGHUP) is signal.SIG_IGN
    finally:
        signal.signal(signal.SIGHUP, before)


def test_in_a_thread_nothing_is_changed() -> None:
    failures: list[BaseException] = []

    def work() -> None:
        try:
            with ending_signals():
                assert signal.getsignal(signal.SIGINT) is signal.default_int_handler
        except BaseException as error:
            failures.append(error)

    thread = threading.Thread(target=work)
    thread.start()
    thread.join()
    assert not failures

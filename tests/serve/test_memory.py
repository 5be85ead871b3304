"""Free memory is returned to the system when a server is idle, and only then."""

from __future__ import annotations

import asyncio
from types import SimpleNamespace

import pytest

from fssd.serve import memory
from fssd.serve.limits import Gate, ServerLimits


class Ticks:
    """Replaces asyncio.sleep: the test controls the time."""

    def __init__(self) -> None:
        self.asleep = asyncio.Event()
        self.woken = asyncio.Event()

    async def sleep(self, _: float) -> None:
        self.asleep.set()
        await self.woken.wait()
        self.woken.clear()

    async def pass_by(self, times: int = 1) -> None:
        for _ in range(times):
            await self.asleep.wait()
            self.asleep.clear()
            self.woken.set()
        await self.asleep.wait()


def test_trims_once_after_work(monkeypatch: pytest.MonkeyPatch) -> None:
    trims: list[int] = []

    async def scenario() -> None:
        ticks, gate = Ticks(), Gate(ServerLimits())
        monkeypatch.setattr(memory, "_glibc", lambda _: trims.append)
        monkeypatch.setattr(
            memory, "asyncio", SimpleNamespace(sleep=ticks.sleep, to_thread=asyncio.to_thread)
        )
        task = asyncio.create_task(memory.trim_when_idle(gate))
        await ticks.pass_by(3)
        assert trims == [], "nothing was accepted"
        with gate.admit(1):
            await ticks.pass_by(3)
            assert trims == [], "an image is not answered yet"
        await ticks.pass_by(1)
        assert trims == [0]
        await ticks.pass_by(3)
        assert trims == [0], "nothing was accepted since"
        with gate.memory() as take:
            take(100)
            await ticks.pass_by(3)
            assert trims == [0], "a body is still held"
        with gate.admit(1):
            pass
        await ticks.pass_by(1)
        assert trims == [0], "the last one was accepted just now"
        await ticks.pass_by(1)
        assert trims == [0, 0]
        task.cancel()

    asyncio.run(scenario())


def test_nothing_to_do_without_glibc(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(memory, "_glibc", lambda _: None)
    memory.share_heaps()
    asyncio.run(asyncio.wait_for(memory.trim_when_idle(Gate(ServerLimits())), 60))

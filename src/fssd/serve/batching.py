"""Images of several requests computed together.

A batch is taken when it is full, when no other image is on its way, or when its first image has waited for
the delay. Its size is the largest one or a power of two below it: few sizes, because some runtimes compile
the network for each. What is left over goes next.
"""

from __future__ import annotations

import asyncio
import time
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from typing import Any, NamedTuple

import torch
from torch import Tensor

Predict = Callable[[Tensor], Sequence[Any]]
"""(B, 3, S, S) uint8 to what each of the B images got."""


class Predicted(NamedTuple):
    """row: what `Predict` gave for one image. seconds: of its batch. batch: images in it."""

    row: Any
    seconds: float
    batch: int


@dataclass(eq=False)
class _Waiting:
    picture: Tensor  # (1, 3, S, S) uint8
    answer: asyncio.Future[Predicted]
    since: float  # of the event loop's clock


def batch_sizes(largest: int) -> list[int]:
    """The sizes that batches have, ascending."""
    return [*(2**power for power in range(largest.bit_length()) if 2**power < largest), largest]


class Batcher:
    """Computes what is put into it in batches, one on each of `predicts` at a time, in threads of their own.

    predicts: one for each worker; none is called by two threads at once. size: images in a batch at most.
    delay: seconds that an image waits for others. prepare: run in each thread first. Belongs to the event
    loop that runs `start`.
    """

    def __init__(
        self,
        predicts: Sequence[Predict],
        size: int,
        delay: float,
        prepare: Callable[[], None] | None = None,
    ) -> None:
        self.size = size
        self.delay = delay
        self._sizes = batch_sizes(size)
        self._predicts = list(predicts)
        self._coming = 0
        self._pending: deque[_Waiting] = deque()
        self._threads = ThreadPoolExecutor(len(self._predicts), "fssd-network", initializer=prepare)
        self._tasks: list[asyncio.Task[None]] = []

    async def start(self) -> None:
        """Begin to work."""
        self._arrival = asyncio.Event()
        self._turn = asyncio.Lock()
        self._tasks = [asyncio.create_task(self._work(predict)) for predict in self._predicts]

    async def stop(self) -> None:
        """End, whatever is still waiting."""
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)
        self._threads.shutdown(wait=False, cancel_futures=True)

    @contextmanager
    def coming(self) -> Iterator[None]:
        """Announce an image that is not ready yet; those that are wait for it, up to the delay."""
        self._coming += 1
        try:
            yield
        finally:
            self._coming -= 1
            self._arrival.set()

    async def predict(self, picture: Tensor) -> Predicted:
        """Put in one image (1, 3, S, S) uint8 and wait for it; if cancelled it is not computed for nobody."""
        loop = asyncio.get_running_loop()
        waiting = _Waiting(picture, loop.create_future(), loop.time())
        self._pending.append(waiting)
        self._arrival.set()
        return await waiting.answer

    async def _work(self, predict: Predict) -> None:
        loop = asyncio.get_running_loop()
        while True:
            batch = await self._take()
            pictures = [waiting.picture for waiting in batch]
            try:
                rows, seconds = await loop.run_in_executor(self._threads, _timed, predict, pictures)
            except Exception as error:  # it belongs to the requests, and the worker goes on
                for waiting in batch:
                    if not waiting.answer.done():
                        waiting.answer.set_exception(error)
                continue
            for waiting, row in zip(batch, rows, strict=True):
                if not waiting.answer.done():
                    waiting.answer.set_result(Predicted(row, seconds, len(batch)))

    async def _take(self) -> list[_Waiting]:
        """The next batch. One worker collects at a time."""
        async with self._turn:
            while True:
                await self._wait()
                ready = min(len(self._pending), self.size)
                if ready:
                    count = max(size for size in self._sizes if size <= ready)
                    return [self._pending.popleft() for _ in range(count)]

    async def _wait(self) -> None:
        """Until there is a full batch, or some for which no more waiting is worth it."""
        loop = asyncio.get_running_loop()
        while True:
            self._pending = deque(waiting for waiting in self._pending if not waiting.answer.done())
            left = self._pending[0].since + self.delay - loop.time() if self._pending else None
            if left is not None and (len(self._pending) >= self.size or not self._coming or left <= 0):
                return
            self._arrival.clear()
            with suppress(asyncio.TimeoutError):
                await asyncio.wait_for(self._arrival.wait(), left)


def _timed(predict: Predict, pictures: list[Tensor]) -> tuple[Sequence[Any], float]:
    start = time.perf_counter()
    rows = predict(torch.cat(pictures))
    return rows, time.perf_counter() - start

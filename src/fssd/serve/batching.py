"""Batches of images from several requests.

A batch is started when it is full, when no other image is being prepared, or when its first image has waited
for the delay. Its size is the largest one or a power of two below it: few sizes, because some runtimes
compile the network for each size. The remaining images form the next batch.
"""

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
"""(B, 3, S, S) uint8 to B results, one for each image."""


class NetworkResult(NamedTuple):
    """row: the result of `Predict` for one image. seconds: time of its batch. batch: images in that batch."""

    row: Any
    seconds: float
    batch: int


@dataclass(eq=False)
class _Waiting:
    image: Tensor  # (1, 3, S, S) uint8
    answer: asyncio.Future[NetworkResult]
    since: float  # time of the event loop's clock


def batch_sizes(largest: int) -> list[int]:
    """The possible sizes of batches, ascending."""
    return [*(2**power for power in range(largest.bit_length()) if 2**power < largest), largest]


class Batcher:
    """Computes images in batches, one batch at a time on each of `predicts`, each in its own thread.

    predicts: one for each worker; none is called by two threads at once. size: the largest batch. delay:
    seconds that an image waits for others. prepare: called first in each thread. A batcher belongs to the
    event loop that runs `start`.
    """

    def __init__(
        self, predicts: Sequence[Predict], size: int, delay: float, prepare: Callable[[], None] | None = None
    ) -> None:
        self.size = size
        self.delay = delay
        self._sizes = batch_sizes(size)
        self._predicts = list(predicts)
        self._expected = 0
        self._pending: deque[_Waiting] = deque()
        self._threads = ThreadPoolExecutor(len(self._predicts), "fssd-network", initializer=prepare)
        self._tasks: list[asyncio.Task[None]] = []

    async def start(self) -> None:
        self._arrival = asyncio.Event()
        self._turn = asyncio.Lock()
        self._tasks = [asyncio.create_task(self._work(predict)) for predict in self._predicts]

    async def stop(self) -> None:
        """Stop the workers without finishing the images that wait."""
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)
        self._threads.shutdown(wait=False, cancel_futures=True)

    @contextmanager
    def expect(self) -> Iterator[None]:
        """Announce an image that is being prepared: images that are ready wait for it, up to the delay."""
        self._expected += 1
        try:
            yield
        finally:
            self._expected -= 1
            self._arrival.set()

    async def predict(self, image: Tensor) -> NetworkResult:
        """The result for one image (1, 3, S, S) uint8; a cancelled request is dropped and not computed."""
        loop = asyncio.get_running_loop()
        waiting = _Waiting(image, loop.create_future(), loop.time())
        self._pending.append(waiting)
        self._arrival.set()
        return await waiting.answer

    async def _work(self, predict: Predict) -> None:
        loop = asyncio.get_running_loop()
        while True:
            batch = await self._take()
            images = [waiting.image for waiting in batch]
            try:
                rows, seconds = await loop.run_in_executor(self._threads, _timed, predict, images)
            except Exception as error:  # the requests of this batch fail; the worker continues
                for waiting in batch:
                    if not waiting.answer.done():
                        waiting.answer.set_exception(error)
                continue
            for waiting, row in zip(batch, rows, strict=True):
                if not waiting.answer.done():
                    waiting.answer.set_result(NetworkResult(row, seconds, len(batch)))

    async def _take(self) -> list[_Waiting]:
        """The next batch. Only one worker collects at a time."""
        async with self._turn:
            while True:
                await self._wait()
                ready = min(len(self._pending), self.size)
                if ready:
                    count = max(size for size in self._sizes if size <= ready)
                    return [self._pending.popleft() for _ in range(count)]

    async def _wait(self) -> None:
        """Wait for a full batch, or for images that need not wait any longer."""
        loop = asyncio.get_running_loop()
        while True:
            self._pending = deque(waiting for waiting in self._pending if not waiting.answer.done())
            left = self._pending[0].since + self.delay - loop.time() if self._pending else None
            if left is not None and (len(self._pending) >= self.size or not self._expected or left <= 0):
                return
            self._arrival.clear()
            with suppress(asyncio.TimeoutError):
                await asyncio.wait_for(self._arrival.wait(), left)


def _timed(predict: Predict, images: list[Tensor]) -> tuple[Sequence[Any], float]:
    start = time.perf_counter()
    rows = predict(torch.cat(images))
    return rows, time.perf_counter() - start

"""Batches of several requests: which images are computed together, and who gets which result."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Awaitable, Callable, Sequence
from typing import Any

import pytest
import torch
from torch import Tensor

from fssd.serve.batching import Batcher, Predict, batch_sizes

LONG = 1e6  # seconds; a test that waited for it would never end
PATIENCE = 300.0  # seconds after which a test that hangs fails


def image(number: int) -> Tensor:
    return torch.full((1, 3, 2, 2), number, dtype=torch.uint8)


def numbers(pictures: Tensor) -> list[int]:
    return [int(picture[0, 0, 0]) for picture in pictures]


class Recorder:
    """A network that returns the number of each image and records its batches."""

    def __init__(self) -> None:
        self.batches: list[list[int]] = []

    def __call__(self, pictures: Tensor) -> Sequence[Any]:
        self.batches.append(numbers(pictures))
        return numbers(pictures)


class Held(Recorder):
    """The same, but each batch signals its start and waits for permission to end."""

    def __init__(self) -> None:
        super().__init__()
        self.go = threading.Semaphore(0)
        self.begun = threading.Semaphore(0)

    def __call__(self, pictures: Tensor) -> Sequence[Any]:
        rows = super().__call__(pictures)
        self.begun.release()
        assert self.go.acquire(timeout=PATIENCE)
        return rows


def run(
    scenario: Callable[[Batcher], Awaitable[None]], *predicts: Predict, size: int = 8, delay: float = LONG
) -> None:
    """Run a scenario with a batcher."""

    async def play() -> None:
        batcher = Batcher(predicts, size, delay)
        await batcher.start()
        try:
            await asyncio.wait_for(scenario(batcher), PATIENCE)
        finally:
            await batcher.stop()

    asyncio.run(play())


async def settle() -> None:
    """Let the event loop run everything that does not wait."""
    for _ in range(20):
        await asyncio.sleep(0)


async def acquire(semaphore: threading.Semaphore) -> None:
    """Wait for a semaphore without blocking the event loop."""
    assert await asyncio.to_thread(semaphore.acquire, timeout=PATIENCE)


@pytest.mark.parametrize(
    ("largest", "sizes"), [(1, [1]), (2, [1, 2]), (6, [1, 2, 4, 6]), (8, [1, 2, 4, 8]), (9, [1, 2, 4, 8, 9])]
)
def test_sizes(largest: int, sizes: list[int]) -> None:
    assert batch_sizes(largest) == sizes


def test_a_single_image_starts_at_once() -> None:
    network = Recorder()

    async def scenario(batcher: Batcher) -> None:
        assert (await batcher.predict(image(7))).row == 7

    run(scenario, network)
    assert network.batches == [[7]]


def test_an_image_waits_for_expected_ones_until_the_batch_is_full() -> None:
    network = Recorder()

    async def scenario(batcher: Batcher) -> None:
        with batcher.expect():
            first = [asyncio.create_task(batcher.predict(image(number))) for number in range(3)]
            await settle()
            assert not network.batches
            last = await batcher.predict(image(3))
            found = [*await asyncio.gather(*first), last]
        assert [predicted.row for predicted in found] == [0, 1, 2, 3]
        assert [predicted.batch for predicted in found] == [4] * 4

    run(scenario, network, size=4)
    assert network.batches == [[0, 1, 2, 3]]


def test_an_image_waits_no_longer_than_the_delay() -> None:
    network = Recorder()

    async def scenario(batcher: Batcher) -> None:
        with batcher.expect():
            assert (await batcher.predict(image(5))).row == 5

    run(scenario, network, delay=0.01)


def test_an_image_does_not_wait_for_one_whose_preparation_fails() -> None:
    network = Recorder()

    async def scenario(batcher: Batcher) -> None:
        with batcher.expect():
            waiting = asyncio.create_task(batcher.predict(image(5)))
            await settle()
            assert not network.batches
        assert (await waiting).row == 5

    run(scenario, network)


def test_waiting_images_go_in_powers_of_two_oldest_first() -> None:
    network = Held()

    async def scenario(batcher: Batcher) -> None:
        tasks = [asyncio.create_task(batcher.predict(image(0)))]
        await acquire(network.begun)
        tasks += [asyncio.create_task(batcher.predict(image(number))) for number in range(1, 8)]
        await settle()
        network.go.release(4)
        found = await asyncio.gather(*tasks)
        assert [predicted.row for predicted in found] == list(range(8))

    run(scenario, network)
    assert network.batches == [[0], [1, 2, 3, 4], [5, 6], [7]]


def test_cancelled_requests_are_not_computed() -> None:
    network = Held()

    async def scenario(batcher: Batcher) -> None:
        first = asyncio.create_task(batcher.predict(image(0)))
        await acquire(network.begun)
        given_up, kept = (asyncio.create_task(batcher.predict(image(number))) for number in (1, 2))
        await settle()
        given_up.cancel()
        first.cancel()  # too late: its batch is already running
        network.go.release(2)
        assert (await kept).row == 2

    run(scenario, network)
    assert network.batches == [[0], [2]]


def test_an_error_fails_only_its_batch() -> None:
    class FaultError(Exception):
        pass

    def network(pictures: Tensor) -> Sequence[Any]:
        if 13 in numbers(pictures):
            raise FaultError
        return numbers(pictures)

    async def scenario(batcher: Batcher) -> None:
        with batcher.expect():
            together = [asyncio.create_task(batcher.predict(image(number))) for number in (12, 13)]
            assert all(
                isinstance(e, FaultError) for e in await asyncio.gather(*together, return_exceptions=True)
            )
        assert (await batcher.predict(image(14))).row == 14

    run(scenario, network, size=2)


def test_two_workers_compute_at_the_same_time() -> None:
    meeting = threading.Barrier(2)

    def network(pictures: Tensor) -> Sequence[Any]:
        meeting.wait(PATIENCE)  # the barrier breaks and fails the test if the other worker does not come
        return numbers(pictures)

    async def scenario(batcher: Batcher) -> None:
        found = await asyncio.gather(*(batcher.predict(image(number)) for number in range(4)))
        assert [predicted.row for predicted in found] == [0, 1, 2, 3]

    run(scenario, network, network, size=2)


def test_each_thread_is_prepared() -> None:
    prepared: list[str] = []
    threads: list[str] = []

    def network(pictures: Tensor) -> Sequence[Any]:
        threads.append(threading.current_thread().name)
        return numbers(pictures)

    async def play() -> None:
        batcher = Batcher([network], 1, 0, lambda: prepared.append(threading.current_thread().name))
        await batcher.start()
        await asyncio.wait_for(batcher.predict(image(1)), PATIENCE)
        await batcher.stop()

    asyncio.run(play())
    assert prepared == threads

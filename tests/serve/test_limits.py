"""The limits of a request: images, bytes, time."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterable
from typing import Any

import pytest
from starlette.requests import Request

from fssd.serve.limits import Clock, Gate, ServerLimits, all_of, in_time, read_body
from fssd.serve.refusals import DisconnectError, RequestError

LONG = 1e6  # seconds
Message = dict[str, Any]


def chunk(body: bytes, more: bool = True) -> Message:
    return {"type": "http.request", "body": body, "more_body": more}


GONE: Message = {"type": "http.disconnect"}


def request(messages: Iterable[Message], **headers: str) -> Request:
    """A request whose body arrives in these messages; after them it waits forever."""
    left = list(messages)

    async def receive() -> Message:
        if left:
            return left.pop(0)
        await asyncio.Event().wait()
        raise AssertionError

    raw = [(name.replace("_", "-").encode(), value.encode()) for name, value in headers.items()]
    return Request({"type": "http", "method": "POST", "path": "/", "headers": raw}, receive)


def read(
    messages: Iterable[Message],
    limits: ServerLimits,
    take: Callable[[int], None] = lambda _: None,
    **headers: str,
) -> bytes:
    async def play() -> bytes:
        return await read_body(request(messages, **headers), limits, Clock(limits.seconds), take)

    return asyncio.run(play())


def refusal(call: Callable[[], object]) -> str:
    with pytest.raises(RequestError) as caught:
        call()
    return caught.value.code


def test_gate_counts_images() -> None:
    gate = Gate(ServerLimits(queue=3))
    with gate.admit(2):
        assert refusal(lambda: gate.check(2)) == "busy"
        with gate.admit(1):
            assert refusal(gate.check) == "busy"
        gate.check()
    gate.check(3)
    with pytest.raises(ZeroDivisionError), gate.admit(3):
        _ = 1 / 0
    assert gate.images == 0


def test_gate_counts_bytes_of_all_uploads() -> None:
    gate = Gate(ServerLimits(queue=2, body=10))
    with gate.memory() as first, gate.memory() as second:
        first(12)
        second(8)
        assert refusal(lambda: second(1)) == "busy"
        assert gate.bytes == 20
    assert gate.bytes == 0


def test_closed_gate_gives_a_reason() -> None:
    gate = Gate(ServerLimits())
    gate.open = False
    assert refusal(gate.check) == "stopping"


def test_body_in_pieces() -> None:
    taken: list[int] = []
    body = read([chunk(b"ab"), chunk(b""), chunk(b"cde", more=False)], ServerLimits(body=5), taken.append)
    assert body == b"abcde"
    assert sum(taken) == 5


def test_body_that_declares_too_much_is_not_read() -> None:
    taken: list[int] = []

    def call() -> object:
        return read([chunk(b"a", more=False)], ServerLimits(body=5), taken.append, content_length="6")

    assert refusal(call) == "body_too_large"
    assert not taken


def test_body_that_declares_nothing_is_cut_at_the_limit() -> None:
    taken: list[int] = []
    assert (
        refusal(lambda: read([chunk(b"abc"), chunk(b"def")], ServerLimits(body=5), taken.append))
        == "body_too_large"
    )
    assert sum(taken) <= 5


@pytest.mark.parametrize(
    "limits", [ServerLimits(stall=0.01, seconds=LONG), ServerLimits(stall=LONG, seconds=0.01)]
)
def test_body_that_stalls(limits: ServerLimits) -> None:
    assert refusal(lambda: read([chunk(b"abc")], limits)) == "slow_upload"


def test_body_of_a_client_that_hangs_up() -> None:
    with pytest.raises(DisconnectError):
        read([chunk(b"abc"), GONE], ServerLimits())


def test_compressed_body() -> None:
    assert (
        refusal(lambda: read([chunk(b"abc", more=False)], ServerLimits(), content_encoding="gzip"))
        == "unsupported_encoding"
    )
    assert read([chunk(b"abc", more=False)], ServerLimits(), content_encoding="identity") == b"abc"


async def forever(ended: list[str]) -> None:
    try:
        await asyncio.Event().wait()
    finally:
        ended.append("cancelled")


def test_work_that_ends_in_time() -> None:
    async def work() -> str:
        return "done"

    async def play() -> str:
        return await in_time(request([]), Clock(LONG), work())

    assert asyncio.run(play()) == "done"


def test_work_that_fails() -> None:
    async def work() -> str:
        raise RequestError("damaged_image", "")

    async def play() -> str:
        return await in_time(request([]), Clock(LONG), work())

    assert refusal(lambda: asyncio.run(play())) == "damaged_image"


def test_works_of_which_one_fails_leave_nothing() -> None:
    ended: list[str] = []

    async def fails() -> None:
        await asyncio.sleep(0)
        raise RequestError("damaged_image", "")

    async def play() -> list[None]:
        try:
            return await all_of([forever(ended), fails(), forever(ended)])
        finally:
            ended.append("failed")

    assert refusal(lambda: asyncio.run(play())) == "damaged_image"
    assert ended == ["cancelled", "cancelled", "failed"]


def test_works_in_order() -> None:
    async def work(number: int) -> int:
        await asyncio.sleep(0.01 / (1 + number))
        return number

    async def play() -> list[int]:
        return await all_of(map(work, range(4)))

    assert asyncio.run(play()) == [0, 1, 2, 3]


def test_work_that_takes_too_long_is_cancelled() -> None:
    ended: list[str] = []

    async def play() -> None:
        await in_time(request([]), Clock(0.01), forever(ended))

    assert refusal(lambda: asyncio.run(play())) == "timeout"
    assert ended == ["cancelled"]


def test_work_for_a_client_that_hangs_up_is_cancelled() -> None:
    ended: list[str] = []

    async def play() -> None:
        await in_time(request([GONE]), Clock(LONG), forever(ended))

    with pytest.raises(DisconnectError):
        asyncio.run(play())
    assert ended == ["cancelled"]

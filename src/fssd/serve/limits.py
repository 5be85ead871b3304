"""The limits of a request, each checked before the work that it would cause."""

import asyncio
from collections.abc import Awaitable, Callable, Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TypeVar

from starlette.requests import Request

from fssd.serve.refusals import DisconnectError, RequestError

MEGA = 1_000_000
T = TypeVar("T")


@dataclass(frozen=True)
class ServerLimits:
    """The limits of a server.

    body: bytes. pixels: of an image, width x height. passes: pixels times the scans of a JPEG, because a
    small file can hold thousands of scans. queue: images accepted and not yet answered. batch: images in one
    request. seconds: from the head of a request to its answer. stall: seconds that a client may be silent.
    connections: open at a time.
    """

    body: int = 10 * MEGA
    pixels: int = 40 * MEGA
    passes: int = 640 * MEGA
    queue: int = 32
    batch: int = 16
    seconds: float = 30.0
    stall: float = 10.0
    connections: int = 512


class Gate:
    """Counts the images and the bytes that the server has accepted, and refuses more than the limits."""

    def __init__(self, limits: ServerLimits) -> None:
        self.most_images = limits.queue
        self.most_bytes = limits.queue * limits.body
        self.images = 0
        self.bytes = 0
        self.entries = 0  # how often something was accepted
        self.open = True

    @property
    def empty(self) -> bool:
        """Whether everything that was accepted is answered."""
        return not self.images and not self.bytes

    def check(self, images: int = 1) -> None:
        """Raise RequestError if there is no room for so many more images, or the server is stopping."""
        if not self.open:
            raise RequestError("stopping", "The server is shutting down.")
        if self.images + images > self.most_images:
            raise RequestError("busy", f"{self.images} images are in progress; try again in a moment.")

    @contextmanager
    def admit(self, images: int) -> Iterator[None]:
        """Accept some images until the block ends. Raises RequestError."""
        self.check(images)
        self.images += images
        self.entries += 1
        try:
            yield
        finally:
            self.images -= images

    @contextmanager
    def memory(self) -> Iterator[Callable[[int], None]]:
        """A function that reserves bytes; all are released when the block ends. It raises RequestError."""
        held = 0

        def take(count: int) -> None:
            nonlocal held
            if self.bytes + count > self.most_bytes:
                raise RequestError("busy", "Too many bytes are being uploaded; try again in a moment.")
            self.bytes += count
            self.entries += 1
            held += count

        try:
            yield take
        finally:
            self.bytes -= held


class Clock:
    """The time a request has left."""

    def __init__(self, seconds: float) -> None:
        self.seconds = seconds
        self._end = asyncio.get_running_loop().time() + seconds

    def left(self) -> float:
        """Seconds, not below 0."""
        return max(0.0, self._end - asyncio.get_running_loop().time())


async def read_body(
    request: Request, limits: ServerLimits, clock: Clock, take: Callable[[int], None]
) -> bytes:
    """The body of a request, refused as soon as it is known to be too large, too slow or compressed.

    take: reserves the bytes that arrive (`Gate.memory`). Raises RequestError, DisconnectError.
    """
    if request.headers.get("content-encoding", "identity").lower() != "identity":
        raise RequestError("unsupported_encoding", "Send the image without Content-Encoding.")
    declared = request.headers.get("content-length", "")
    if declared.isdecimal() and int(declared) > limits.body:
        raise _too_large(limits)
    chunks: list[bytes] = []
    size = 0
    while True:
        chunk, more = await _next_chunk(request, limits, clock)
        size += len(chunk)
        if size > limits.body:
            raise _too_large(limits)
        take(len(chunk))
        chunks.append(chunk)
        if not more:
            return b"".join(chunks)


async def in_time(request: Request, clock: Clock, work: Awaitable[T]) -> T:
    """The result of some work, which is cancelled when the time is over or the client disconnects.

    The body of the request must have been read. Raises RequestError, DisconnectError, and what the work
    raises.
    """
    task = asyncio.ensure_future(work)
    gone = asyncio.ensure_future(request.receive())
    try:
        await asyncio.wait({task, gone}, timeout=clock.left(), return_when=asyncio.FIRST_COMPLETED)
        if task.done():
            return task.result()
        if gone.done():
            raise DisconnectError
        message = f"The answer was not ready within {clock.seconds:g} s; try again later."
        raise RequestError("timeout", message)
    finally:
        task.cancel()
        gone.cancel()
        await asyncio.gather(task, gone, return_exceptions=True)


async def all_of(works: Iterable[Awaitable[T]]) -> list[T]:
    """The results of works that are done at the same time, in order.

    When one fails or this is cancelled, the others are cancelled, and nothing of them is left at the end.
    Raises what the first one that fails raises.
    """
    tasks = [asyncio.ensure_future(work) for work in works]
    try:
        return list(await asyncio.gather(*tasks))
    finally:
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)


async def _next_chunk(request: Request, limits: ServerLimits, clock: Clock) -> tuple[bytes, bool]:
    try:
        message = await asyncio.wait_for(request.receive(), min(limits.stall, clock.left()))
    except asyncio.TimeoutError:
        raise RequestError("slow_upload", "The body took too long to arrive; send a smaller image.") from None
    if message["type"] == "http.disconnect":
        raise DisconnectError
    return message.get("body", b""), message.get("more_body", False)


def _too_large(limits: ServerLimits) -> RequestError:
    return RequestError(
        "body_too_large", f"The body is larger than {limits.body / MEGA:g} MB; send a smaller image."
    )

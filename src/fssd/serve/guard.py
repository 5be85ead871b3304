"""The outermost ASGI layer: HEAD, security headers, metrics, and reading the rest of refused bodies."""

import asyncio
import time
from collections.abc import Awaitable, Callable, MutableMapping
from contextlib import suppress
from typing import Any

from fssd.serve.metrics import Metrics

Scope = MutableMapping[str, Any]
Message = MutableMapping[str, Any]
Receive = Callable[[], Awaitable[Message]]
Send = Callable[[Message], Awaitable[None]]
Application = Callable[[Scope, Receive, Send], Awaitable[None]]

HEADERS = {
    b"content-security-policy": b"default-src 'none'; frame-ancestors 'none'",
    b"x-content-type-options": b"nosniff",
    b"referrer-policy": b"no-referrer",
    b"cross-origin-resource-policy": b"same-origin",
    b"cross-origin-opener-policy": b"same-origin",
    b"cache-control": b"no-store",
}
"""Added to every answer that does not set them itself."""

ALLOWED = {b"GET": b"GET, HEAD"}  # values of the header Allow
SLOW = 408  # status for a body that stopped arriving: there is no rest to read
REST_BYTES = 64_000_000
REST_SECONDS = 5.0


class Guard:
    """An ASGI application that wraps another one. routes: the paths that are counted separately.

    HEAD is answered as GET without the body, at every address.
    """

    def __init__(self, app: Application, metrics: Metrics, routes: frozenset[str]) -> None:
        self.app = app
        self.metrics = metrics
        self.routes = routes

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self.app(scope, receive, send)
            return
        start = time.perf_counter()
        head = scope["method"] == "HEAD"
        scope = {**_origin_form(scope), "method": "GET" if head else scope["method"]}
        body = _Body(scope, receive)
        status = 500

        async def answer(message: Message) -> None:
            nonlocal status
            if message["type"] == "http.response.start":
                status = message["status"]
                headers = [(name, ALLOWED.get(value, value)) for name, value in message["headers"]]
                own = {name for name, _ in headers}
                extra = [item for item in HEADERS.items() if item[0] not in own]
                message = {**message, "headers": [*headers, *extra]}
            elif not message.get("more_body", False) and body.unread and status != SLOW:
                await send({**message, "more_body": True})
                await body.discard()
                message = {"type": "http.response.body", "body": b""}
            if head and message["type"] == "http.response.body":
                message = {**message, "body": b""}
            await send(message)

        try:
            await self.app(scope, body.receive, answer)
        finally:
            route = scope["path"] if scope["path"] in self.routes else "other"
            self.metrics.requests.labels(route, str(status)).inc()
            self.metrics.request_seconds.labels(route).observe(time.perf_counter() - start)


def _origin_form(scope: Scope) -> Scope:
    """The scope of `GET http://host/path` as that of `GET /path`, which means the same (RFC 9112, 3.2.2)."""
    if not scope["path"].lower().startswith(("http://", "https://")):
        return scope
    path = "/" + scope["path"].partition("://")[2].partition("/")[2]
    raw = b"/" + scope["raw_path"].partition(b"://")[2].partition(b"/")[2]
    return {**scope, "path": path, "raw_path": raw}


class _Body:
    """Keeps track of whether a part of a request's body is unread.

    If a connection is closed while the client still sends, it is reset and the client never reads the answer.
    So the rest of a refused body is read and discarded, within bounds, after the answer was sent.
    """

    def __init__(self, scope: Scope, receive: Receive) -> None:
        headers = dict(scope["headers"])
        self._receive = receive
        self._more = headers.get(b"content-length", b"0") != b"0" or b"transfer-encoding" in headers
        self._waits_for_100 = headers.get(b"expect", b"").lower() == b"100-continue"

    @property
    def unread(self) -> bool:
        """Whether the client sends more, whatever the answer is."""
        return self._more and not self._waits_for_100

    async def receive(self) -> Message:
        self._waits_for_100 = False
        message = await self._receive()
        if message["type"] == "http.disconnect" or not message.get("more_body", False):
            self._more = False
        return message

    async def discard(self) -> None:
        """Read and discard the rest, up to a size and a time."""
        with suppress(asyncio.TimeoutError):
            await asyncio.wait_for(self._read_rest(), REST_SECONDS)

    async def _read_rest(self) -> None:
        size = 0
        while self._more and size < REST_BYTES:
            size += len((await self.receive()).get("body", b""))

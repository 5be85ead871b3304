"""uvicorn's connection with timeouts for slow or silent clients; uvicorn itself would wait forever."""

import asyncio
import json
from typing import Any

import h11
from uvicorn.protocols.http.h11_impl import H11Protocol

from fssd.serve.guard import HEADERS
from fssd.serve.refusals import RequestError


def connection_class(stall: float, connections: int) -> type[asyncio.Protocol]:
    """The protocol class for uvicorn's setting `http`.

    stall: seconds in which a request's head must be complete, and in which a client must read some of an
    answer. connections: the most that may be open; further ones are closed at once.
    """

    class Connection(TimedConnection):
        patience = stall
        most = connections

    return Connection


class TimedConnection(H11Protocol):
    """One connection. The limits of bodies are in `fssd.serve.limits.read_body`."""

    patience: float
    most: int
    _head: asyncio.TimerHandle | None = None
    _reading: asyncio.TimerHandle | None = None

    def connection_made(self, transport: Any) -> None:
        """Start the timer for the head of a request, or close if there are too many connections."""
        super().connection_made(transport)
        if len(self.connections) > self.most:
            transport.abort()
        else:
            self._head = self._abort_later()

    def connection_lost(self, exc: Exception | None) -> None:
        for timer in (self._head, self._reading):
            if timer is not None:
                timer.cancel()
        super().connection_lost(exc)

    def data_received(self, data: bytes) -> None:
        """Process the bytes; a timer runs from the first to the last byte of a head."""
        super().data_received(data)
        if self.cycle is None or self.cycle.response_complete:  # waiting for the rest of a head
            if self._head is None and not self.transport.is_closing():
                self._head = self._abort_later()
        elif self._head is not None:
            self._head.cancel()
            self._head = None

    def pause_writing(self) -> None:
        """The client does not read fast enough: give it some time to continue."""
        super().pause_writing()
        self._reading = self._abort_later()

    def resume_writing(self) -> None:
        if self._reading is not None:
            self._reading.cancel()
        super().resume_writing()

    def on_response_complete(self) -> None:
        """Close if a part of the body is unread, and abort if the client does not read the last bytes."""
        if self.conn.their_state is h11.SEND_BODY:
            self.transport.close()
        super().on_response_complete()
        if self.transport.is_closing():
            self._abort_later()

    def timeout_keep_alive_handler(self) -> None:
        """Close an idle connection, and abort it if that takes too long."""
        super().timeout_keep_alive_handler()
        self._abort_later()

    def _unsupported_upgrade_warning(self) -> None:
        """Log nothing: uvicorn would advise to install a package at each request that offers HTTP/2."""

    def send_400_response(self, msg: str) -> None:  # noqa: ARG002
        """uvicorn's answer to invalid HTTP, in the form of all our errors."""
        refusal = RequestError("bad_request", "This is not an HTTP request that can be read.")
        body = json.dumps(refusal.body()).encode()
        headers = [
            *HEADERS.items(),
            (b"content-type", b"application/json"),
            (b"content-length", str(len(body)).encode()),
            (b"connection", b"close"),
        ]
        if self.conn.our_state in {h11.IDLE, h11.SEND_RESPONSE}:
            for event in (h11.Response(status_code=400, headers=headers), h11.Data(body), h11.EndOfMessage()):
                self.transport.write(self.conn.send(event) or b"")
        self.transport.close()

    def _abort_later(self) -> asyncio.TimerHandle:
        return self.loop.call_later(self.patience, self.transport.abort)

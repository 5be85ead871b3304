"""uvicorn's connection, made impatient: by itself it waits for a slow or silent client for ever."""

from __future__ import annotations

import asyncio
import json
from typing import Any

import h11
from uvicorn.protocols.http.h11_impl import H11Protocol

from fssd.serve.guard import HEADERS
from fssd.serve.refusals import RequestError


def impatient(stall: float, connections: int) -> type[asyncio.Protocol]:
    """The protocol class to give uvicorn as `http`.

    stall: seconds in which a request's head must be complete, and in which a client must take up some of what
    it is sent. connections: open ones; further ones are closed at once.
    """

    class Connection(Impatient):
        patience = stall
        most = connections

    return Connection


class Impatient(H11Protocol):
    """One connection; see `impatient`. Bodies have limits of their own, `fssd.serve.limits.read_body`."""

    patience: float
    most: int
    _head: asyncio.TimerHandle | None = None
    _taking: asyncio.TimerHandle | None = None

    def connection_made(self, transport: Any) -> None:
        """Wait for the head of a request, unless there are too many connections."""
        super().connection_made(transport)
        if len(self.connections) > self.most:
            transport.abort()
            return
        self._watch_head()

    def connection_lost(self, exc: Exception | None) -> None:
        """Let the timers go."""
        self._forget_head()
        self._forget_taking()
        super().connection_lost(exc)

    def data_received(self, data: bytes) -> None:
        """Pass on; from the first byte of a head on, time runs until its last."""
        super().data_received(data)
        if self._answering():
            self._forget_head()
        elif self._head is None and not self.transport.is_closing():
            self._watch_head()

    def pause_writing(self) -> None:
        """The client takes up less than it is sent: it has a while to go on."""
        super().pause_writing()
        self._taking = self.loop.call_later(self.patience, self.transport.abort)

    def resume_writing(self) -> None:
        """It went on."""
        self._forget_taking()
        super().resume_writing()

    def on_response_complete(self) -> None:
        """Hang up on what is left of a body, and on a client that leaves the last bytes lying."""
        if self.conn.their_state is h11.SEND_BODY:
            self.transport.close()
        super().on_response_complete()
        if self.transport.is_closing():
            self.loop.call_later(self.patience, self.transport.abort)

    def timeout_keep_alive_handler(self) -> None:
        """Close an idle connection, at the latest after another while."""
        super().timeout_keep_alive_handler()
        self.loop.call_later(self.patience, self.transport.abort)

    def send_400_response(self, msg: str) -> None:  # noqa: ARG002
        """uvicorn's answer to what is not HTTP, in the form that all errors have here."""
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

    def _answering(self) -> bool:
        return self.cycle is not None and not self.cycle.response_complete

    def _watch_head(self) -> None:
        self._forget_head()
        self._head = self.loop.call_later(self.patience, self.transport.abort)

    def _forget_head(self) -> None:
        if self._head is not None:
            self._head.cancel()
            self._head = None

    def _forget_taking(self) -> None:
        if self._taking is not None:
            self._taking.cancel()
            self._taking = None

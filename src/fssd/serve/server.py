"""`run_server`: serves an application on a port until a signal stops it."""

import asyncio
import errno
import gc
import signal
import socket
from collections.abc import Callable, Iterator
from contextlib import contextmanager

import uvicorn

from fssd.errors import ConfigError
from fssd.serve.app import make_app
from fssd.serve.connection import connection_class
from fssd.serve.limits import Gate
from fssd.serve.service import Service

BACKLOG = 256
REUSE = (socket.SOL_SOCKET, socket.SO_REUSEADDR)
SETTLE = 0.2  # seconds after the signal in which requests that have already arrived are still accepted


def bind(host: str, port: int) -> socket.socket:
    """A socket that holds a port, 0 for any free one, and does not listen yet. Raises ConfigError.

    On Linux two sockets with SO_REUSEADDR can hold the same port until one listens, which a server does when
    its model is warm. So this one has it only where a plain bind fails, because connections of an earlier
    server have not expired, and only for the moment of the bind.
    """
    with _naming(host, port):
        family, kind, protocol, _, address = socket.getaddrinfo(
            host, port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE
        )[0]
        bound = socket.socket(family, kind, protocol)
        try:
            bound.bind(address)
        except OSError as error:
            if error.errno != errno.EADDRINUSE:
                raise
            bound.setsockopt(*REUSE, 1)
            bound.bind(address)
            bound.setsockopt(*REUSE, 0)
    bound.setblocking(False)
    return bound


def listen(bound: socket.socket) -> None:
    """Accept connections from now on. Raises ConfigError if another program took the port meanwhile."""
    with _naming(*bound.getsockname()[:2]):
        # Connections inherit it, so that the next server can bind while they expire.
        bound.setsockopt(*REUSE, 1)
        bound.listen(BACKLOG)


@contextmanager
def _naming(host: str, port: int) -> Iterator[None]:
    try:
        yield
    except (OSError, OverflowError, UnicodeError) as error:  # the last: a name with an empty or too long part
        reason = getattr(error, "strerror", None) or error
        advice = "choose another --port or --host"
        raise ConfigError(f"cannot listen on {host} port {port} ({reason}); {advice}") from error


def run_server(
    service: Service,
    bound: socket.socket,
    ready: Callable[[str], None],
    *,
    access_log: bool = False,
) -> None:
    """Serve until SIGINT or SIGTERM, then finish the accepted requests. A second SIGINT stops at once.

    ready: called with the server's address once it answers. Raises ConfigError if another program listens on
    the port.
    """
    listen(bound)
    limits = service.limits
    config = uvicorn.Config(
        make_app(service),
        http=connection_class(limits.stall, limits.connections),
        loop="asyncio",
        ws="none",
        lifespan="on",
        log_level="info" if access_log else "warning",
        access_log=access_log,
        server_header=False,
        proxy_headers=False,
        backlog=BACKLOG,
        timeout_graceful_shutdown=int(limits.seconds + limits.stall) + 1,
    )
    _Server(config, service.gate, ready).run(sockets=[bound])


class _Server(uvicorn.Server):
    """uvicorn's server that tells its address and ends with exit code 0."""

    def __init__(self, config: uvicorn.Config, gate: Gate, ready: Callable[[str], None]) -> None:
        super().__init__(config)
        self.gate = gate
        self.ready = ready

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        await super().startup(sockets)
        gc.freeze()  # startup objects live for the whole process; frozen, the garbage collector skips them
        for bound in sockets or []:
            self.ready(_address(bound))

    async def shutdown(self, sockets: list[socket.socket] | None = None) -> None:
        await asyncio.sleep(SETTLE)
        self.gate.open = False
        await super().shutdown(sockets)

    @contextmanager
    def capture_signals(self) -> Iterator[None]:
        """Stop on both signals; uvicorn would raise them again at the end."""
        signals = (signal.SIGINT, signal.SIGTERM)
        before = {number: signal.signal(number, self.handle_exit) for number in signals}
        try:
            yield
        finally:
            for number, handler in before.items():
                signal.signal(number, handler)


def _address(bound: socket.socket) -> str:
    host, port = bound.getsockname()[:2]
    return f"http://[{host}]:{port}" if ":" in host else f"http://{host}:{port}"

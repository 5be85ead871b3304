"""Connection to Ray: to the cluster that RAY_ADDRESS names, else to one of its own on this machine."""

from __future__ import annotations

import os
import secrets
import signal
import socket
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from fssd.errors import ConfigError, lacking

# Ray reads these when it is imported or started; a value that the user has set stays.
_SETTINGS = {
    "RAY_USAGE_STATS_ENABLED": "0",  # nothing is reported to anybody
    "RAY_DATA_DISABLE_PROGRESS_BARS": "1",
    "RAY_DATA_LOG_LEVEL": "ERROR",
    "RAY_BACKEND_LOG_LEVEL": "fatal",  # what it survives, such as a lost machine, is no error to its user
    "RAY_enable_worker_prestart": "0",  # or it starts a Python process for each core before there is work
    "RAY_prestart_worker_first_driver": "0",
    "RAY_worker_niceness": "0",  # not Ray's 15, with which they starve beside anything else on the machine
}
_OBJECT_STORE = 100_000_000  # bytes: what is passed on are names and numbers, never images


def require_ray() -> Any:
    """The module ray, with `fssd`'s settings. Raises ConfigError if it is not installed."""
    for name, value in _SETTINGS.items():
        os.environ.setdefault(name, value)
    try:
        import ray
    except ImportError as error:
        raise ConfigError(
            f'this needs the package ray{lacking("ray", error)}; pip install "fssd[ray]"'
        ) from error
    return ray


@contextmanager
def connect(cpus: int | None = None) -> Iterator[Any]:
    """The module ray, connected until the block ends; a session that is open already is used and left open.

    cpus: of a cluster of its own, one for each core if None; where RAY_ADDRESS names a cluster, the cluster
    says how many it has. Raises ConfigError if ray is missing or no cluster answers at RAY_ADDRESS.
    """
    ray = require_ray()
    if ray.is_initialized():
        yield ray
        return
    address = os.environ.get("RAY_ADDRESS", "")
    options: dict[str, Any] = {"log_to_driver": False, "logging_level": "ERROR"}
    if not address or address == "local":
        _authenticate()
        # Not "auto", which would join any cluster that somebody has started on this machine.
        options |= {"num_cpus": cpus, "include_dashboard": False, "object_store_memory": _OBJECT_STORE}
    else:
        _require_answer(address)
    with own_signals():
        try:
            ray.init(address=address or "local", **options)
        except (ConnectionError, RuntimeError, ValueError) as error:
            reason = (str(error).splitlines() or [type(error).__name__])[0]
            raise ConfigError(_unreachable(address, reason)) from error
    try:
        yield ray
    finally:
        ray.shutdown()


def _require_answer(address: str) -> None:
    """Raise ConfigError if nothing listens at HOST:PORT; Ray itself would go on trying for minutes."""
    host, _, port = address.rpartition(":")
    if not host or not port.isdecimal():
        return  # "auto" and the like
    try:
        socket.create_connection((host.rpartition("//")[2].strip("[]"), int(port)), timeout=10).close()
    except (OSError, OverflowError, UnicodeError) as error:
        raise ConfigError(_unreachable(address, str(error))) from error


def _unreachable(address: str, reason: str) -> str:
    if not address:
        return f"Ray cannot start on this machine ({reason}); set RAY_ADDRESS to a cluster that runs"
    advice = "start it with `ray start --head`, or unset RAY_ADDRESS to use this machine alone"
    return f"RAY_ADDRESS is {address!r}, where no cluster can be joined ({reason}); {advice}"


def _authenticate() -> None:
    """Give a cluster of its own a token for this session; Ray would write one into the user's home."""
    named = ("RAY_AUTH_MODE", "RAY_AUTH_TOKEN", "RAY_AUTH_TOKEN_PATH")
    if not any(name in os.environ for name in named) and not Path.home().joinpath(".ray/auth_token").exists():
        os.environ["RAY_AUTH_TOKEN"] = secrets.token_hex(32)


@contextmanager
def own_signals() -> Iterator[None]:
    """Keep this program's handlers of SIGTERM and SIGINT.

    Ray replaces the one when it starts or joins a cluster, and the other when it trains.
    """
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    before = {number: signal.getsignal(number) for number in (signal.SIGTERM, signal.SIGINT)}
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)

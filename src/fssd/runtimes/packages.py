"""Packages that only some runtimes need, imported when they are needed, OpenVINO's without its telemetry."""

from __future__ import annotations

import sys
from functools import cache
from importlib import import_module
from types import ModuleType
from typing import Any

from fssd.errors import ConfigError

TELEMETRY = "openvino_telemetry"


def require(package: str, extra: str) -> Any:
    """The module `package`. Raises ConfigError if it is not installed, naming the extra that has it."""
    try:
        return import_module(package)
    except ImportError as error:
        raise ConfigError(f'this needs the package {package}; pip install "fssd[{extra}]"') from error


def require_openvino(package: str = "openvino") -> Any:
    """The module openvino or nncf, which then report nothing to anybody. Raises ConfigError.

    Both report their use to Google Analytics through the package openvino_telemetry unless a file in the
    user's home forbids it. They do without that package where it is absent, so while they are imported it is.
    """
    modules: dict[str, ModuleType | None] = sys.modules  # type: ignore[assignment]
    kept = sys.modules.get(TELEMETRY)
    modules[TELEMETRY] = None
    try:
        return require(package, "openvino")
    finally:
        del sys.modules[TELEMETRY]
        if kept is not None:
            sys.modules[TELEMETRY] = kept


def openvino_core() -> Any:
    """The one `openvino.Core` of this process. Raises ConfigError.

    Each core that compiles for the CPU puts a stack for signal handlers under the thread it runs in, and when
    several go in another order than they came, the thread is left with one that has been unmapped: the next
    signal, an interrupt or the end of a child, then kills the process. One that stays does no harm.
    """
    return _core(require_openvino())


@cache
def _core(openvino: Any) -> Any:
    return openvino.Core()

"""Optional packages, imported on demand; OpenVINO's without its telemetry."""

from __future__ import annotations

import sys
from functools import cache
from importlib import import_module
from types import ModuleType
from typing import Any

from fssd.errors import ConfigError

TELEMETRY = "openvino_telemetry"


def require(package: str, extra: str) -> Any:
    """The module `package`. Raises ConfigError with the extra that installs it, if it is missing."""
    try:
        return import_module(package)
    except ImportError as error:
        raise ConfigError(f'this needs the package {package}; pip install "fssd[{extra}]"') from error


def require_openvino(package: str = "openvino") -> Any:
    """The module openvino or nncf without telemetry. Raises ConfigError if it is not installed.

    Both report their use to Google Analytics through the package openvino_telemetry, unless a file in the
    user's home forbids it. They work without that package, so the import system is told that it is absent.
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
    """The only `openvino.Core` of this process. Raises ConfigError if openvino is not installed.

    Each core that compiles for the CPU installs a signal stack in its thread. When several are destroyed in
    another order than they were created, the thread keeps a stack whose memory is gone, and the next signal
    (an interrupt, the end of a child process) kills the process. A core that stays avoids this.
    """
    return _core(require_openvino())


@cache
def _core(openvino: Any) -> Any:
    return openvino.Core()

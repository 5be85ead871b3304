"""Optional packages, imported on demand; OpenVINO's without its telemetry."""

from __future__ import annotations

import sys
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from functools import cache
from importlib import import_module
from types import ModuleType
from typing import Any

from fssd.errors import ConfigError, lacking

TELEMETRY = "openvino_telemetry"


def require(package: str, extra: str) -> Any:
    """The module `package`. Raises ConfigError with the extra that installs it, if it or what it needs is
    missing."""
    try:
        return import_module(package)
    except ImportError as error:
        raise ConfigError(
            f'this needs the package {package}{lacking(package, error)}; pip install "fssd[{extra}]"'
        ) from error


def require_all(packages: Mapping[str, Sequence[str]]) -> None:
    """Raise ConfigError that names all packages that are missing. packages: by the extra that installs them.

    They are imported, because a package may be there and one that it needs not.
    """
    with _without_telemetry():
        absent = {extra: [*filter(None, map(_absence, names))] for extra, names in packages.items()}
    missing = [name for names in absent.values() for name in names]
    if missing:
        extras = ",".join(extra for extra, names in absent.items() if names)
        kind = "packages" if len(missing) > 1 else "package"
        raise ConfigError(f'this needs the {kind} {", ".join(missing)}; pip install "fssd[{extras}]"')


def _absence(package: str) -> str:
    """The package, with what it lacks, if it cannot be imported, else ""."""
    try:
        import_module(package)
    except ImportError as error:
        return package + lacking(package, error)
    return ""


def require_openvino(package: str = "openvino") -> Any:
    """The module openvino or nncf without telemetry. Raises ConfigError if it is not installed."""
    with _without_telemetry():
        return require(package, "openvino")


@contextmanager
def _without_telemetry() -> Iterator[None]:
    """Tells the import system that the package openvino_telemetry is absent.

    OpenVINO and nncf report their use to Google Analytics through it, unless a file in the user's home
    forbids it. They work without that package.
    """
    modules: dict[str, ModuleType | None] = sys.modules  # type: ignore[assignment]
    kept = sys.modules.get(TELEMETRY)
    modules[TELEMETRY] = None
    try:
        yield
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

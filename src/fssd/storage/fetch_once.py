"""Files that are fetched once for all processes of a machine."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from importlib.util import find_spec
from pathlib import Path

from fssd.atomic import atomic_path, make_folder


def fetch_once(file: Path, fetch: Callable[[Path], None]) -> None:
    """Have `fetch` write a file that is not there yet; other processes that want it wait for this one.

    The file appears whole. A killed process leaves none, and the next one fetches it.
    """
    if file.is_file():
        return
    make_folder(file.parent)
    with _locked(file.with_name(f".{file.name}.lock")):
        if not file.is_file():
            with atomic_path(file) as temporary:
                fetch(temporary)


@contextmanager
def _locked(file: Path) -> Iterator[None]:
    """Hold a lock that the system releases when this process ends. Without such locks several may fetch."""
    if find_spec("fcntl") is None:
        yield
        return
    import fcntl

    with file.open("w") as handle:
        fcntl.flock(handle, fcntl.LOCK_EX)
        yield

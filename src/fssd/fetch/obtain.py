"""A file to install: brought by the user, or downloaded; and the check of its digest.

A downloaded file is deleted when it is no longer needed, one that the user has brought never is. Which of the
two a file is must also be known after an interruption, so a mark beside it says that it was downloaded.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Sequence
from pathlib import Path

from fssd.atomic import atomic_write
from fssd.data.unpack import CHUNK, Progress, silent
from fssd.errors import FetchError
from fssd.fetch.download import PAUSES, download

Stages = Callable[[str, int, int | None], None]  # "download", "check" or "unpack", bytes done, bytes in total


def stage(report: Stages, name: str) -> Progress:
    """The progress of one stage."""
    return lambda done, total: report(name, done, total)


class ObtainedFile:
    """A file that is there, or is downloaded now. Raises FetchError."""

    def __init__(
        self,
        url: str,
        path: Path,
        *,
        size: int | None = None,
        report: Stages = silent,
        pauses: Sequence[float] = PAUSES,
    ) -> None:
        self.url, self.path = url, path
        self._mark = path.with_name(f".{path.name}.downloaded")
        self._report = report
        if not path.is_file():
            download(url, path, size=size, report=stage(report, "download"), pauses=pauses)
            atomic_write(self._mark, self._identity())

    @property
    def is_brought(self) -> bool:
        """Whether the user has brought it."""
        try:
            return self._mark.read_text() != self._identity()
        except OSError:
            return True

    def check(self, kind: str, expected: str | None) -> str:
        """Its digest. kind: "md5", "sha256", ... expected: its beginning, at least, or None for any.

        Raises FetchError for another digest, after a downloaded file was deleted.
        """
        digest = hashlib.new(kind, usedforsecurity=False)
        total = self.path.stat().st_size
        report = stage(self._report, "check")
        with self.path.open("rb") as handle:
            while chunk := handle.read(CHUNK):
                digest.update(chunk)
                report(handle.tell(), total)
        found = digest.hexdigest()
        if expected is None or found.startswith(expected):
            return found
        reason = f"its {kind} is {found}, not {expected}"
        if self.is_brought:
            advice = "it is damaged or another file, delete it to fetch it again"
            raise FetchError(f"{self.path}: {reason}; {advice}")
        self.discard()
        raise FetchError(f"{self.url}: {reason}; the file was deleted, fetch it again")

    def discard(self, keep: bool = False) -> None:
        """Delete it, unless the user has brought it. keep: it becomes the user's own."""
        if not (keep or self.is_brought):
            self.path.unlink()
        self._mark.unlink(missing_ok=True)

    def _identity(self) -> str:
        facts = self.path.stat()
        return f"{facts.st_size} {facts.st_mtime_ns}"

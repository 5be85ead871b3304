"""Typed errors. Each message is one sentence that says what is wrong, where, and what to do."""

from __future__ import annotations

import difflib
import re
from collections.abc import Iterable
from functools import partial
from pathlib import Path


class FssdError(Exception):
    """Base class of all errors raised on purpose by this package; `fssd` prints them without a traceback."""


class ConfigError(FssdError):
    """A setting, option or model name that does not exist or does not fit the others."""


class DataError(FssdError):
    """A problem in a data set. `file` and `place` (line, object, row, json key) locate it."""

    def __init__(self, reason: str, *, file: Path | str | None = None, place: str = "") -> None:
        self.reason = reason
        self.file = None if file is None else Path(file)
        self.place = place
        where = "" if file is None else f"{shown(file)}{f' ({place})' if place else ''}: "
        super().__init__(f"{where}{reason}")

    def __reduce__(self) -> tuple[object, ...]:
        # Pickling would lose the keyword-only arguments when a loader process sends the error to its parent.
        return (partial(type(self), file=self.file, place=self.place), (self.reason,))


class ImageError(DataError):
    """An image that cannot be read: missing, truncated, not an image, or too large to decode safely."""


class ImageSizeError(ImageError):
    """An image that declares more pixels than may be decoded."""


class LabelError(DataError):
    """A label that cannot be used: a box outside its image, an unknown class, a malformed row."""


class CheckpointError(FssdError):
    """A checkpoint that is damaged, of another program, or does not fit the model it is loaded into."""


class TrainingError(FssdError):
    """Training cannot continue, for example because the loss is not finite."""


class Stopped(KeyboardInterrupt):
    """Work was stopped by a signal, and what is done is saved.

    Like any KeyboardInterrupt it ends the program unless it is caught by name, so that a script or a sweep
    does not start its next training. number: of the signal. progress: how far the work is; "" in all
    processes but the first. advice: how to go on.
    """

    def __init__(self, number: int, progress: str, advice: str) -> None:
        super().__init__(f"{progress}; {advice}")
        self.number, self.progress, self.advice = number, progress, advice


class FetchError(FssdError):
    """A download that failed, or an archive that is damaged, not the expected one, or unsafe to unpack."""


class ExportError(FssdError):
    """An exported model whose results differ from the PyTorch model's; nothing was written."""


def shown(file: Path | str) -> str:
    """The name of a file for messages: a Path keeps only one of the slashes of `s3://bucket/key`."""
    remote = isinstance(file, Path) and file.parts[:1] in (("s3:",), ("hf:",))
    text = file.as_posix() if isinstance(file, Path) and remote else str(file)
    return re.sub("^(s3|hf):/+", r"\1://", text)


def nearest(name: str, known: Iterable[str]) -> str:
    """A hint such as `; did you mean 'concat'?`, or the known names if none is similar, or ""."""
    known = [str(name) for name in known]
    close = closest(name, known)
    if close is not None:
        return f"; did you mean {close!r}?"
    return f"; known: {', '.join(known)}" if known else ""


def closest(name: str, known: Iterable[str]) -> str | None:
    """The known name that is most similar, in capitals or not; None if none is similar."""
    folded = {str(other).casefold(): str(other) for other in known}
    close = difflib.get_close_matches(str(name).casefold(), folded, n=1, cutoff=0.5)
    return folded[close[0]] if close else None


def lacking(package: str, error: ImportError) -> str:
    """What to add to the name of a package whose import failed, if the package itself is there, else ""."""
    if isinstance(error, ModuleNotFoundError):
        if error.name in (None, package, package.partition(".")[0]):
            return ""
        return f" (it is there, but not the module {error.name}, which it needs)"
    return f" (it is there, but cannot be imported: {error})"

"""`--json`: the result of a verb as one line of JSON on stdout, and nothing else there.

What a verb prints for people goes to stderr meanwhile. Verbs say their results with `add_result`, whether
anybody asked for them or not.
"""

from __future__ import annotations

import io
import json
import math
import os
import sys
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, redirect_stdout, suppress
from contextvars import ContextVar
from pathlib import PurePath
from typing import Any, TextIO

TO_FILE = frozenset({"bench", "check", "eval", "why"})  # verbs whose flag --json may name a file


class _Output:
    """The result of a verb and the stream that it goes to."""

    def __init__(self, stream: TextIO) -> None:
        self.stream = stream
        self.values: dict[str, Any] = {}
        self.is_left_out = False

    def write(self) -> None:
        """Write what there is, which may be nothing: of several processes the first alone has a result."""
        if self.values and not self.is_left_out:
            # In ASCII, which every stdout can encode.
            self.stream.write(json.dumps(_plain(self.values), allow_nan=False) + "\n")
            self.stream.flush()
        self.values = {}


_output: ContextVar[_Output | None] = ContextVar("output", default=None)


def take_json(verb: str, arguments: Sequence[str]) -> tuple[list[str], bool]:
    """The arguments of a verb without --json, and whether its result is wanted on stdout.

    `--json -` and `--json=-` mean the same. Of `TO_FILE` the flag stays if a file follows it, and of all
    verbs with --help.
    """
    left = list(arguments)
    if {"--help", "-h"} & set(left):
        return left, False
    for index, word in enumerate(left):
        following = left[index + 1 : index + 2]
        if word == "--json=-":
            return [*left[:index], *left[index + 1 :]], True
        if word != "--json":
            continue
        if following == ["-"]:
            return [*left[:index], *left[index + 2 :]], True
        if verb not in TO_FILE or not following or following[0].startswith("--"):
            return [*left[:index], *left[index + 1 :]], True
    return left, False


def wants_json() -> bool:
    """Whether the result goes to stdout as JSON, so that text for people goes to stderr."""
    return _output.get() is not None


def add_result(**values: Any) -> None:
    """Add values to the result; paths become strings, numbers that are not finite become null."""
    if (output := _output.get()) is not None:
        output.values.update(values)


def add_document(text: str) -> None:
    """Add the members of a JSON object."""
    add_result(**json.loads(text))


def leave_result_out() -> None:
    """Write no result, not even an error: of several processes that work together the first one does."""
    if (output := _output.get()) is not None:
        output.is_left_out = True


def write_result() -> None:
    """Write the result now, for a verb that does not end by itself."""
    if (output := _output.get()) is not None:
        output.write()


@contextmanager
def result_on_stdout() -> Iterator[None]:
    """Within the block the results of a verb are kept, and stdout is stderr; then they are written."""
    with _own_stdout() as stream:
        output = _Output(stream)
        token = _output.set(output)
        try:
            with redirect_stdout(sys.stderr):
                yield
        finally:
            _output.reset(token)
            output.write()


@contextmanager
def _own_stdout() -> Iterator[TextIO]:
    """stdout for the result alone: what other processes and libraries in C print goes to stderr too."""
    sys.stdout.flush()
    try:
        is_real = sys.stdout.fileno() == 1
    except (OSError, ValueError):  # a stream in memory has no number
        is_real = False
    if not is_real:
        yield sys.stdout
        return
    kept = os.dup(1)
    os.dup2(2, 1)
    try:
        with io.open(kept, "w", encoding="ascii", closefd=False) as stream:  # noqa: UP020
            yield stream
    finally:
        sys.stderr.flush()
        with suppress(OSError):
            os.dup2(kept, 1)
        os.close(kept)


def _plain(value: Any) -> Any:
    """A value as JSON knows it."""
    if isinstance(value, Mapping):
        return {str(key): _plain(item) for key, item in value.items()}
    if isinstance(value, (list, tuple, set, frozenset)):
        return [_plain(item) for item in value]
    if isinstance(value, PurePath):
        return str(value)
    if isinstance(value, float):
        return float(value) if math.isfinite(value) else None
    item = getattr(value, "item", None)  # of a NumPy number
    return value if item is None else _plain(item())

"""Processes of their own that need not import torch: forks of one that has, and has done nothing else."""

from __future__ import annotations

import multiprocessing
import os
import sys
from collections.abc import Mapping
from io import BufferedWriter, FileIO, TextIOWrapper
from multiprocessing.process import BaseProcess
from pathlib import Path
from subprocess import CompletedProcess
from tempfile import TemporaryDirectory
from typing import Any, NamedTuple

# What runs import: once for all processes, not in each.
PRELOADED = ["fssd.training.loop", "fssd.model.build", "torch._dynamo", "matplotlib.pyplot"]
PRELOADED += ["torch.utils.tensorboard", "fssd.evaluation.voc_ap", "fssd.inference.detector"]
LIMIT = 240  # seconds; only ends what hangs
FSSD = "import sys\nfrom fssd.cli.main import main\nsys.exit(main())"


def forkserver() -> Any:
    """The context of multiprocessing whose processes are such forks."""
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload(PRELOADED)
    return context


class Fork(NamedTuple):
    """A running program. folder: holds what it prints."""

    words: list[str]
    process: BaseProcess
    folder: TemporaryDirectory[str]

    def wait(self) -> CompletedProcess[str]:
        """Its exit code and what it printed; bytes that are no UTF-8 as `os.fsdecode` has them."""
        with self.folder as folder:
            self.process.join(LIMIT)
            hangs = self.process.is_alive()
            self.process.kill()
            self.process.join()
            assert not hangs, self.words
            out, err = (os.fsdecode((Path(folder) / name).read_bytes()) for name in ("out", "err"))
        code = self.process.exitcode
        assert code is not None
        return CompletedProcess(self.words, code, out, err)


def start(
    program: str, *words: object, variables: Mapping[str, str] | None = None, closed: bool = False
) -> Fork:
    """Start `python -c PROGRAM WORDS...`.

    variables: more for its environment. closed: its stdout is a pipe that nobody reads.
    """
    folder: TemporaryDirectory[str] = TemporaryDirectory(prefix="fork-")
    given = [*map(str, words)]
    environment = {**os.environ, **(variables or {})}
    process = forkserver().Process(target=_run, args=(Path(folder.name), environment, closed, program, given))
    process.start()
    return Fork(given, process, folder)


def run(
    program: str, *words: object, variables: Mapping[str, str] | None = None, closed: bool = False
) -> CompletedProcess[str]:
    """`start` a program and wait for its end, as `subprocess.run` does."""
    return start(program, *words, variables=variables, closed=closed).wait()


def _run(folder: Path, environment: Mapping[str, str], closed: bool, program: str, words: list[str]) -> None:
    multiprocessing.set_start_method(None, force=True)  # what it starts itself is not forked from the server
    os.environ.clear()
    os.environ.update(environment)
    for number, name in ((1, "out"), (2, "err")):
        os.dup2(os.open(folder / name, os.O_WRONLY | os.O_CREAT), number)
    if closed:
        reader, writer = os.pipe()
        os.close(reader)
        os.dup2(writer, 1)
    sys.stdout, sys.stderr = _stream(1), _stream(2)
    sys.argv = ["-c", *words]
    exec(compile(program, "<program>", "exec"), {"__name__": "__main__"})


def _stream(number: int) -> TextIOWrapper:
    """Text to a file descriptor, as Python opens it when it starts."""
    encoding, _, errors = os.environ.get("PYTHONIOENCODING", "utf-8:strict").partition(":")
    unbuffered = bool(os.environ.get("PYTHONUNBUFFERED"))
    plain = FileIO(number, "w", closefd=False)
    return TextIOWrapper(
        plain if unbuffered else BufferedWriter(plain),  # type: ignore[arg-type]
        encoding,
        errors if number == 1 else "backslashreplace",
        write_through=unbuffered,
    )

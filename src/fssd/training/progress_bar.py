"""One bar for a run: drawn in place on a terminal and in a notebook; a file gets plain lines instead."""

from __future__ import annotations

import sys
import time
from collections.abc import Callable
from importlib import import_module
from typing import Any, Protocol

from rich.console import Console
from rich.progress import BarColumn, Progress, TextColumn
from rich.table import Column

PAUSE = 0.2  # seconds between two drawings
CELLS = 24  # of the bar


class Bar(Protocol):
    """done: updates. told: what stands beside the bar, None for what stood there before."""

    def show(self, done: int, told: str | None = None) -> None:
        """Draw it, if the last drawing is not too recent; always with other words."""

    def close(self) -> None:
        """Leave the last state."""


def open_bar(console: Console, total: int, clock: Callable[[], float] = time.monotonic) -> Bar | None:
    """The bar for a console; None where nothing can be drawn in place. total: updates of the run."""
    if console.is_jupyter:
        return NotebookBar(total, clock)
    if console.is_terminal and not console.is_dumb_terminal:
        return TerminalBar(console, total, clock)
    return None


class TerminalBar:
    """The last line of a terminal; what is printed meanwhile stands above it.

    It has no thread of its own: the loader's processes are forks, which would inherit the lock of another.
    """

    def __init__(self, console: Console, total: int, clock: Callable[[], float]) -> None:
        self.clock, self.drawn, width = clock, -PAUSE, len(f"{0:>6}/{total}")
        self.progress = Progress(
            TextColumn("{task.completed:>6.0f}/{task.total:.0f}", table_column=Column(min_width=width)),
            BarColumn(CELLS),
            TextColumn("{task.fields[told]}", markup=False, table_column=Column(no_wrap=True)),
            console=console,
            auto_refresh=False,
            redirect_stderr=sys.stderr.isatty(),  # else notes that go to a file would come here
        )
        self.task = self.progress.add_task("", total=total, told="")
        self.progress.start()

    def show(self, done: int, told: str | None = None) -> None:
        fields: dict[str, Any] = {} if told is None else {"told": told}
        self.progress.update(self.task, completed=done, **fields)
        if told is not None or self.clock() - self.drawn >= PAUSE:
            self.drawn = self.clock()
            self.progress.refresh()

    def close(self) -> None:
        self.progress.stop()


class NotebookBar:
    """One output of a cell that is drawn again: plain text, which needs no widgets."""

    def __init__(self, total: int, clock: Callable[[], float]) -> None:
        self.total, self.clock, self.drawn, self.told = total, clock, -PAUSE, ""
        self.display: Any = import_module("IPython.display")
        self.handle = self.display.display(self._text(0), raw=True, display_id=True)

    def show(self, done: int, told: str | None = None) -> None:
        if told is None and self.clock() - self.drawn < PAUSE:
            return
        self.told, self.drawn = self.told if told is None else told, self.clock()
        self.handle.update(self._text(done), raw=True)

    def _text(self, done: int) -> dict[str, str]:
        full = CELLS * min(done, self.total) // max(self.total, 1)
        bar = "█" * full + "░" * (CELLS - full)
        return {"text/plain": f"{done:>6}/{self.total} {bar} {self.told}"}

    def close(self) -> None:
        """The last drawing stays as it is."""

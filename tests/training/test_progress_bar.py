"""The bar of a run: one line that is drawn again on a terminal, one output in a notebook, lines in a file."""

from __future__ import annotations

import errno
import io
import re
import sys
from pathlib import Path
from types import ModuleType, SimpleNamespace
from typing import Any

import pytest
from rich.console import Console

from fssd.training.log import RunLog
from fssd.training.progress_bar import NotebookBar, TerminalBar

VALUES = {"loss": 2.5, "loss_loc": 1.0, "lr": 0.01, "epoch": 0.25}


def terminal(file: Any) -> Console:
    return Console(file=file, width=120, force_terminal=True, color_system=None, highlight=False)


def screen(text: str) -> list[str]:
    """The lines that are left on a terminal: every drawing begins by erasing the line before."""
    rows: list[str] = []
    for part in re.split(r"(\x1b\[[\d;?]*[A-Za-z]|\r|\n)", text):
        if part.endswith("K") and part.startswith("\x1b"):
            rows[-1:] = [""]
        elif part == "\n":
            rows.append("")
        elif part and part != "\r" and not part.startswith("\x1b"):
            rows = rows or [""]
            rows[-1] += part
    return [row.rstrip() for row in rows if row.strip()]


def test_a_terminal_has_one_bar_and_a_line_for_each_evaluation(tmp_path: Path) -> None:
    file = io.StringIO()
    log = RunLog(tmp_path, 0, 40, 8, terminal(file))
    for done in range(1, 41):
        log.tick(done)
        if done % 10 == 0:
            log.step(done, VALUES)
        if done == 20:
            log.evaluation(done, {"map": 0.5, "metric": "voc12"}, best=True)
    log.close()
    left = screen(file.getvalue())
    assert left[0] == "    20/40  mAP (voc12) 0.5000  best"
    assert len(left) == 2 and left[1].startswith("    40/40 ") and "loss 2.500 loss_loc 1.000" in left[1]
    assert left[1].count("━") == 24


def test_a_narrow_terminal_keeps_one_line(tmp_path: Path) -> None:
    file = io.StringIO()
    console = Console(file=file, width=60, force_terminal=True, color_system=None)
    log = RunLog(tmp_path, 0, 40, 8, console)
    log.step(10, VALUES)
    log.step(20, VALUES)
    log.close()
    (line,) = screen(file.getvalue())
    assert line.startswith("    20/40 ") and " left " in line and len(line) <= 60


def test_a_file_has_lines_and_no_bar(tmp_path: Path) -> None:
    file = io.StringIO()
    log = RunLog(tmp_path, 0, 40, 8, Console(file=file, width=120, soft_wrap=True))
    log.tick(9)
    log.step(10, VALUES)
    log.close()
    assert re.fullmatch(
        r"    10/40  loss 2\.500 loss_loc 1\.000  lr 1\.00e-02  \S+ images/s  \S+ left\n", file.getvalue()
    )


def test_drawings_are_not_too_many() -> None:
    clock = iter([0.0, 0.0, 0.1, 0.15, 0.3, 0.3])
    file = io.StringIO()
    bar = TerminalBar(terminal(file), 100, lambda: next(clock))
    counts = []
    for done in (1, 2, 3, 4):
        before = len(file.getvalue())
        bar.show(done)
        counts.append(len(file.getvalue()) > before)
    bar.close()
    assert counts == [True, False, False, True]


def test_a_notebook_has_one_output(monkeypatch: pytest.MonkeyPatch) -> None:
    shown: list[tuple[str, str]] = []

    def display(data: dict[str, str], **options: Any) -> Any:
        assert options == {"raw": True, "display_id": True}
        shown.append(("new", data["text/plain"]))

        def update(data: dict[str, str], raw: bool) -> None:
            assert raw
            shown.append(("again", data["text/plain"]))

        return SimpleNamespace(update=update)

    module = ModuleType("IPython.display")
    module.display = display  # type: ignore[attr-defined]
    monkeypatch.setitem(sys.modules, "IPython.display", module)
    bar = NotebookBar(4, lambda: 5.0)
    bar.show(1)
    bar.show(2)  # too soon
    bar.show(3, "loss 1.0")
    bar.close()
    assert [kind for kind, _ in shown] == ["new", "again", "again"]
    assert shown[0][1] == "     0/4 " + "░" * 24 + " "
    assert shown[2][1] == "     3/4 " + "█" * 18 + "░" * 6 + " loss 1.0"


def test_a_terminal_that_was_closed(tmp_path: Path) -> None:
    class Closed(io.StringIO):
        dead = False

        def write(self, text: str) -> int:
            if self.dead:
                raise OSError(errno.EIO, "Input/output error")
            return super().write(text)

    file = Closed()
    log = RunLog(tmp_path, 0, 40, 8, terminal(file))
    file.dead = True
    log.step(10, VALUES)
    log.tick(11)
    log.step(20, VALUES)
    log.close()
    assert len((tmp_path / "log.jsonl").read_text().splitlines()) == 2

"""What a training run says: lines in log.jsonl, TensorBoard where installed, a bar or lines for people."""

from __future__ import annotations

import errno
import json
import math
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, NamedTuple

from rich.console import Console
from torch import Tensor

from fssd.atomic import atomic_write, names_file
from fssd.errors import DataError
from fssd.training.progress_bar import Bar, open_bar
from fssd.training.trackers import Ending, Trackers

LOG_FILE, TENSORBOARD = "log.jsonl", "tensorboard"


class RunLog:
    """Log of one run. `start` is the iteration it goes on from; older lines past it are dropped.

    folder: of the run. total: iterations of the run. images: images per iteration, for the rate. trackers:
    get every line too, and are closed with the log.
    """

    def __init__(
        self,
        folder: Path,
        start: int,
        total: int,
        images: int,
        console: Console | None = None,
        trackers: Trackers | None = None,
    ) -> None:
        self.path = folder / LOG_FILE
        self.total = total
        self.images = images
        self.console = console or Console(highlight=False, soft_wrap=True)
        self.last = (time.monotonic(), start)
        self.is_read = True  # until a pipe such as `| head` is closed
        self.bar: Bar | None = None
        self._guarded(lambda: setattr(self, "bar", open_bar(self.console, total)))
        _drop_lines_after(self.path, start)
        self.board = _tensorboard(folder, start)
        self.trackers = trackers

    def step(self, iteration: int, values: dict[str, float]) -> None:
        """Log the mean losses and the rate since the last call. `values` have plain numbers."""
        now = time.monotonic()
        then, before = self.last
        seconds = max(now - then, 1e-9) / max(iteration - before, 1)
        self.last = (now, iteration)
        rate = self.images / seconds
        left = (self.total - iteration) * seconds
        self._write({"iteration": iteration, **values, "images_per_second": round(rate, 2)})
        terms = " ".join(f"{key} {value:.3f}" for key, value in values.items() if key.startswith("loss"))
        speed, rest = f"{rate:.1f} images/s", f"{duration(left)} left"
        if self.bar is None:
            self._print(f"{iteration:>6}/{self.total}  {terms}  lr {values['lr']:.2e}  {speed}  {rest}")
        else:  # a narrow terminal cuts off its end
            self._draw(iteration, f"{rest}  {speed}  {terms}")

    def tick(self, iteration: int) -> None:
        """Move the bar, where there is one, to an update."""
        if self.bar is not None:
            self._draw(iteration)

    def evaluation(self, iteration: int, report: dict[str, Any], best: bool) -> None:
        """Log an evaluation. The time it took does not count into the training rate."""
        self._write({"iteration": iteration, "evaluation": report})
        value = report["map"]
        shown = "nan" if value is None or math.isnan(value) else f"{value:.4f}"
        self._print(
            f"{iteration:>6}/{self.total}  mAP ({report['metric']}) {shown}{'  best' if best else ''}"
        )
        self.last = (time.monotonic(), iteration)

    def close(self, end: Ending = "finished") -> None:
        """end: how the run has ended, for the trackers."""
        if self.bar is not None:
            self._guarded(self.bar.close)
        if self.trackers is not None:
            self.trackers.close(end)
        if self.board is not None:
            with names_file(self.path.parent / TENSORBOARD):
                self.board.close()

    def _print(self, line: str) -> None:
        self._guarded(lambda: self.console.print(line))

    def _draw(self, iteration: int, told: str | None = None) -> None:
        bar = self.bar
        if bar is not None:
            self._guarded(lambda: bar.show(iteration, told))

    def _guarded(self, show: Callable[[], None]) -> None:
        """Show something, if anybody reads it: the end of a pipe or a terminal is none of the training."""
        try:
            show()
        except SystemExit:  # rich's answer to a closed pipe
            self.is_read = False
        except OSError as error:
            if error.errno != errno.EIO:  # else of a closed terminal
                raise
            self.console.quiet = True

    def _write(self, line: dict[str, Any]) -> None:
        with names_file(self.path), self.path.open("a", encoding="utf-8") as file:
            file.write(json.dumps(line) + "\n")
        if self.board is not None:
            with names_file(self.path.parent / TENSORBOARD):
                self._plot(line)
        if self.trackers is not None:
            self.trackers.log(line)

    def _plot(self, line: dict[str, Any]) -> None:
        for key, value in line.items():
            if key != "iteration" and isinstance(value, (int, float)):
                self.board.add_scalar(key, value, line["iteration"])
        if "evaluation" in line and line["evaluation"]["map"] is not None:
            self.board.add_scalar("mAP", line["evaluation"]["map"], line["iteration"])


class Means:
    """Running means of a loss and its terms between two log lines."""

    def __init__(self) -> None:
        self.sums: dict[str, Tensor] = {}
        self.count = 0

    def add(self, terms: Mapping[str, Tensor]) -> None:
        """Add the scalars of a batch, which stay on their device."""
        for key, term in terms.items():
            value = term.detach().float()
            self.sums[key] = self.sums[key] + value if key in self.sums else value
        self.count += 1

    def take(self) -> dict[str, float]:
        """The means since the last call, as numbers; waits for the device."""
        means = {key: float(value) / self.count for key, value in self.sums.items()}
        self.sums, self.count = {}, 0
        return means


class LastEvaluation(NamedTuple):
    """iteration: after so many updates. report: as `Report.to_json` has it."""

    iteration: int
    report: dict[str, Any]


def read_log(file: Path, *, strict: bool = True) -> list[dict[str, Any]]:
    """The lines of a log. A cut last line, of a run that still writes or was killed, is left out.

    strict: raise DataError for any other damaged line instead of leaving it out.
    """
    texts = file.read_text(encoding="utf-8", errors="replace").split("\n")
    lines = []
    for number, text in enumerate(texts, start=1):
        try:
            line = json.loads(text) if text.strip() else None
            if line is not None and line["iteration"] is not None:
                lines.append(line)
        except (ValueError, KeyError, TypeError) as error:
            if strict and number < len(texts):
                reason = f"is not a line of a training log ({error}); delete it"
                raise DataError(reason, file=file, place=f"line {number}") from error
    return lines


def last_evaluation(folder: Path) -> LastEvaluation | None:
    """The last evaluation in a run's log; None if there is none."""
    path = folder / LOG_FILE
    lines = read_log(path, strict=False) if path.exists() else []
    found = [line for line in lines if isinstance(line.get("evaluation"), dict)]
    return LastEvaluation(found[-1]["iteration"], found[-1]["evaluation"]) if found else None


def duration(seconds: float) -> str:
    """Seconds as h:mm:ss."""
    minutes, rest = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}:{minutes:02}:{rest:02}"


def _drop_lines_after(path: Path, iteration: int) -> None:
    """A resumed run repeats the iterations after its last checkpoint; their old lines would be duplicates."""
    if not path.exists():
        return
    lines = [line for line in read_log(path, strict=False) if line["iteration"] <= iteration]
    atomic_write(path, "".join(json.dumps(line) + "\n" for line in lines))


def _tensorboard(folder: Path, start: int) -> Any:
    try:
        from torch.utils.tensorboard import SummaryWriter
    except ImportError:
        return None
    with names_file(folder / TENSORBOARD):
        return SummaryWriter(str(folder / TENSORBOARD), purge_step=start + 1)

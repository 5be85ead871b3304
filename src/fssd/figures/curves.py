"""Accuracy against iterations, one line for each experiment: the paper's Fig. 4."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from statistics import fmean
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np

from fssd import plots
from fssd.errors import ConfigError, DataError, nearest
from fssd.training.log import LOG_FILE, read_log

if TYPE_CHECKING:
    from matplotlib.axes import Axes

WIDTH, HEIGHT = 900, 450  # pixels
LABEL_GAP = 0.075  # of the height of the axes, between the names of two lines
COLUMNS = ("name", "number", "metric", "iteration", "runs", "mean", "min", "max")  # of the CSV file
SIZES = ("small", "medium", "large")
CLASS = "class:"  # before the name of a class that is also that of another number
LEADER = {"arrowstyle": "-", "linewidth": 1.0, "shrinkA": 2, "shrinkB": 3, "relpos": (0, 0.5)}

Evaluations = dict[int, dict[str, Any]]  # iteration -> report, as `fssd.evaluation.evaluate` writes it


class Curve(NamedTuple):
    """One line of the plot: an experiment, the mean of its runs and their range. Values are AP in 0..1.

    name: for the legend. runs: how many. iterations: those at which all its runs were evaluated, ascending.
    mean, low, high: one for each iteration. left_out: iterations that only some of the runs have.
    """

    name: str
    runs: int
    iterations: tuple[int, ...]
    mean: tuple[float, ...]
    low: tuple[float, ...]
    high: tuple[float, ...]
    left_out: int


class CurveSet(NamedTuple):
    """Curves that can be compared. number: what they show. iou: None for COCO's average."""

    lines: list[Curve]
    number: str
    metric: str
    iou: float | None


def read_curves(runs: Sequence[Path], number: str = "map") -> CurveSet:
    """Read the logs of runs; runs whose folders differ only in a trailing `seed-N` become one line.

    runs: folders of runs, or folders that hold such runs as `seed-N`. number: "map", "small", "medium" or
    "large", one of COCO's twelve numbers, or the name of a class, "class:large" where it is one of these. A
    mean is always over all the runs of its line: iterations at which only some were evaluated are left out.
    Raises DataError for a folder without log or evaluation, ConfigError for runs that cannot be compared.
    """
    folders = list(dict.fromkeys(folder.resolve() for run in runs for folder in _seeds(run)))
    groups: dict[Path, list[tuple[Path, Evaluations]]] = {}
    for folder in folders:
        groups.setdefault(plots.without_seed(folder), []).append((folder, read_evaluations(folder)))
    metric, iou = _only_metric([entry for group in groups.values() for entry in group])
    names = plots.distinct_names(list(groups))
    lines = [_curve(name, group, number) for name, group in zip(names, groups.values(), strict=True)]
    return CurveSet(lines, number, metric, iou)


def read_evaluations(run: Path) -> Evaluations:
    """The evaluations in the log of a run; of a repeated one the last counts. Raises DataError."""
    file = run / LOG_FILE
    if not file.is_file():
        raise DataError(f"this folder has no {LOG_FILE}; name the folder of a run of `fssd train`", file=run)
    lines = [line for line in read_log(file) if "evaluation" in line]
    found = {int(line["iteration"]): {"map": None, **line["evaluation"]} for line in lines}
    if not found:
        advice = "wait for the first one, or train with a validation split"
        raise DataError(f"this log has no evaluation; {advice}", file=file)
    return dict(sorted(found.items()))


def write_csv(path: Path, curves: CurveSet) -> None:
    """Write the numbers of a plot, AP in 0..1: name, number, metric, iteration, runs, mean, min, max."""
    rows = [
        (line.name, curves.number, curves.metric, iteration, line.runs, *values)
        for line in curves.lines
        for iteration, *values in zip(line.iterations, line.mean, line.low, line.high, strict=True)
    ]
    plots.save_table(path, COLUMNS, rows)


def draw_curves(curves: CurveSet) -> Axes:
    """Plot curves in percent, with names at their right ends and bands from the lowest to the highest run."""
    axes = plots.new_axes(WIDTH, HEIGHT)
    for index, line in enumerate(curves.lines):
        ink, dashes = plots.colour(index), ("-", "--", ":")[index // 7 % 3]  # colours repeat after seven
        mean, low, high = (100 * np.array(values) for values in (line.mean, line.low, line.high))
        axes.plot(line.iterations, mean, dashes, color=ink, linewidth=1.8, marker="o", ms=3.5)
        if line.runs > 1:
            axes.fill_between(line.iterations, low, high, color=ink, alpha=0.18, linewidth=0)
    axes.set_xlim(0, 1.01 * max(1, *(line.iterations[-1] for line in curves.lines)))
    plots.limit_percent(axes)
    axes.xaxis.set_major_formatter(lambda value, _: f"{value:,.0f}")
    axes.set_xlabel("iterations")
    axes.set_ylabel(
        f"{plots.shortened(_title(curves.number))} (%)", parse_math=False
    )  # a class may be called $x$
    axes.set_title(_note(curves), loc="left", fontsize=plots.TEXT, color=plots.QUIET)
    _name_ends(axes, curves.lines)
    return axes


def _seeds(run: Path) -> list[Path]:
    """The run itself, or the runs `seed-N` in a folder that is not a run."""
    if (run / LOG_FILE).exists():
        return [run]
    return sorted(log.parent for log in run.glob(f"seed-*/{LOG_FILE}")) or [run]


def _only_metric(entries: Sequence[tuple[Path, Evaluations]]) -> tuple[str, float | None]:
    """The metric and IoU that all evaluations share. Raises ConfigError if they do not."""
    seen: dict[tuple[str, float | None], Path] = {}
    for folder, evaluations in entries:
        for report in evaluations.values():
            seen.setdefault((report.get("metric", "?"), report.get("iou")), folder)
    if len(seen) > 1:
        (one, first), (other, second), *_ = ((plots.metric_label(*key), run) for key, run in seen.items())
        raise ConfigError(f"{first} was measured by {one}, {second} by {other}; plot them apart")
    return next(iter(seen))


def _curve(name: str, group: Sequence[tuple[Path, Evaluations]], number: str) -> Curve:
    runs = [_values(folder, evaluations, number) for folder, evaluations in group]
    shared = sorted(set.intersection(*(set(run) for run in runs)))
    if not shared:
        raise ConfigError(f"the runs of {name} were never evaluated at the same iteration; plot them apart")
    columns = [[run[iteration] for run in runs] for iteration in shared]
    mean, low, high = tuple(map(fmean, columns)), tuple(map(min, columns)), tuple(map(max, columns))
    left_out = len(set.union(*(set(run) for run in runs))) - len(shared)
    return Curve(name, len(runs), tuple(shared), mean, low, high, left_out)


def _values(run: Path, evaluations: Evaluations, number: str) -> dict[int, float]:
    """One number of each evaluation of a run that has a value for it."""
    known: set[str] = set()
    found = {}
    for iteration, report in evaluations.items():
        classes = report.get("classes", {})
        numbers = {**classes, **report.get("numbers", {}), **report.get("sizes", {}), "map": report["map"]}
        numbers |= {f"{CLASS}{name}": value for name, value in classes.items()}
        known |= set(numbers)
        if numbers.get(number) is not None:
            found[iteration] = float(numbers[number])
    if number not in known:
        raise ConfigError(f"{run}: its evaluations have no number {number!r}{nearest(number, sorted(known))}")
    if not found:
        raise DataError(f"no evaluation has a value of {number!r}: there was no object to find", file=run)
    return found


def _title(number: str) -> str:
    if number == "map":
        return "mAP"
    return f"mAP of {number} objects" if number in SIZES else number


def _note(curves: CurveSet) -> str:
    """The title: the metric, and the meaning of the bands if there are any."""
    note = f"validation, {plots.metric_label(curves.metric, curves.iou)}"
    counts = {line.runs for line in curves.lines if line.runs > 1}
    if not counts:
        return note
    among = f"{min(counts)}" if len(counts) == 1 else f"{min(counts)} to {max(counts)}"
    return f"{note}; mean and range of {among} runs"


def _name_ends(axes: Axes, lines: Sequence[Curve]) -> None:
    """Names to the right of the axes, each at the height of its line's end or as near to it as possible."""
    low, high = axes.get_ylim()
    end = max(line.iterations[-1] for line in lines)
    heights = [(100 * line.mean[-1] - low) / (high - low) for line in lines]
    for index, (line, height) in enumerate(zip(lines, plots.spread(heights, LABEL_GAP, 0, 1), strict=True)):
        dashes = "-" if line.iterations[-1] == end else ":"  # dotted: not a part of the curve
        axes.annotate(
            plots.shortened(line.name),
            (line.iterations[-1], 100 * line.mean[-1]),
            (1.035, height),
            textcoords="axes fraction",
            fontsize=plots.TEXT if len(lines) < 12 else plots.SMALL_TEXT,
            color=plots.INK,
            va="center",
            annotation_clip=False,
            parse_math=False,  # a folder may be called a$b$
            arrowprops={**LEADER, "color": plots.colour(index), "linestyle": dashes},
        )

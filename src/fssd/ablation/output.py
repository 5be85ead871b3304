"""Writes the results of an ablation: table.md, table.csv and table.png in its folder."""

from __future__ import annotations

import math
import statistics
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch

from fssd.ablation.plan import AblationPlan
from fssd.ablation.run import Run
from fssd.ablation.table import MEASURES, Cost, Line, csv_rows, make_lines, markdown
from fssd.atomic import atomic_write
from fssd.figures.scatter import machine
from fssd.plots import INK, QUIET, TEXT, colour, new_panels, save_plot, save_table
from fssd.training.log import last_evaluation

if TYPE_CHECKING:
    from matplotlib.axes import Axes


def write_report(
    out: Path, plan: AblationPlan, finished: Sequence[Run], costs: dict[str, Cost]
) -> list[Line]:
    """Write the table of the finished runs, and return its lines."""
    results: dict[str, dict[int, dict[str, Any]]] = {}
    updates: dict[str, tuple[int, int]] = {}
    for run in finished:
        last = last_evaluation(run.folder)
        if last is not None:
            results.setdefault(run.row.name, {})[run.seed] = last.report
            updates[run.row.name] = (last.iteration, run.config.batch_size * run.config.accumulate)
    lines = make_lines(plan.rows, results, updates, costs)
    if not lines:
        return lines
    report = next(iter(results[lines[0].row.name].values()))
    atomic_write(out / "table.md", markdown(plan.title, _notes(report, finished[0]), lines))
    save_table(out / "table.csv", *csv_rows(lines))
    draw_table(out / "table.png", lines)
    return lines


def _notes(report: dict[str, Any], run: Run) -> list[str]:
    """Explanations of the numbers in the table."""
    iou = "0.50:0.95" if report.get("iou") is None else f"{report['iou']:.2f}"
    return [
        f"AP in percent ({report.get('metric')}, IoU {iou}) on {report.get('images')} images of split"
        f" {run.config.val_split} after the last update; mean ± standard deviation over the seeds.",
        "Updates x images in each; ms: network alone, one image, fp32, median"
        f" ({machine(torch.device('cpu'))}). The last column is the paper's value.",
    ]


def draw_table(path: Path, lines: Sequence[Line]) -> None:
    """A panel for each measure: a dot for each seed, a bar for the mean, a cross for the paper's value."""
    shown = [m for m in MEASURES if any(not math.isnan(v) for line in lines for v in line.values[m])]
    panels = new_panels(1350, 190 + 60 * len(lines), len(shown))
    for panel, measure in zip(panels, shown, strict=True):
        for index, line in enumerate(lines):
            _draw_values(panel, index, [v for v in line.values[measure] if not math.isnan(v)])
            if measure == "mAP" and line.row.paper is not None:
                panel.plot([line.row.paper], [index], "x", color=QUIET, markersize=6)
        panel.set_xlabel("mAP %" if measure == "mAP" else f"AP %, {measure}")
        panel.set_ylim(len(lines) - 0.5, -0.7)
        panel.set_yticks(range(len(lines)), [line.row.name for line in lines])
        _widen(panel)
    if any(line.row.paper is not None for line in lines):
        panels[0].set_xlabel("mAP %  (\u00d7 the paper's)")
    save_plot(path, panels[0])


def _draw_values(panel: Axes, index: int, values: Sequence[float]) -> None:
    if not values:
        return
    mean = statistics.fmean(values)
    panel.plot(values, [index] * len(values), "o", color=colour(index), alpha=0.45, markersize=5)
    panel.plot([mean], [index], "|", color=colour(index), markersize=20, markeredgewidth=2.5)
    panel.annotate(
        f"{mean:.1f}",
        (mean, index),
        xytext=(0, 11),
        textcoords="offset points",
        ha="center",
        fontsize=TEXT,
        color=INK,
    )


def _widen(panel: Axes) -> None:
    """Widen the axis to at least one point of AP, so that noise does not fill the panel; few tick labels."""
    low, high = panel.get_xlim()
    room = max(1.0, (high - low) * 1.3) / 2
    middle = (low + high) / 2
    panel.set_xlim(middle - room, middle + room)
    panel.locator_params(axis="x", nbins=4)

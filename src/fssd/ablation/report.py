"""What an ablation leaves: table.md, table.csv and table.png in its folder."""

from __future__ import annotations

import math
import platform
import statistics
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch

from fssd.ablation.plan import Plan
from fssd.ablation.run import Run
from fssd.ablation.table import MEASURES, Cost, Line, csv_rows, make_lines, markdown
from fssd.atomic import atomic_write
from fssd.plots import INK, QUIET, colour, new_panels, save_plot, save_table
from fssd.training.log import last_evaluation


def write_report(out: Path, plan: Plan, finished: Sequence[Run], costs: dict[str, Cost]) -> list[Line]:
    """Write the table of the runs that are finished, and return its lines."""
    results: dict[str, dict[int, dict[str, Any]]] = {}
    for run in finished:
        evaluation = last_evaluation(run.folder)
        if evaluation is not None:
            results.setdefault(run.row.name, {})[run.seed] = evaluation
    lines = make_lines(plan.rows, results, costs)
    if not lines:
        return lines
    atomic_write(out / "table.md", markdown(plan.title, _notes(finished), lines))
    save_table(out / "table.csv", *csv_rows(lines))
    _plot(out / "table.png", lines)
    return lines


def _notes(finished: Sequence[Run]) -> list[str]:
    """What the figures are, and where they come from."""
    evaluation = last_evaluation(finished[0].folder) or {}
    config = finished[0].config
    length = f"{config.iterations} updates" if config.iterations is not None else f"{config.epochs:g} epochs"
    iou = "0.50:0.95" if evaluation.get("iou") is None else f"{evaluation['iou']:.2f}"
    return [
        f"AP in percent ({evaluation.get('metric')}, IoU {iou}) on {evaluation.get('images')} images of split"
        f" {config.val_split} after the last update; mean ± standard deviation over the seeds.",
        f"{length} of {config.batch_size} images; ms: network alone, one image, fp32, median,"
        f" {torch.get_num_threads()} threads of {platform.processor() or platform.machine()}."
        " The last column is the paper's figure.",
    ]


def _plot(path: Path, lines: Sequence[Line]) -> None:
    """A panel for each measure: a dot for each seed, a bar for the mean."""
    shown = [m for m in MEASURES if any(not math.isnan(v) for line in lines for v in line.values[m])]
    panels = new_panels(1350, 190 + 60 * len(lines), len(shown))
    for panel, measure in zip(panels, shown, strict=True):
        for place, line in enumerate(lines):
            known = [value for value in line.values[measure] if not math.isnan(value)]
            if not known:
                continue
            panel.plot(known, [place] * len(known), "o", color=colour(place), alpha=0.45, markersize=5)
            mean = statistics.fmean(known)
            panel.plot([mean], [place], "|", color=colour(place), markersize=20, markeredgewidth=2.5)
            panel.annotate(
                f"{mean:.1f}", (mean, place), xytext=(0, 11), textcoords="offset points",
                ha="center", fontsize=8, color=INK,
            )  # fmt: skip
            if measure == "mAP" and line.row.paper is not None:
                panel.plot([line.row.paper], [place], "x", color=QUIET, markersize=6)
        panel.set_xlabel("mAP %" if measure == "mAP" else f"AP %, {measure}")
        panel.set_ylim(len(lines) - 0.5, -0.7)
        panel.set_yticks(range(len(lines)), [line.row.name for line in lines])
        panel.margins(x=0.18)
    save_plot(path, panels[0])

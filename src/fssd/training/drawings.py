"""Pictures in a run's folder: what the network is shown, how the loss falls, how accuracy rises.

A fault while drawing never ends the run: it is reported on stderr and the picture is left out.
"""

from __future__ import annotations

import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING, Any

import cv2
import numpy as np

from fssd.data.geometry import Letterbox
from fssd.data.loader import Views
from fssd.data.sample import Image, Sample
from fssd.inference.draw import class_colour, draw_boxes, write_jpeg
from fssd.plots import QUIET, TEXT, colour, limit_percent, metric_label, new_axes, save_plot
from fssd.training.log import LOG_FILE, read_log

if TYPE_CHECKING:
    from matplotlib.axes import Axes

BATCHES_FILE, LOSS_FILE, ACCURACY_FILE = "batches.jpg", "loss.png", "map.png"
COLUMNS, ROWS = 6, 4
CELL, EDGE = 240, 3  # pixels: the side of an image in the mosaic, the black line on its right and below it
WIDTH, HEIGHT = 900, 450  # pixels of a plot

TOTAL, TERM = "loss", "loss_"  # how the log names the loss, and its terms


def draw_batches(folder: Path, views: Views) -> None:
    """Write `batches.jpg`, the first augmented images of a run with their boxes, unless it is there."""
    file = folder / BATCHES_FILE
    if file.exists():
        return
    with _reported(file):
        samples = [views[index] for index in range(COLUMNS * ROWS)]
        cells = [_cell(s, views.dataset.classes) for s in samples if isinstance(s, Sample)]
        if cells:
            write_jpeg(file, _mosaic(cells))


def draw_progress(folder: Path) -> None:
    """Write `loss.png` from the log, if there is one, and `map.png` once it has an evaluation.

    Nothing is drawn without matplotlib.
    """
    with _reported(folder / LOSS_FILE):
        if find_spec("matplotlib") is None or not (folder / LOG_FILE).exists():
            return
        lines = read_log(folder / LOG_FILE)
        steps = [line for line in lines if "loss" in line]
        evaluations = [line for line in lines if line.get("evaluation", {}).get("map") is not None]
        if steps:
            save_plot(folder / LOSS_FILE, _loss_plot(steps))
        if evaluations:
            save_plot(folder / ACCURACY_FILE, _accuracy_plot(evaluations))


@contextmanager
def _reported(file: Path) -> Iterator[None]:
    """Report any exception on stderr and continue."""
    try:
        yield
    except Exception as error:
        print(f"note: {file} was not drawn: {error}", file=sys.stderr)


def _cell(sample: Sample, classes: Sequence[str]) -> Image:
    """An image of the network's size with its boxes, (CELL, CELL, 3)."""
    geometry = Letterbox((CELL, CELL))
    size = sample.image.shape[1], sample.image.shape[0]
    image = geometry.apply(sample.image, cv2.INTER_AREA)
    boxes = geometry.apply_boxes(sample.boxes, size)
    names = [classes[label] for label in sample.labels]
    colours = [class_colour(int(label)) for label in sample.labels]
    drawn = draw_boxes(image, boxes, names, colours)
    drawn[-EDGE:], drawn[:, -EDGE:] = 0, 0
    return drawn


def _mosaic(cells: Sequence[Image]) -> Image:
    """Rows of `COLUMNS` images, the last one filled up with black."""
    missing = -len(cells) % COLUMNS
    whole = [*cells, *[np.zeros_like(cells[0])] * missing]
    rows = [np.hstack(whole[start : start + COLUMNS]) for start in range(0, len(whole), COLUMNS)]
    return np.vstack(rows)


def _loss_plot(steps: Sequence[dict[str, Any]]) -> Axes:
    axes = new_axes(WIDTH, HEIGHT)
    iterations = [line["iteration"] for line in steps]
    terms = sorted(name for name in steps[-1] if name.startswith(TERM))
    for index, name in enumerate((TOTAL, *terms)):
        title = "whole" if name == TOTAL else name.removeprefix(TERM)
        values = [line.get(name, float("nan")) for line in steps]
        axes.plot(iterations, values, color=colour(index), linewidth=1.6, label=title)
    # The first losses can be many times higher than the rest, which is the part of interest.
    settled = [line["loss"] for line in steps[len(steps) // 10 :]]
    axes.set_ylim(0, 1.1 * max(settled))
    axes.set_title("mean over the updates between two log lines", loc="left", fontsize=TEXT, color=QUIET)
    return _finished(axes, "loss")


def _accuracy_plot(evaluations: Sequence[dict[str, Any]]) -> Axes:
    axes = new_axes(WIDTH, HEIGHT)
    reports = [line["evaluation"] for line in evaluations]
    iterations = [line["iteration"] for line in evaluations]
    _accuracy_line(axes, iterations, [report["map"] for report in reports], 0, "all objects", 2.2)
    for index, size in enumerate(("small", "medium", "large"), start=1):
        values = [report.get("sizes", {}).get(size) for report in reports]
        if any(value is not None for value in values):
            _accuracy_line(axes, iterations, values, index, f"{size} objects", 1.3)
    limit_percent(axes)
    metric = metric_label(reports[-1].get("metric", "?"), reports[-1].get("iou"))
    axes.set_title(f"validation, {metric}", loc="left", fontsize=TEXT, color=QUIET)
    return _finished(axes, "mAP (%)")


def _accuracy_line(
    axes: Axes, iterations: Sequence[int], values: Sequence[float | None], index: int, name: str, width: float
) -> None:
    percents = [float("nan") if value is None else 100 * value for value in values]
    axes.plot(iterations, percents, "o-", color=colour(index), linewidth=width, markersize=3.5, label=name)


def _finished(axes: Axes, name: str) -> Axes:
    axes.set_xlabel("iterations")
    axes.set_ylabel(name)
    axes.xaxis.set_major_formatter(lambda value, _: f"{value:,.0f}")
    axes.set_xlim(left=0)
    axes.legend(fontsize=TEXT, frameon=False, loc="center left", bbox_to_anchor=(1.0, 0.5))
    return axes

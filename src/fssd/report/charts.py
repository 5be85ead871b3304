"""Plots as SVG that stands inside a page, takes its colours and its font, and asks for nothing else."""

from __future__ import annotations

import io
import math
import re
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from fssd.evaluation.bootstrap import Difference
from fssd.evaluation.calibration import Calibration
from fssd.evaluation.pairing import Floats
from fssd.evaluation.threshold import Cut, Sweep
from fssd.plots import COLOURS, GRID, INK, QUIET, colour, new_axes
from fssd.report.html import Html, tag

if TYPE_CHECKING:
    from matplotlib.axes import Axes

WIDTH, HEIGHT = 760, 600  # pixels of a PNG, so 365 x 288 points: readable on a phone
TEXT = 10.0  # points
LINES = 7  # in one plot, as many as there are colours
POINTS = 300  # of a curve
LONGEST_NAME = 22  # characters in a legend

_VARIABLES = {
    **{value.lower(): f"var(--c{place})" for place, value in enumerate(COLOURS)},
    INK.lower(): "var(--ink)",
    QUIET.lower(): "var(--quiet)",
    GRID.lower(): "var(--grid)",
}


def precision_recall(names: Sequence[str], sweeps: Sequence[Sweep], cuts: Sequence[Cut]) -> list[Html]:
    """Precision against recall in percent, one line for each class, at most `LINES` in each plot.

    A dot stands at the best threshold. Every class has a right detection.
    """
    lines = [(name, curve.recall, curve.precision) for name, curve in zip(names, sweeps, strict=True)]
    dots = [(cut.recall, cut.precision) for cut in cuts]
    return [
        _lines(part, "recall %", "precision %", "Precision against recall", marks)
        for part, marks in zip(_parts(lines), _parts(dots), strict=True)
    ]


def thresholds(names: Sequence[str], sweeps: Sequence[Sweep], cuts: Sequence[Cut]) -> list[Html]:
    """F1 against the threshold in percent, otherwise as `precision_recall`."""
    lines = [(name, curve.score, curve.f1) for name, curve in zip(names, sweeps, strict=True)]
    dots = [(cut.threshold, cut.f1) for cut in cuts]
    return [
        _lines(part, "threshold %", "F1 %", "F1 against the threshold", marks)
        for part, marks in zip(_parts(lines), _parts(dots), strict=True)
    ]


def two_models(name: str, models: Sequence[str], sweeps: Sequence[Sweep], cuts: Sequence[Cut]) -> Html:
    """Precision against recall of one class by several models; one without a right detection has no line."""
    shown = [place for place, cut in enumerate(cuts) if not math.isnan(cut.f1)]
    lines = [(models[place], sweeps[place].recall, sweeps[place].precision) for place in shown]
    dots = [(cuts[place].recall, cuts[place].precision) for place in shown]
    return _lines(lines, "recall %", "precision %", f"Precision against recall of {name}", dots)


def calibration(result: Calibration) -> Html:
    """Share that is right against score, with the number of detections above each bar."""
    axes = _axes()
    edges = np.linspace(0, 100, len(result.detections) + 1)
    axes.bar(
        edges[:-1], 100 * np.nan_to_num(result.right), width=np.diff(edges), align="edge", color=colour(5),
        edgecolor=colour(0), linewidth=0.8,
    )  # fmt: skip
    axes.plot([0, 100], [0, 100], color=INK, linewidth=1.2, linestyle="--")
    for place, count in enumerate(result.detections):
        if count:
            height = 100 * float(np.nan_to_num(result.right[place]))
            _text(axes, (edges[place] + edges[place + 1]) / 2, height + 1.5, _short(int(count)), 7.5)
    axes.set(xlim=(0, 100), ylim=(0, 108), xlabel="score %", ylabel="right %")
    return _svg(axes, "Share of detections that is right, by score")


def histogram(values: Floats, marks: Sequence[float], label: str, ticks: Sequence[float]) -> Html:
    """Counts on a logarithmic scale of values, with lines at `marks` (the priors')."""
    axes = _axes()
    low, high = min(ticks), max(ticks)
    bins = np.geomspace(low, high, 31).tolist()
    axes.hist(np.clip(values, low, high), bins=bins, color=colour(5), edgecolor=colour(0), linewidth=0.6)
    for mark in marks:
        axes.axvline(mark, color=colour(1), linewidth=1.1, linestyle="--")
    axes.set_xscale("log")
    axes.set_xticks(list(ticks), [f"{tick:g}" for tick in ticks])
    axes.minorticks_off()
    axes.set(xlim=(low, high), xlabel=label, ylabel="boxes")
    return _svg(axes, f"Histogram of {label}")


def scatter(sides: Floats, overlap: Floats, shapes: Floats, limit: float, matched: float) -> Html:
    """Width and height of boxes, (N, 2) px, by whether a prior matches them; priors as crosses, (S, 2)."""
    axes = _axes()
    for hit, ink in ((True, colour(0)), (False, colour(1))):
        some = sides[(overlap >= matched) == hit]
        axes.plot(some[:, 0], some[:, 1], "o", color=ink, markersize=2.6, alpha=0.45, markeredgewidth=0)
    axes.plot(shapes[:, 0], shapes[:, 1], "x", color=INK, markersize=5, markeredgewidth=1.2)
    ticks = [side for side in (4, 8, 16, 32, 64, 128, 256, 512) if side <= limit]
    axes.set(xscale="log", yscale="log")
    for axis in (axes.xaxis, axes.yaxis):
        axis.set_ticks(ticks, labels=[str(side) for side in ticks])
        axis.set_tick_params(which="minor", length=0)
        axis.set_minor_formatter(lambda *_: "")
    axes.set(xlim=(3, 1.1 * limit), ylim=(3, 1.1 * limit), xlabel="width, px", ylabel="height, px")
    return _svg(axes, "Width and height of boxes and priors")


def draws(values: Floats, interval: Difference) -> Html:
    """How the differences of a bootstrap spread, in points, with the interval and zero."""
    axes = _axes()
    points = 100 * values[~np.isnan(values)]
    axes.axvspan(100 * interval.low, 100 * interval.high, color=colour(5), alpha=0.25, linewidth=0)
    axes.hist(points, bins=30, color=colour(5), edgecolor=colour(0), linewidth=0.6)
    axes.axvline(0, color=INK, linewidth=1.2, linestyle="--")
    axes.axvline(100 * interval.value, color=colour(1), linewidth=1.8)
    axes.set(xlabel="difference in mAP, points", ylabel="draws")
    return _svg(axes, "Differences in mAP over the draws of the bootstrap")


def _axes() -> Axes:
    axes = new_axes(WIDTH, HEIGHT)
    axes.tick_params(labelsize=TEXT)
    axes.xaxis.label.set_fontsize(TEXT + 1)
    axes.yaxis.label.set_fontsize(TEXT + 1)
    return axes


def _parts(items: Sequence[Any]) -> list[Sequence[Any]]:
    return [items[start : start + LINES] for start in range(0, len(items), LINES)]


def _lines(
    lines: Sequence[tuple[str, Floats, Floats]],
    x: str,
    y: str,
    label: str,
    dots: Sequence[tuple[float, float]],
) -> Html:
    axes = _axes()
    for place, (name, across, up) in enumerate(lines):
        rows = _thinned(across, up)
        axes.plot(100 * across[rows], 100 * up[rows], color=colour(place), linewidth=1.8, label=_cut(name))
    for place, dot in enumerate(dots):
        axes.plot([100 * dot[0]], [100 * dot[1]], "o", color=colour(place), markersize=6)
    axes.set(xlim=(0, 101), ylim=(0, 103), xlabel=x, ylabel=y)
    legend = axes.legend(fontsize=TEXT - 1, frameon=False, labelcolor=INK, loc="best")
    for text in legend.get_texts():
        text.set_parse_math(False)  # a class may be called $x$
    return _svg(axes, f"{label}: {', '.join(name for name, _, _ in lines)}")


def _thinned(across: Floats, up: Floats) -> Any:
    """At most `POINTS` places of a curve, with its ends, evenly spread over the way that a pen would go.

    They come in pairs, so that a jump keeps both of its corners.
    """
    way = np.cumsum(np.append(0.0, np.hypot(np.diff(across), np.diff(up))))
    after = np.minimum(np.searchsorted(way, np.linspace(0, way[-1], POINTS // 2)), len(way) - 1)
    return np.unique([*np.maximum(after - 1, 0), *after])


def _text(axes: Axes, x: float, y: float, text: str, size: float) -> None:
    axes.text(x, y, text, fontsize=size, color=INK, ha="center", va="bottom", parse_math=False)


def _short(count: int) -> str:
    return f"{count:,}" if count < 10_000 else f"{count / 1000:,.0f}k"


def _cut(name: str) -> str:
    # matplotlib leaves names that begin with _ out of a legend.
    name = f" {name}" if name.startswith("_") else name
    return name if len(name) <= LONGEST_NAME else f"{name[: LONGEST_NAME - 1]}…"


def _svg(axes: Axes, label: str) -> Html:
    import matplotlib as mpl

    figure: Any = axes.figure
    text = io.StringIO()
    with mpl.rc_context({"svg.fonttype": "none", "svg.hashsalt": label}):
        figure.savefig(text, format="svg", transparent=True, metadata={"Date": None})
    return tag("div", Html(_embedded(text.getvalue())), role="img", aria_label=label)


def _embedded(svg: str) -> str:
    """What stands inside HTML of an SVG file: without declarations, metadata and fixed colours."""
    svg = svg[svg.index("<svg") :]
    svg = re.sub(r"<metadata>.*?</metadata>", "", svg, flags=re.DOTALL)
    svg = re.sub(r'\s(xmlns(:\w+)?|version)="[^"]*"', "", svg, count=3)
    svg = re.sub(r'<g id="[^"]*"', "<g", svg)  # `axes_1` would be there once for each plot
    return re.sub(r"#[0-9a-f]{6}\b", lambda found: _VARIABLES.get(found[0], found[0]), svg)

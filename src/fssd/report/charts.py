"""Plots as inline SVG that uses the colours and the font of the page and loads nothing."""

from __future__ import annotations

import io
import re
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from fssd.evaluation.bootstrap import Difference
from fssd.evaluation.pairing import Floats
from fssd.evaluation.scores import BestThreshold, Calibration, Sweep
from fssd.plots import COLOURS, GRID, INK, QUIET, all_letters, colour, new_axes, shortened
from fssd.report.html import Html, tag

if TYPE_CHECKING:
    from matplotlib.axes import Axes

WIDTH, HEIGHT = 760, 600  # pixels of a PNG, so 365 x 288 points: readable on a phone
TEXT = 10.0  # points
LINES = 7  # in one plot; there are seven colours
POINTS = 300  # of a curve
LONGEST_NAME = 22  # characters in a legend

Line = tuple[str, Floats, Floats]  # name, x, y
Dot = tuple[float, float]
ScoreCurve = tuple[str, Sweep, BestThreshold]  # the name of a class or model, its curve, its best threshold

_VARIABLES = {
    **{value.lower(): f"var(--c{index})" for index, value in enumerate(COLOURS)},
    INK.lower(): "var(--ink)",
    QUIET.lower(): "var(--quiet)",
    GRID.lower(): "var(--grid)",
}


def precision_recall(curves: Sequence[ScoreCurve], of: str = "") -> list[Html]:
    """Precision against recall in percent, at most `LINES` lines in each plot; dots are the best thresholds.

    of: what the curves have in common, for the label. Every curve needs a correct detection.
    """
    lines = [(name, sweep.recall, sweep.precision) for name, sweep, _ in curves]
    dots = [(best.recall, best.precision) for *_, best in curves]
    return _plots(lines, "recall %", "precision %", f"Precision against recall{of}", dots)


def thresholds(curves: Sequence[ScoreCurve]) -> list[Html]:
    """F1 against the threshold in percent; otherwise as `precision_recall`."""
    lines = [(name, sweep.score, sweep.f1) for name, sweep, _ in curves]
    dots = [(best.threshold, best.f1) for *_, best in curves]
    return _plots(lines, "threshold %", "F1 %", "F1 against the threshold", dots)


def calibration(result: Calibration) -> Html:
    """Share of correct detections against score, with the number of detections above each bar."""
    axes = _axes()
    edges = np.linspace(0, 100, len(result.detections) + 1)
    axes.bar(
        edges[:-1], 100 * np.nan_to_num(result.correct), width=np.diff(edges), align="edge", color=colour(5),
        edgecolor=colour(0), linewidth=0.8,
    )  # fmt: skip
    axes.plot([0, 100], [0, 100], color=INK, linewidth=1.2, linestyle="--")
    for index, count in enumerate(result.detections):
        if count:
            height = 100 * float(np.nan_to_num(result.correct[index]))
            text = f"{count:,}" if count < 10_000 else f"{count / 1000:,.0f}k"
            middle = (edges[index] + edges[index + 1]) / 2
            axes.text(middle, height + 1.5, text, fontsize=7.5, color=INK, ha="center", va="bottom")
    axes.set(xlim=(0, 100), ylim=(0, 108), xlabel="score %", ylabel="correct %")
    return _svg(axes, "Share of correct detections, by score")


def histogram(values: Floats, marks: Sequence[float], label: str, ticks: Sequence[float]) -> Html:
    """Counts over a logarithmic axis of values, with lines at `marks` (the values of the priors)."""
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
    """Width and height of boxes, (N, 2) px, in two colours: matched or not; priors are crosses, (S, 2)."""
    axes = _axes()
    for hit, ink in ((True, colour(0)), (False, colour(1))):
        some = sides[(overlap >= matched) == hit]
        axes.plot(some[:, 0], some[:, 1], "o", color=ink, markersize=2.6, alpha=0.45, markeredgewidth=0)
    axes.plot(shapes[:, 0], shapes[:, 1], "x", color=INK, markersize=5, markeredgewidth=1.2)
    ticks = [2**power for power in range(2, int(limit).bit_length())]
    axes.set(xscale="log", yscale="log")
    for axis in (axes.xaxis, axes.yaxis):
        axis.set_ticks(ticks, labels=[str(side) for side in ticks])
        axis.set_tick_params(which="minor", length=0)
        axis.set_minor_formatter(lambda *_: "")
    axes.set(xlim=(3, 1.1 * limit), ylim=(3, 1.1 * limit), xlabel="width, px", ylabel="height, px")
    return _svg(axes, "Width and height of boxes and priors")


def resamples(values: Floats, interval: Difference) -> Html:
    """Histogram of the differences over the resamples of a bootstrap, in points, with interval and zero."""
    axes = _axes()
    points = 100 * values[~np.isnan(values)]
    axes.axvspan(100 * interval.low, 100 * interval.high, color=colour(5), alpha=0.25, linewidth=0)
    axes.hist(points, bins=30, color=colour(5), edgecolor=colour(0), linewidth=0.6)
    axes.axvline(0, color=INK, linewidth=1.2, linestyle="--")
    axes.axvline(100 * interval.value, color=colour(1), linewidth=1.8)
    axes.set(xlabel="difference in mAP, points", ylabel="resamples")
    return _svg(axes, "Differences in mAP over the resamples of the bootstrap")


def _axes() -> Axes:
    axes = new_axes(WIDTH, HEIGHT)
    axes.tick_params(labelsize=TEXT)
    axes.xaxis.label.set_fontsize(TEXT + 1)
    axes.yaxis.label.set_fontsize(TEXT + 1)
    return axes


def _plots(lines: Sequence[Line], x: str, y: str, label: str, dots: Sequence[Dot]) -> list[Html]:
    return [
        _lines(lines[start : start + LINES], x, y, label, dots[start : start + LINES])
        for start in range(0, len(lines), LINES)
    ]


def _lines(lines: Sequence[Line], x: str, y: str, label: str, dots: Sequence[Dot]) -> Html:
    axes = _axes()
    for index, ((name, across, up), dot) in enumerate(zip(lines, dots, strict=True)):
        rows, ink = _thinned(across, up), colour(index)
        axes.plot(100 * across[rows], 100 * up[rows], color=ink, linewidth=1.8, label=_in_legend(name))
        axes.plot([100 * dot[0]], [100 * dot[1]], "o", color=ink, markersize=6, zorder=3)
    axes.set(xlim=(0, 101), ylim=(0, 103), xlabel=x, ylabel=y)
    legend = axes.legend(fontsize=TEXT - 1, frameon=False, labelcolor=INK, loc="best")
    for text in legend.get_texts():
        text.set_parse_math(False)  # a class may be called $x$
    return _svg(axes, f"{label}: {', '.join(name for name, _, _ in lines)}")


def _thinned(across: Floats, up: Floats) -> Any:
    """The indices of at most `POINTS` points of a curve, evenly spread over its length, with both ends.

    They come in pairs of neighbours, so that a jump keeps both of its corners.
    """
    length = np.cumsum(np.append(0.0, np.hypot(np.diff(across), np.diff(up))))
    after = np.minimum(np.searchsorted(length, np.linspace(0, length[-1], POINTS // 2)), len(length) - 1)
    return np.unique([*np.maximum(after - 1, 0), *after])


def _in_legend(name: str) -> str:
    # matplotlib leaves names that begin with _ out of a legend.
    return shortened(f" {name}" if name.startswith("_") else name, LONGEST_NAME)


def _svg(axes: Axes, label: str) -> Html:
    import matplotlib as mpl

    figure: Any = axes.figure
    text = io.StringIO()
    with mpl.rc_context({"svg.fonttype": "none", "svg.hashsalt": label}), all_letters(figure):
        figure.savefig(text, format="svg", transparent=True, metadata={"Date": None})
    return tag("div", Html(_embedded(text.getvalue())), role="img", aria_label=label)


def _embedded(svg: str) -> str:
    """An SVG file for use inside HTML: without declarations, metadata and fixed colours."""
    svg = svg[svg.index("<svg") :]
    svg = re.sub(r"<metadata>.*?</metadata>", "", svg, flags=re.DOTALL)
    svg = re.sub(r'\s(xmlns(:\w+)?|version)="[^"]*"', "", svg, count=3)
    svg = re.sub(r'<g id="[^"]*"', "<g", svg)  # ids such as `axes_1` would occur in every plot of a page
    return re.sub(r"#[0-9a-f]{6}\b", lambda found: _VARIABLES.get(found[0], found[0]), svg)

"""Speeds of several models, measured in one run: against accuracy as the paper's Fig. 5, or against work."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, NamedTuple

from fssd import plots
from fssd.bench.timing import Spread
from fssd.errors import ConfigError
from fssd.figures.scatter import HEIGHT, WIDE, WIDTH, scale_by_ratio

if TYPE_CHECKING:
    from matplotlib.axes import Axes


class SpeedPoint(NamedTuple):
    """speed: images per second. accuracy: mAP in percent, of all points or of none. multiply_adds: None if
    unknown."""

    name: str
    speed: Spread
    accuracy: float | None
    multiply_adds: int | None


def draw_speeds(points: Sequence[SpeedPoint], note: str) -> Axes:
    """Accuracy over speed if the points have it, else speed over multiply-adds; bars are the 10th to the 90th
    percentile. note: what was measured, and where.

    Raises ConfigError for a point with neither accuracy nor multiply-adds.
    """
    axes = plots.new_axes(WIDTH, HEIGHT)
    by_accuracy = points[0].accuracy is not None
    shown = [(p.speed.median, _height(p)) if by_accuracy else (_work(p), p.speed.median) for p in points]
    for index, ((x, y), point) in enumerate(zip(shown, points, strict=True)):
        low, median, high = point.speed.low, point.speed.median, point.speed.high
        reach = [[median - low], [high - median]]
        bars = {"xerr": reach} if by_accuracy else {"yerr": reach}
        axes.errorbar(x, y, **bars, fmt="none", ecolor=plots.colour(index), alpha=0.4)  # type: ignore[arg-type]
        axes.plot(x, y, "o", color=plots.colour(index), markersize=9, zorder=3)
    axes.margins(0.1)
    if by_accuracy:
        plots.limit_percent(axes)
        scale_by_ratio(axes, [x for x, _ in shown])
        axes.set_xlabel("speed (images/s)")
        axes.set_ylabel("mAP (%), as given")
    else:
        scale_by_ratio(axes, [x for x, _ in shown])
        if max(y for _, y in shown) >= WIDE * min(y for _, y in shown):
            axes.set_yscale("log")
            axes.yaxis.set_major_formatter(lambda value, _: f"{value:g}")
        else:
            axes.set_ylim(0, None)
        axes.set_xlabel("multiply-adds (G)")
        axes.set_ylabel("speed (images/s)")
    axes.set_title(note, loc="left", fontsize=plots.TEXT, color=plots.QUIET)
    names, count = [point.name for point in points], len(points)
    plots.label_points(axes, shown, names, [plots.TEXT] * count, [plots.INK] * count)
    return axes


def _height(point: SpeedPoint) -> float:
    return 0.0 if point.accuracy is None else point.accuracy


def _work(point: SpeedPoint) -> float:
    if point.multiply_adds is None:
        raise ConfigError(
            f"{point.name}: its multiply-adds are unknown; give accuracies, or leave out --plot"
        )
    return point.multiply_adds / 1e9

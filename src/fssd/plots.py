"""One style for every plot, and how plots, their numbers and the names in them are made.

The only file that imports matplotlib, and only once a plot is asked for. Figures are made without pyplot: no
display is needed (PNG files are drawn by Agg) and nothing is global.
"""

from __future__ import annotations

import csv
import io
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from fssd.atomic import atomic_path, atomic_write, make_folder
from fssd.errors import ConfigError

if TYPE_CHECKING:
    from matplotlib.axes import Axes

# Okabe and Ito 2008, which colour-blind people can tell apart; without the yellow, which is lost on white.
COLOURS = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9", "#000000")
INK, QUIET, GRID = "#333333", "#767676", "#E6E6E6"
DOTS_PER_INCH = 150  # text of 10 points is then 21 pixels high, readable in a picture 900 wide
TEXT, SMALL_TEXT = 9.0, 6.5  # points
LEAST_PERCENT = 5.0  # what an axis of AP spans
PLOT_SUFFIXES = (".png", ".svg", ".pdf")
METRICS = {"voc07": "11-point AP", "voc12": "integral AP", "coco": "COCO"}

# Where a label may stand: (x, y) of its anchor from its point in points, then its alignment.
PLACES = (
    (7, 0, "left", "center"),
    (-7, 0, "right", "center"),
    (0, 5, "center", "bottom"),
    (0, -5, "center", "top"),
    (5, 5, "left", "bottom"),
    (5, -5, "left", "top"),
    (-5, 5, "right", "bottom"),
    (-5, -5, "right", "top"),
)


def colour(index: int) -> str:
    """The colour of the line or point with this number; they repeat after seven."""
    return COLOURS[index % len(COLOURS)]


def require_matplotlib() -> None:
    """Raise ConfigError if plots cannot be made, before hours go into what they are to show."""
    try:
        import matplotlib  # noqa: F401
    except ImportError as error:
        raise ConfigError('plots need matplotlib; pip install "fssd[plot]"') from error


def new_axes(width: int, height: int) -> Axes:
    """Empty axes in the package's style; they fill a figure of their own, `axes.figure`.

    width, height: pixels of a PNG. Raises ConfigError if matplotlib is not installed.
    """
    return new_panels(width, height, 1)[0]


def new_panels(width: int, height: int, count: int) -> list[Axes]:
    """`count` axes side by side in one figure, which share what stands on their left."""
    require_matplotlib()
    from matplotlib.figure import Figure

    figure = Figure(
        figsize=(width / DOTS_PER_INCH, height / DOTS_PER_INCH), dpi=DOTS_PER_INCH, layout="constrained"
    )
    panels = [figure.add_subplot(1, count, 1)]
    for place in range(2, count + 1):
        panels.append(figure.add_subplot(1, count, place, sharey=panels[0]))
        panels[-1].tick_params(labelleft=False)
    for axes in panels:
        _dress(axes)
    return panels


def _dress(axes: Axes) -> None:
    axes.grid(color=GRID, linewidth=0.8)
    axes.set_axisbelow(True)
    axes.spines[["top", "right"]].set_visible(False)
    axes.spines[["left", "bottom"]].set_color(QUIET)
    axes.tick_params(colors=INK, labelsize=TEXT, color=QUIET)
    axes.xaxis.label.set(color=INK, fontsize=TEXT + 1)
    axes.yaxis.label.set(color=INK, fontsize=TEXT + 1)


def save_plot(path: Path, axes: Axes) -> None:
    """Write the figure of `axes` in the format of the suffix, atomically, making the folder."""
    make_folder(path.parent)
    figure: Any = axes.figure
    with atomic_path(path) as temporary:
        figure.savefig(temporary, dpi=DOTS_PER_INCH)


def save_table(path: Path, columns: Sequence[str], rows: Iterable[Sequence[object]]) -> None:
    """Write a CSV file with one line of column names, atomically, making the folder."""
    make_folder(path.parent)
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(columns)
    writer.writerows(rows)
    atomic_write(path, text.getvalue())


def check_suffix(path: Path, suffixes: Sequence[str] = PLOT_SUFFIXES) -> None:
    """Raise ConfigError unless the name of a picture ends in one of `suffixes` (lower case)."""
    if path.suffix.lower() not in suffixes:
        raise ConfigError(f"{path}: is not a picture's name; let --out end in {' or '.join(suffixes)}")


def metric_label(metric: str, iou: float | None) -> str:
    """What an axis says of a metric of `fssd.evaluation.evaluate`; iou None is COCO's average."""
    return f"{METRICS.get(metric, metric)}, IoU {'0.50:0.95' if iou is None else f'{iou:.2f}'}"


def distinct_names(*forms: Sequence[Path]) -> list[str]:
    """Names as short as they can be and yet differ: ends of the paths of the first form that allows it.

    forms: the same things said in several ways, the shortest way first. Two things that are equal in every
    form get the same name.
    """
    names: list[str] = []
    for paths in forms:
        parts = [path.resolve().parts for path in paths]
        for length in range(1, max(map(len, parts), default=0) + 1):
            names = ["/".join(own[-length:]) for own in parts]
            if len(set(names)) == len(names):
                return names
    return names


def model_names(files: Sequence[Path]) -> list[str]:
    """Names of model files: of a run's folder, without its `seed-N` where they differ without it."""
    runs = [
        file.parent if file.name in ("best.safetensors", "final.safetensors") else file.with_suffix("")
        for file in (file.resolve() for file in files)
    ]
    return distinct_names([without_seed(run) for run in runs], runs, [file.with_suffix("") for file in files])


def without_seed(run: Path) -> Path:
    """NAME for NAME/seed-N, and for NAME-seed-N; any other path as it is."""
    head, mark, number = run.name.rpartition("seed-")
    if not mark or not number.isdigit():
        return run
    head = head.rstrip("-_.")
    return run.with_name(head) if head else run.parent


def limit_percent(axes: Axes) -> None:
    """Limits of a y axis in percent: not below 0, and so far apart that noise looks like noise."""
    low, high = axes.get_ylim()
    room = max(0.0, LEAST_PERCENT - (high - low)) / 2
    axes.set_ylim(max(0.0, low - room), high + room)


def spread(values: Sequence[float], gap: float, low: float, high: float) -> list[float]:
    """Places for labels: the values, moved as little as leaves `gap` between them, within low..high.

    Values that are too many for the room begin at `low` and go past `high`. Least squares under an order is
    what pooling adjacent violators solves (Ayer et al. 1955).
    """
    order = sorted(range(len(values)), key=values.__getitem__)
    pools: list[tuple[float, int]] = []  # sum and count of values less the gaps below them
    for rank, index in enumerate(order):
        total, count = values[index] - rank * gap, 1
        while pools and pools[-1][0] / pools[-1][1] >= total / count:
            before = pools.pop()
            total, count = total + before[0], count + before[1]
        pools.append((total, count))
    ceiling = high - (len(values) - 1) * gap
    flat = [total / count for total, count in pools for _ in range(count)]
    places = [0.0] * len(values)
    for rank, index in enumerate(order):
        places[index] = max(low, min(ceiling, flat[rank])) + rank * gap
    return places


def label_points(
    axes: Axes,
    points: Sequence[tuple[float, float]],
    names: Sequence[str],
    sizes: Sequence[float],
    colours: Sequence[str],
) -> None:
    """Write a name beside each point where it covers the least of other names and points.

    points: (x, y) in data units. sizes: of the text, points. The first ones choose first, so the most
    important come first. To be called last: it measures the finished plot.
    """
    from matplotlib.transforms import Bbox

    figure: Any = axes.figure
    figure.draw_without_rendering()
    marks = axes.transData.transform(points)
    reach = 3 * DOTS_PER_INCH / 72  # half a mark and a little air, pixels
    taken = [Bbox.from_extents(x - reach, y - reach, x + reach, y + reach) for x, y in marks]
    for point, name, size, ink in zip(points, names, sizes, colours, strict=True):
        text: Any = axes.annotate(
            name, point, fontsize=size, color=ink, xytext=(0, 0), textcoords="offset points"
        )
        text.set_in_layout(False)
        best = min(PLACES, key=lambda place: _covered(axes, _put(text, place), taken))
        taken.append(_put(text, best))


def _put(text: Any, place: tuple[float, float, str, str]) -> Any:
    """Move a label; returns the pixels it covers."""
    text.set_position(place[:2])
    text.set(ha=place[2], va=place[3])
    return text.get_window_extent()


def _covered(axes: Axes, box: Any, taken: Sequence[Any]) -> float:
    """Pixels of other things under a label, and much for each pixel of it outside the axes."""
    from matplotlib.transforms import Bbox

    def shared(other: Any) -> float:
        both = Bbox.intersection(box, other)
        return 0.0 if both is None else float(both.width * both.height)

    outside = box.width * box.height - shared(axes.bbox)
    return sum(map(shared, taken)) + 10 * float(outside)

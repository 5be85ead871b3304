"""The common style of all plots, and how plots, their CSV files and the names in them are made.

Matplotlib is imported only when a plot is made. Figures are made without pyplot, so no display is needed (Agg
draws PNG files) and there is no global state.
"""

from __future__ import annotations

import csv
import io
import math
import warnings
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager, suppress
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING, Any

from fssd.atomic import atomic_path, atomic_write, make_folder
from fssd.config.run_files import MODEL_FILES
from fssd.errors import ConfigError, lacking

if TYPE_CHECKING:
    from matplotlib.axes import Axes

# Okabe and Ito 2008: colour-blind people can distinguish them. Their yellow is left out, too faint on white.
COLOURS = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9", "#000000")
INK, QUIET, GRID = "#333333", "#767676", "#E6E6E6"
DOTS_PER_INCH = 150  # text of 10 points is then 21 pixels high, readable in a picture 900 wide
TEXT, SMALL_TEXT = 9.0, 6.5  # points
LONGEST_NAME = 36  # characters
MAIN_FONT = "DejaVu Sans"  # comes with matplotlib
# Of these the first that is installed; Pillow's own font has only ASCII.
SYSTEM_FONTS = (
    "NotoSansCJK-Regular.ttc",
    "Arial Unicode.ttf",
    "DejaVuSans.ttf",
    "NotoSans-Regular.ttf",
    "arial.ttf",
)
LEAST_PERCENT = 5.0  # an axis of AP spans at least this
PLOT_SUFFIXES = (".png", ".svg", ".pdf")
METRICS = {"voc07": "11-point AP", "voc12": "integral AP", "coco": "COCO"}

# Possible positions of a label: (x, y) offset of its anchor from its point, in points, then its alignment.
POSITIONS = (
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
    """Raise ConfigError if plots cannot be made; to be called before the long work that a plot shows."""
    try:
        import matplotlib  # noqa: F401
    except ImportError as error:
        raise ConfigError(
            f'plots need matplotlib{lacking("matplotlib", error)}; pip install "fssd[plot]"'
        ) from error


def new_axes(width: int, height: int) -> Axes:
    """Empty axes in their own figure of so many pixels (as PNG). Raises ConfigError without matplotlib."""
    return new_panels(width, height, 1)[0]


def new_panels(width: int, height: int, count: int) -> list[Axes]:
    """`count` axes side by side in one figure; they share the y axis."""
    require_matplotlib()
    from matplotlib.figure import Figure

    size = (width / DOTS_PER_INCH, height / DOTS_PER_INCH)
    figure = Figure(figsize=size, dpi=DOTS_PER_INCH, layout="constrained")
    panels = [figure.add_subplot(1, count, 1)]
    for number in range(2, count + 1):
        panels.append(figure.add_subplot(1, count, number, sharey=panels[0]))
        panels[-1].tick_params(labelleft=False)
    for axes in panels:
        _apply_style(axes)
    return panels


def _apply_style(axes: Axes) -> None:
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
    with atomic_path(path) as temporary, all_letters(figure):
        figure.savefig(temporary, dpi=DOTS_PER_INCH)


@contextmanager
def all_letters(figure: Any) -> Iterator[None]:
    """Letters that matplotlib's font lacks are drawn in the font of names on boxes, without a warning."""
    from matplotlib.text import Text

    for text in figure.findobj(Text):
        text.set_fontfamily(_families())
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", message="Glyph .* missing from font")
        yield


@cache
def _families() -> list[str]:
    from matplotlib import font_manager

    file = system_font()
    if file is None:
        return [MAIN_FONT]
    font_manager.fontManager.addfont(file)
    return list(dict.fromkeys([MAIN_FONT, font_manager.FontProperties(fname=file).get_name()]))


@cache
def system_font() -> str | None:
    """The file of a font for names beyond ASCII, in plots and on boxes; None if none is installed."""
    from PIL import ImageFont

    for name in SYSTEM_FONTS:
        with suppress(OSError):
            return str(ImageFont.truetype(name, 10).path)
    return None


def shortened(name: str, longest: int = LONGEST_NAME) -> str:
    """The name for a plot: a long one without its middle, since the names of runs differ at their ends."""
    if len(name) <= longest:
        return name
    end = longest // 2
    return f"{name[: longest - end - 1]}\u2026{name[-end:]}"


def save_table(path: Path, columns: Sequence[str], rows: Iterable[Sequence[object]]) -> None:
    """Write a CSV file with one line of column names, atomically, making the folder."""
    make_folder(path.parent)
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(columns)
    writer.writerows(rows)
    atomic_write(path, text.getvalue())


def require_own_table(path: Path, columns: Sequence[str]) -> None:
    """Raise ConfigError if the CSV file beside a plot would replace one with other columns."""
    if not path.is_file():
        return
    with path.open("rb") as file:
        first = file.readline(10_000)
    if not first.startswith(",".join(columns[:2]).encode()):
        reason = (
            "exists already and is no table of such a plot; give the plot, whose name it has, another one"
        )
        raise ConfigError(f"{path}: {reason}")


def check_suffix(path: Path, suffixes: Sequence[str] = PLOT_SUFFIXES, flag: str = "--out") -> None:
    """Raise ConfigError unless the name of a picture ends in one of `suffixes` (lower case)."""
    if path.suffix.lower() not in suffixes:
        raise ConfigError(f"{path}: is not a name of a picture; let {flag} end in {' or '.join(suffixes)}")


def metric_label(metric: str, iou: float | None) -> str:
    """The label of a metric of `fssd.evaluation.evaluate`. iou: None for COCO's average."""
    return f"{METRICS.get(metric, metric)}, IoU {'0.50:0.95' if iou is None else f'{iou:.2f}'}"


def distinct_names(*forms: Sequence[Path]) -> list[str]:
    """Names that are as short as possible and still differ: the last parts of the paths.

    forms: several lists of paths for the same things; the first list whose paths all differ is used. Two
    things that are equal in every list get the same name.
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
    """Names of model files, after their runs' folders; `seed-N` is dropped if they differ without it."""
    runs = [
        file.parent if file.name in MODEL_FILES else file.with_suffix("")
        for file in (file.resolve() for file in files)
    ]
    return distinct_names([without_seed(run) for run in runs], runs, [file.with_suffix("") for file in files])


def without_seed(run: Path) -> Path:
    """NAME for NAME/seed-N and for NAME-seed-N; any other path unchanged."""
    head, mark, number = run.name.rpartition("seed-")
    if not mark or not number.isdigit():
        return run
    head = head.rstrip("-_.")
    return run.with_name(head) if head else run.parent


def split_number(text: str) -> tuple[str, float | None]:
    """`name=77.2` as name and number; without a number the text itself, which may be a path with `=`."""
    name, mark, number = text.rpartition("=")
    try:
        value = float(number)
    except ValueError:
        return text, None
    return (name, value) if mark and name and math.isfinite(value) else (text, None)


def limit_percent(axes: Axes) -> None:
    """Set the limits of a y axis in percent: not below 0, and wide enough that noise looks small."""
    low, high = axes.get_ylim()
    room = max(0.0, LEAST_PERCENT - (high - low)) / 2
    axes.set_ylim(max(0.0, low - room), high + room)


def spread(values: Sequence[float], gap: float, low: float, high: float) -> list[float]:
    """Positions for labels: the values, moved as little as possible to leave `gap` between them in low..high.

    If there are too many values for the room, the positions begin at `low` and go beyond `high`. Least
    squares under an order is solved by pooling adjacent violators (Ayer et al. 1955).
    """
    order = sorted(range(len(values)), key=values.__getitem__)
    pools: list[tuple[float, int]] = []  # sum and count of the values, each minus the gaps below it
    for rank, index in enumerate(order):
        total, count = values[index] - rank * gap, 1
        while pools and pools[-1][0] / pools[-1][1] >= total / count:
            before = pools.pop()
            total, count = total + before[0], count + before[1]
        pools.append((total, count))
    ceiling = high - (len(values) - 1) * gap
    flat = [total / count for total, count in pools for _ in range(count)]
    positions = [0.0] * len(values)
    for rank, index in enumerate(order):
        positions[index] = max(low, min(ceiling, flat[rank])) + rank * gap
    return positions


def label_points(
    axes: Axes,
    points: Sequence[tuple[float, float]],
    names: Sequence[str],
    sizes: Sequence[float],
    colours: Sequence[str],
) -> None:
    """Write a name beside each point, at the position that covers the least of other names and points.

    points: (x, y) in data units, the most important first, because they are labelled first. sizes: of the
    text, points. Call this last, because it measures the finished plot.
    """
    figure: Any = axes.figure
    with all_letters(figure):
        figure.draw_without_rendering()
        _place_names(axes, points, list(map(shortened, names)), sizes, colours)


def _place_names(
    axes: Axes,
    points: Sequence[tuple[float, float]],
    names: Sequence[str],
    sizes: Sequence[float],
    colours: Sequence[str],
) -> None:
    from matplotlib.transforms import Bbox

    marks = axes.transData.transform(points)
    reach = 3 * DOTS_PER_INCH / 72  # half a mark and some margin, pixels
    taken = [Bbox.from_extents(x - reach, y - reach, x + reach, y + reach) for x, y in marks]
    for point, name, size, ink in zip(points, names, sizes, colours, strict=True):
        text: Any = axes.annotate(
            name, point, (0, 0), textcoords="offset points", fontsize=size, color=ink, parse_math=False
        )
        text.set_fontfamily(_families())
        text.set_in_layout(False)
        best = min(POSITIONS, key=lambda position: _covered(axes, _put(text, position), taken))
        taken.append(_put(text, best))


def _put(text: Any, position: tuple[float, float, str, str]) -> Any:
    """Move a label; returns the pixels it covers."""
    text.set_position(position[:2])
    text.set(ha=position[2], va=position[3])
    return text.get_window_extent()


def _covered(axes: Axes, box: Any, taken: Sequence[Any]) -> float:
    """A cost: the pixels of other things under a label, plus 10 for each pixel outside the axes."""
    from matplotlib.transforms import Bbox

    def shared(other: Any) -> float:
        both = Bbox.intersection(box, other)
        return 0.0 if both is None else float(both.width * both.height)

    outside = box.width * box.height - shared(axes.bbox)
    return sum(map(shared, taken)) + 10 * float(outside)

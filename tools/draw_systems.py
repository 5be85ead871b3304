"""The pictures of docs/systems.md: how each network makes its levels of the backbone's maps.

    python tools/draw_systems.py docs/images/systems [NAME ...]

They are drawn from the built networks. A picture holds what it shows as text, so that a test can tell whether
it is up to date.
"""

from __future__ import annotations

import sys
from collections import Counter
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.patches import FancyArrowPatch, FancyBboxPatch
from PIL import Image

from fssd.atomic import atomic_path
from fssd.model.build import build_model
from trace_maps import Arrow, Map, Structure, trace

# Picture -> the name and the options of its network, 20 classes.
SYSTEMS: dict[str, tuple[str, dict[str, Any]]] = {
    "single": ("ssd300-vgg16", {"neck": "single"}),
    "ssd": ("ssd300-vgg16", {}),
    "fpn": ("fpn300-vgg16", {}),
    "rssd": ("rssd300-vgg16", {}),
    "dssd": ("dssd321-resnet101", {}),
    "resskip": ("blitznet300-resnet50", {}),
    "fssd-concat": ("fssd300-vgg16", {}),
    "fssd-sum": ("fssd300-vgg16", {"merge": "sum"}),
    "parsenet": ("fssd300-vgg16", {"variant": "parsenet"}),
    "hypernet": ("fssd300-vgg16", {"variant": "hypernet"}),
    "ion": ("fssd300-vgg16", {"variant": "ion"}),
    "dsod": ("dsod300", {}),
    "yolov2": ("yolov2-416", {}),
}
KEY = "Description"  # of the text in a picture

FILLS = {"source": "#dbe7f6", "merge": "#f6ead2", "map": "#f4f4f4", "level": "#d5d5d5"}
WAYS = {
    "": "#555555",
    "resize": "#009E73",
    "deconvolution": "#CC79A7",
    "pool": "#D55E00",
    "global pool": "#E69F00",
    "reorg": "#0072B2",
}
COLUMN, SLOT = 1.42, 0.6  # inches between columns, and between maps of one size in a column
BOX, TALL = 0.86, 0.4  # inches
TWINS = 0.35  # how much more each further arrow between the same two maps is bent
LIFT = 0.3  # inches, of an arrow over the maps between its ends
TEXT, SMALL = 7.0, 5.5  # points


def build(name: str) -> Structure:
    """The structure of the network of a picture."""
    model, options = SYSTEMS[name]
    with torch.device("meta"):
        return trace(build_model(model, 20, **options))


def shown_structure(file: Path) -> str:
    """The text of the structure that a picture was drawn from; "" if it holds none."""
    with Image.open(file) as picture:
        return str(picture.info.get(KEY, ""))


def draw(file: Path, structure: Structure) -> None:
    """Columns are stages, from the backbone on the left to the levels; rows are sizes, finest on top."""
    columns = _columns(structure)
    at, bands = _places(structure.maps, columns)
    width, height = COLUMN * max(columns) + BOX + 1.1, max(y for _, y in at) + 1.15
    figure = Figure(figsize=(width, height), dpi=110)
    axes = figure.add_axes((0, 0, 1, 1))
    axes.set(xlim=(-BOX / 2 - 0.75, width - BOX / 2 - 0.75), ylim=(height - 0.45, -0.45))
    axes.axis("off")
    for (rows, columns_), (top, bottom) in bands.items():
        shade = "#fafafa" if list(bands).index((rows, columns_)) % 2 else "#ffffff"
        axes.axhspan(top, bottom, color=shade, zorder=0)
        axes.text(
            -BOX / 2 - 0.68,
            (top + bottom) / 2,
            f"{columns_} x {rows}",
            fontsize=TEXT,
            va="center",
            color="#767676",
        )
    drawn: Counter[tuple[int, int]] = Counter()
    for arrow in structure.arrows:
        _draw_arrow(axes, arrow, at, drawn[arrow.start, arrow.end])
        drawn[arrow.start, arrow.end] += 1
    for place, shown in zip(at, structure.maps, strict=True):
        _draw_map(axes, place, shown)
    _draw_legend(axes, structure)
    with atomic_path(file) as temporary:
        figure.savefig(temporary, format="png", metadata={KEY: structure.text(), "Software": None})


def _columns(structure: Structure) -> list[int]:
    """The column of each map: one right of all that it is made of; levels are in the last."""
    columns = [0] * len(structure.maps)
    for _ in structure.maps:
        for arrow in structure.arrows:
            columns[arrow.end] = max(columns[arrow.end], columns[arrow.start] + 1)
    last = max(columns)
    return [last if m.kind == "level" else c for m, c in zip(structure.maps, columns, strict=True)]


def _places(
    maps: Sequence[Map], columns: Sequence[int]
) -> tuple[list[tuple[float, float]], Mapping[tuple[int, int], tuple[float, float]]]:
    """The centre of each map, in inches, and the upper and lower edge of each band of one size."""
    sizes = sorted({(m.rows, m.columns) for m in maps}, reverse=True)
    cells: dict[tuple[tuple[int, int], int], list[int]] = {}
    for index, (shown, column) in enumerate(zip(maps, columns, strict=True)):
        cells.setdefault(((shown.rows, shown.columns), column), []).append(index)
    at = [(0.0, 0.0)] * len(maps)
    bands: dict[tuple[int, int], tuple[float, float]] = {}
    top = -SLOT / 2
    for size in sizes:
        most = max(len(own) for (band, _), own in cells.items() if band == size)
        bottom = top + most * SLOT + 0.12
        for (band, column), own in cells.items():
            for slot, index in enumerate(own if band == size else ()):
                middle = (top + bottom) / 2
                at[index] = (COLUMN * column, middle + SLOT * (slot - (len(own) - 1) / 2))
        bands[size] = (top, bottom)
        top = bottom
    return at, bands


def _draw_map(axes: Axes, place: tuple[float, float], shown: Map) -> None:
    x, y = place
    box = FancyBboxPatch((x - BOX / 2, y - TALL / 2), BOX, TALL, "round,pad=0,rounding_size=0.06")
    box.set(facecolor=FILLS[shown.kind], edgecolor="#555555", linewidth=0.8, zorder=4)
    axes.add_patch(box)
    weight = "bold" if shown.kind in ("source", "level") else "normal"
    axes.text(x, y - 0.075, shown.name, ha="center", va="center", fontsize=TEXT, fontweight=weight, zorder=5)
    axes.text(
        x,
        y + 0.095,
        f"{shown.channels}",
        ha="center",
        va="center",
        fontsize=SMALL + 1,
        color="#555555",
        zorder=5,
    )


def _draw_arrow(axes: Axes, arrow: Arrow, at: Sequence[tuple[float, float]], before: int) -> None:
    """before: arrows between the same two maps that are drawn already."""
    (x, y), (u, v) = at[arrow.start], at[arrow.end]
    start, end = (x + BOX / 2, y), (u - BOX / 2, v)
    is_level = abs(y - v) < 0.05
    between = any(x < other < u and abs(height - y) < TALL for other, height in at)
    bend = -2 * LIFT / (end[0] - start[0]) if is_level and between else 0.0
    bend += TWINS * before
    way = f"arc3,rad={bend}"
    patch = FancyArrowPatch(
        start, end, connectionstyle=way, arrowstyle="-|>", mutation_scale=7, shrinkA=0, shrinkB=1
    )
    patch.set(color=WAYS[arrow.way], linewidth=0.9, zorder=3, alpha=0.85)
    axes.add_patch(patch)
    if arrow.label:
        share = 0.5 if is_level else 0.4
        lift = (LIFT if bend and not before else 0) + (0.03 if is_level else -0.1)
        lift -= 0.3 * before
        middle = (start[0] + share * (end[0] - start[0]), start[1] + share * (v - y) - lift)
        text = axes.text(
            *middle, arrow.label.replace(", ", "\n"), fontsize=SMALL, ha="center", va="bottom", zorder=6
        )
        text.set_bbox({"facecolor": "white", "alpha": 0.75, "linewidth": 0, "pad": 0.4})


def _draw_legend(axes: Axes, structure: Structure) -> None:
    ways = list(dict.fromkeys(arrow.way for arrow in structure.arrows))
    names = {"": "as it is, or through the convolutions named"}
    lines = [
        Line2D([], [], color=WAYS[way], linewidth=1.4, label=names.get(way, way)) for way in sorted(ways)
    ]
    axes.legend(
        handles=lines, loc="lower left", ncols=len(lines), fontsize=SMALL + 1, frameon=False, borderpad=0.2
    )


def main(arguments: Sequence[str]) -> None:
    folder = Path(arguments[0] if arguments else "docs/images/systems")
    folder.mkdir(parents=True, exist_ok=True)
    for name in arguments[1:] or SYSTEMS:
        draw(folder / f"{name}.png", build(name))


if __name__ == "__main__":
    main(sys.argv[1:])

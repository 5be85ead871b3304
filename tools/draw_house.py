"""The picture of docs/architecture.md: the rooms of the package, and which of them import which.

    python tools/draw_house.py docs/images/house.png

It is made from the imports themselves. Arrows that follow from others are left out: if report imports
evaluation and evaluation imports data, then no arrow goes from report to data. Nor do any go to the ground
floor, on which everything stands.
"""

from __future__ import annotations

import ast
import sys
from pathlib import Path

import matplotlib.pyplot as plt
from matplotlib.patches import FancyBboxPatch

PACKAGE = Path(__file__).parents[1] / "src" / "fssd"

# From the ground up. A room imports from floors below its own; on the ground, from those before it.
FLOORS = (
    ("errors", "atomic", "counted", "config", "boxes", "plots", "storage", "zoo", "engines"),
    ("data", "layers"),
    ("backbones", "fetch"),
    ("necks",),
    ("heads",),
    ("model",),
    ("weights",),
    ("runtimes",),
    ("importers", "inference"),
    ("parts",),
    ("evaluation",),
    ("export", "training", "report", "tracking"),
    ("bench", "demo", "serve"),
    ("figures",),
    ("ablation",),
    ("tuning",),
    ("cli",),
)
COLOURS = {
    "network": (("layers", "backbones", "necks", "heads", "model", "weights", "importers"), "#dbe7f6"),
    "data": (("data", "fetch"), "#dff0df"),
    "use": (("runtimes", "inference", "export", "serve", "demo", "zoo", "parts", "tracking"), "#f6ead2"),
    "study": (("training", "evaluation", "report", "figures", "ablation", "tuning", "bench"), "#f3dfe6"),
    "ground": (
        ("errors", "atomic", "counted", "config", "boxes", "plots", "storage", "engines", "cli"),
        "#ececec",
    ),
}


def imports(package: Path = PACKAGE) -> dict[str, set[str]]:
    """The rooms that each room imports from."""
    found: dict[str, set[str]] = {room: set() for floor in FLOORS for room in floor}
    for file in package.rglob("*.py"):
        room = file.relative_to(package).parts[0].removesuffix(".py")
        for node in ast.walk(ast.parse(file.read_text(encoding="utf-8"))):
            if isinstance(node, ast.ImportFrom) and (node.module or "").startswith("fssd") and room in found:
                parts = str(node.module).split(".")
                targets = {parts[1]} if len(parts) > 1 else {alias.name for alias in node.names}
                found[room] |= targets & found.keys() - {room}
    return found


def reduced(graph: dict[str, set[str]]) -> dict[str, set[str]]:
    """The graph without the edges that a longer path stands for."""

    def reach(room: str) -> set[str]:
        return {room}.union(*(reach(target) for target in graph[room]))

    return {
        room: {t for t in targets if not any(t in reach(other) for other in targets - {t})}
        for room, targets in graph.items()
    }


APART = 1.3  # the middles of two rooms of a floor; a room is 1.2 wide


def draw(out: Path) -> None:
    figure, axes = plt.subplots(figsize=(8.2, 9.5))
    colour = {room: shade for rooms, shade in COLOURS.values() for room in rooms}
    at: dict[str, tuple[float, float]] = {}
    for level, floor in enumerate(FLOORS):
        for index, room in enumerate(floor):
            at[room] = (APART * (index - (len(floor) - 1) / 2), level)
    for room, targets in reduced(imports()).items():
        for target in targets - set(FLOORS[0]):
            (x, y), (u, v) = at[room], at[target]
            bend = 0.0 if y - v <= 1 else 0.18 * (1 if x >= u else -1)
            style = {"arrowstyle": "-|>", "color": "#8a8a8a", "connectionstyle": f"arc3,rad={bend}"}
            axes.annotate("", (u, v + 0.27), (x, y - 0.27), arrowprops=style)
    for room, (x, y) in at.items():
        box = FancyBboxPatch((x - 0.58, y - 0.25), 1.16, 0.5, "round,pad=0.02,rounding_size=0.08")
        box.set(facecolor=colour[room], edgecolor="#555555", zorder=3)
        axes.add_patch(box)
        axes.text(x, y, room, ha="center", va="center", fontsize=10, zorder=4)
    half = APART * max(len(floor) for floor in FLOORS) / 2
    axes.set(xlim=(-half, half), ylim=(-0.5, len(FLOORS) - 0.5), aspect="auto")
    axes.axis("off")
    figure.tight_layout()
    figure.savefig(out, dpi=110)


if __name__ == "__main__":
    draw(Path(sys.argv[1] if len(sys.argv) > 1 else "docs/images/house.png"))

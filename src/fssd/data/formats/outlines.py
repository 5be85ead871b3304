"""Bounding boxes (xyxy) of the other shapes that annotation tools draw."""

from __future__ import annotations

import math
from collections.abc import Sequence

from fssd.data.formats.labels import Corners


def box_of_points(points: Sequence[tuple[float, float]]) -> Corners:
    xs, ys = [x for x, _ in points], [y for _, y in points]
    return min(xs), min(ys), max(xs), max(ys)


def box_of_rotated(box: Corners, degrees: float, pivot: tuple[float, float] | None = None) -> Corners:
    """The box of a box that is turned clockwise about a pivot, by default its centre."""
    x1, y1, x2, y2 = box
    px, py = pivot or ((x1 + x2) / 2, (y1 + y2) / 2)
    cos, sin = math.cos(math.radians(degrees)), math.sin(math.radians(degrees))
    corners = [(x - px, y - py) for x in (x1, x2) for y in (y1, y2)]
    return box_of_points([(px + x * cos - y * sin, py + x * sin + y * cos) for x, y in corners])


def box_of_ellipse(cx: float, cy: float, rx: float, ry: float, degrees: float = 0) -> Corners:
    cos, sin = math.cos(math.radians(degrees)), math.sin(math.radians(degrees))
    half_width, half_height = math.hypot(rx * cos, ry * sin), math.hypot(rx * sin, ry * cos)
    return cx - half_width, cy - half_height, cx + half_width, cy + half_height

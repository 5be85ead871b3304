"""Counts of tracked objects that cross a line or come into a zone, by the centre of their boxes."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from fssd.errors import ConfigError
from fssd.inference.detections import Detections

Point = tuple[float, float]  # x, y, pixels


class LineCount:
    """Objects that cross a line from one side to the other, each time they do.

    line: x1, y1, x2, y2, pixels. right: to the right of who looks from the first point to the second, left:
    the other way.
    """

    def __init__(self, line: Sequence[float]) -> None:
        self.start, self.end = (line[0], line[1]), (line[2], line[3])
        self.right = self.left = 0
        self._last: dict[int, Point] = {}

    def update(self, found: Detections) -> None:
        """Count a frame's objects. A centre on the line is still on the side that it comes from."""
        for number, here in centres(found):
            before = self._last.get(number)
            if before is None or _side(self.start, self.end, here):
                self._last[number] = here
            if before is None or not self._is_crossed(before, here):
                continue
            if _side(self.start, self.end, here) > 0:
                self.right += 1
            else:
                self.left += 1

    def _is_crossed(self, before: Point, here: Point) -> bool:
        """Whether the way of a centre cuts the line between its ends."""
        one, other = _side(self.start, self.end, before), _side(self.start, self.end, here)
        first, second = _side(before, here, self.start), _side(before, here, self.end)
        return one * other < 0 and first * second <= 0

    def to_json(self) -> dict[str, Any]:
        return {"line": [*self.start, *self.end], "right": self.right, "left": self.left}


class ZoneCount:
    """Objects that have been in a polygon. corners: x, y, x, y, ..., pixels. now: those of the last frame."""

    def __init__(self, corners: Sequence[float]) -> None:
        self.corners: list[Point] = list(zip(corners[::2], corners[1::2], strict=True))
        self.now = 0
        self._numbers: set[int] = set()

    @property
    def total(self) -> int:
        """Objects that have been inside; one that comes back counts once."""
        return len(self._numbers)

    def update(self, found: Detections) -> None:
        """Count a frame's objects."""
        inside = {number for number, centre in centres(found) if self._holds(centre)}
        self.now = len(inside)
        self._numbers |= inside

    def _holds(self, point: Point) -> bool:
        """Whether a ray to the right crosses the outline an odd number of times."""
        x, y = point
        inside = False
        for (x1, y1), (x2, y2) in zip(self.corners, self.corners[1:] + self.corners[:1], strict=True):
            if (y1 > y) != (y2 > y) and x < x1 + (y - y1) * (x2 - x1) / (y2 - y1):
                inside = not inside
        return inside

    def to_json(self) -> dict[str, Any]:
        return {"zone": [side for corner in self.corners for side in corner], "total": self.total}


def centres(found: Detections) -> list[tuple[int, Point]]:
    """The number and the centre of each tracked object."""
    assert found.tracks is not None, "objects are tracked before they are counted"
    boxes = found.boxes.tolist()
    return [
        (number, ((x1 + x2) / 2, (y1 + y2) / 2))
        for number, (x1, y1, x2, y2) in zip(found.tracks.tolist(), boxes, strict=True)
    ]


def _side(start: Point, end: Point, point: Point) -> float:
    """Above 0 to the right of the line in an image, whose y points down; 0 on it."""
    return (end[0] - start[0]) * (point[1] - start[1]) - (end[1] - start[1]) * (point[0] - start[0])


def read_points(flag: str, text: str, least: int, most: int | None = None) -> list[float]:
    """The numbers of `x,y,x,y,...`, of `least` to `most` points. Raises ConfigError."""
    try:
        numbers = [float(part) for part in text.split(",")]
    except ValueError:
        numbers = []
    points = len(numbers) / 2
    if not least <= points <= (most or points) or points % 1 or not all(abs(one) < 1e6 for one in numbers):
        form = "x1,y1,x2,y2" if most == 2 else "x1,y1,x2,y2,x3,y3,..."
        raise ConfigError(f"{flag} is {text!r}; give {form}, in pixels of the frame")
    if points == 2 and numbers[:2] == numbers[2:]:
        raise ConfigError(f"{flag} is {text!r}, whose ends are one point; give two")
    return numbers

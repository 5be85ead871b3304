"""Counts at lines and in zones, on paths worked out by hand."""

from __future__ import annotations

import numpy as np
import pytest

from fssd.errors import ConfigError
from fssd.inference.detections import Detections
from fssd.tracking.counting import LineCount, ZoneCount, read_points


def at(*centres: tuple[int, float, float]) -> Detections:
    """Tracked objects (number, x, y) of 10 x 10 pixels."""
    boxes = np.array([(x - 5, y - 5, x + 5, y + 5) for _, x, y in centres], np.float32).reshape(-1, 4)
    zeros, numbers = np.zeros(len(centres), np.int64), np.array([number for number, *_ in centres], np.int64)
    return Detections(boxes, np.ones(len(centres), np.float32), zeros, ("car",), tracks=numbers)


def test_both_ways_over_a_line() -> None:
    """A line from left to right at y = 100: below it is to the right of who looks along it."""
    line = LineCount([0, 100, 200, 100])
    for y in (90, 95, 105, 110, 100, 90, 110):
        line.update(at((1, 50, y), (2, 120, 200 - y), (3, 250, y)))
    assert (line.right, line.left) == (2 + 1, 1 + 2), "1 down, up, down; 2 the other way; 3 beside the line"


def test_one_that_stops_on_the_line_and_turns_back_did_not_cross() -> None:
    line = LineCount([0, 100, 200, 100])
    for y in (90, 100, 90, 100, 110):
        line.update(at((1, 50, y)))
    assert line.to_json() == {"line": [0, 100, 200, 100], "right": 1, "left": 0}


def test_one_that_is_out_of_sight_while_it_crosses() -> None:
    line = LineCount([100, 0, 100, 200])
    for tracked in (at((7, 80, 50)), at(), at((7, 120, 50))):
        line.update(tracked)
    assert (line.right, line.left) == (0, 1)


def test_a_zone_that_is_not_convex() -> None:
    """An L of 100 x 100 without its upper right quarter."""
    zone = ZoneCount([0, 0, 50, 0, 50, 50, 100, 50, 100, 100, 0, 100])
    zone.update(at((1, 25, 25), (2, 75, 25), (3, 75, 75)))
    assert (zone.now, zone.total) == (2, 2)
    zone.update(at((1, 75, 25), (2, 75, 60)))
    assert (zone.now, zone.total) == (1, 3)
    zone.update(at((1, 25, 25)))
    assert (zone.now, zone.total) == (1, 3), "one that comes back counts once"


def test_points_of_the_command_line() -> None:
    assert read_points("--count-line", "1,2,3.5,4", 2, 2) == [1, 2, 3.5, 4]
    for text in ("", "1,2,3", "1,2,3,4,5", "1,2,3,4,5,6", "a,b,c,d", "1,2,1,2", "nan,1,2,3", "inf,1,2,3"):
        with pytest.raises(ConfigError, match="--count-line is"):
            read_points("--count-line", text, 2, 2)
    with pytest.raises(ConfigError, match="--count-zone is"):
        read_points("--count-zone", "1,2,3,4", 3)

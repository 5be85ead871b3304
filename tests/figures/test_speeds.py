"""Measured speed against accuracy or work."""

from __future__ import annotations

import pytest

from fssd.bench.timing import Spread
from fssd.errors import ConfigError
from fssd.figures.speeds import SpeedPoint, draw_speeds

pytest.importorskip("matplotlib", reason='plots need matplotlib: pip install "fssd[plot]"')

SLOW, FAST = Spread(10.0, 8.0, 11.0, 5), Spread(20.0, 19.0, 22.0, 5)


def test_accuracy_against_speed() -> None:
    points = [SpeedPoint("a", SLOW, 78.8, None), SpeedPoint("b", FAST, 77.2, None)]
    axes = draw_speeds(points, "here")
    assert [(line.get_xdata()[0], line.get_ydata()[0]) for line in axes.get_lines()] == [
        (10, 78.8),
        (20, 77.2),
    ]
    (bar, _) = axes.collections
    assert bar.get_segments()[0].tolist() == [[8, 78.8], [11, 78.8]]
    assert [text.get_text() for text in axes.texts] == ["a", "b"]
    assert (axes.get_xscale(), axes.get_title(loc="left")) == ("linear", "here")


def test_speed_against_multiply_adds() -> None:
    points = [SpeedPoint("a", SLOW, None, 31_000_000_000), SpeedPoint("b", FAST, None, 1_000_000_000)]
    axes = draw_speeds(points, "here")
    assert [(line.get_xdata()[0], line.get_ydata()[0]) for line in axes.get_lines()] == [(31, 10), (1, 20)]
    assert (axes.get_xscale(), axes.get_yscale(), axes.get_ylim()[0]) == ("log", "linear", 0)


def test_nothing_to_plot_against() -> None:
    with pytest.raises(ConfigError, match="a: its multiply-adds are unknown; give accuracies"):
        draw_speeds([SpeedPoint("a", SLOW, None, None)], "here")

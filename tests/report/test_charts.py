"""Plots inside a page: they load nothing, use the page's colours, and show names unchanged."""

from __future__ import annotations

import re
from html.parser import HTMLParser

import numpy as np
import pytest

pytest.importorskip("matplotlib", reason='plots need matplotlib: pip install "fssd[plot]"')

from fssd.evaluation.bootstrap import Difference
from fssd.evaluation.scores import best_threshold, calibrate, sweep
from fssd.report import charts

NAMES = ("$x_1$", "_hidden", "<b>bold</b>", "plain", "a" * 40, r"\frac{", "&amp;", "eighth")


class Texts(HTMLParser):
    """The texts of the text elements of an SVG."""

    def __init__(self, svg: str) -> None:
        super().__init__()
        self.inside = False
        self.found: list[str] = []
        self.feed(svg)
        self.close()

    def handle_starttag(self, tag: str, _: object) -> None:
        self.inside = tag == "text"

    def handle_data(self, data: str) -> None:
        if self.inside and data.strip():
            self.found.append(data.strip())


def lines() -> list[str]:
    sweeps = [sweep(np.linspace(0.9, 0.1, 400), np.arange(400) % 3 == 0, 200) for _ in NAMES]
    curves = [(name, curve, best_threshold(curve)) for name, curve in zip(NAMES, sweeps, strict=True)]
    return [*charts.precision_recall(curves), *charts.thresholds(curves)]


def every_chart() -> list[str]:
    rng = np.random.default_rng(0)
    return [
        *lines(),
        charts.calibration(calibrate(rng.random(50), rng.random(50) < 0.5)),
        charts.histogram(rng.uniform(5, 200, 50), [30, 60], "side, px", [4, 16, 64, 256]),
        charts.scatter(
            rng.uniform(5, 200, (50, 2)), rng.random(50), np.array([[30, 30], [60, 20]]), 300, 0.5
        ),
        charts.resamples(rng.normal(0, 0.01, 50), Difference(0.0, -0.02, 0.02, 0.5)),
    ]


def test_charts_load_nothing() -> None:
    for chart in every_chart():
        assert "http" not in chart
        assert "<script" not in chart
        assert "url(" not in chart.replace("url(#", "")
        assert chart.startswith('<div role="img" aria-label="')


def test_colours_are_those_of_the_page() -> None:
    for chart in every_chart():
        assert set(re.findall(r"#[0-9a-f]{6}\b", chart)) <= {"#ffffff"}
        assert "var(--ink)" in chart


def test_one_plot_for_seven_classes_names_unchanged() -> None:
    first, second, *_ = lines()
    assert len(lines()) == 4
    texts = Texts(first).found
    assert [name for name in NAMES[:7] if name in texts] == [*NAMES[:4], *NAMES[5:7]]
    assert f"{'a' * 10}\u2026{'a' * 11}" in texts
    assert "eighth" in Texts(second).found


def test_a_page_does_not_change_when_it_is_made_again() -> None:
    assert every_chart() == every_chart()


def test_curves_are_thinned_but_keep_their_ends() -> None:
    across = np.linspace(0, 1, 5000)
    rows = charts._thinned(across, across**2)
    assert len(rows) <= charts.POINTS
    assert (rows[0], rows[-1]) == (0, 4999)
    # A jump keeps both of its corners.
    jump = np.where(across < 0.5, 0.0, 1.0)
    rows = charts._thinned(across, jump)
    assert {2499, 2500} <= set(rows)
    assert list(charts._thinned(np.array([0.3]), np.array([0.4]))) == [0]

"""Names, label positions, tables and the common style of plots."""

from __future__ import annotations

import csv
import sys
from pathlib import Path

import pytest

from fssd.errors import ConfigError
from fssd.figures.curves import Curve, CurveSet, draw_curves
from fssd.plots import (
    check_suffix,
    distinct_names,
    label_points,
    limit_percent,
    metric_label,
    model_names,
    new_axes,
    save_plot,
    save_table,
    shortened,
    spread,
    without_seed,
)


@pytest.mark.parametrize(
    ("values", "gap", "low", "high", "positions"),
    [
        ([], 1, 0, 10, []),
        ([4.0], 1, 0, 10, [4.0]),
        ([9.0, 1.0], 2, 0, 10, [9.0, 1.0]),  # far enough apart: nothing moves
        ([5.0, 5.0], 2, 0, 10, [4.0, 6.0]),  # each moves by half of the gap
        ([5.0, 4.0, 9.0], 2, 0, 10, [5.5, 3.5, 9.0]),  # only those that are too close move
        ([1.0, 1.0, 1.0], 2, 0, 10, [0.0, 2.0, 4.0]),  # -1, 1, 3 pushed up to the border
        ([10.0, 9.0], 4, 0, 10, [10.0, 6.0]),  # 7.5 and 11.5 pushed down
        ([3.0, 4.0, 5.0], 2, 0, 10, [2.0, 4.0, 6.0]),
    ],
)
def test_spread(values: list[float], gap: float, low: float, high: float, positions: list[float]) -> None:
    assert spread(values, gap, low, high) == pytest.approx(positions)


@pytest.mark.parametrize(
    ("run", "name"),
    [
        ("out/fssd/seed-3", "out/fssd"),
        ("out/fssd-seed-12", "out/fssd"),
        ("out/fssd/seed-x", "out/fssd/seed-x"),
        ("out/fssd", "out/fssd"),
        ("out/seed-3b", "out/seed-3b"),
    ],
)
def test_without_seed(run: str, name: str) -> None:
    assert without_seed(Path(run)) == Path(name)


@pytest.mark.parametrize(
    ("files", "names"),
    [
        (["o/a/best.safetensors", "o/b/final.safetensors"], ["a", "b"]),
        (["o/a/seed-0/best.safetensors", "o/b/seed-0/best.safetensors"], ["a", "b"]),
        (["o/a/seed-0/best.safetensors", "o/a/seed-1/best.safetensors"], ["seed-0", "seed-1"]),
        (["x/a/best.safetensors", "y/a/best.safetensors"], ["x/a", "y/a"]),
        (["o/a/best.safetensors", "o/a/final.safetensors"], ["best", "final"]),
        (["o/mine.safetensors", "o/b/best.safetensors"], ["mine", "b"]),
    ],
)
def test_model_names_are_short_and_differ(files: list[str], names: list[str]) -> None:
    assert model_names([Path(file) for file in files]) == names


def test_one_path_is_named_by_its_end() -> None:
    assert distinct_names([Path("runs/mine")]) == ["mine"]


def test_table_is_readable_by_others(tmp_path: Path) -> None:
    file = tmp_path / "new" / "table.csv"
    save_table(file, ("name", "value"), [("a, b", 0.1), ('say "x"', 2)])
    with file.open(newline="", encoding="utf-8") as stream:
        assert list(csv.reader(stream)) == [["name", "value"], ["a, b", "0.1"], ['say "x"', "2"]]


def test_metric_label() -> None:
    assert metric_label("voc07", 0.5) == "11-point AP, IoU 0.50"
    assert metric_label("coco", None) == "COCO, IoU 0.50:0.95"


def test_suffix_of_no_picture() -> None:
    check_suffix(Path("a.PNG"))
    with pytest.raises(ConfigError, match=r"plot\.txt: is not a name of a picture; let --out end in \.png"):
        check_suffix(Path("plot.txt"))


def test_missing_matplotlib_is_reported(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "matplotlib", None)
    with pytest.raises(ConfigError, match=r'plots need matplotlib; pip install "fssd\[plot\]"'):
        new_axes(100, 100)


def test_failed_save_leaves_the_old_picture(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    pytest.importorskip("matplotlib")
    file = tmp_path / "plot.png"
    file.write_bytes(b"old")
    axes = new_axes(100, 100)

    def fail(target: Path, **settings: object) -> None:
        target.write_bytes(b"half")
        raise OSError("disk full")

    monkeypatch.setattr(axes.figure, "savefig", fail)
    with pytest.raises(OSError, match="disk full"):
        save_plot(file, axes)
    assert file.read_bytes() == b"old"
    assert list(tmp_path.iterdir()) == [file]


def test_labels_of_close_points_do_not_overlap() -> None:
    pytest.importorskip("matplotlib")
    axes = new_axes(600, 400)
    points = [(1.0, 1.0), (1.1, 1.0), (1.0, 1.06), (2.0, 2.0)]  # the last one in the corner
    axes.plot(*zip(*points, strict=True), "o")
    label_points(axes, points, ["first", "second", "third", "corner"], [9.0] * 4, ["black"] * 4)
    boxes = [text.get_window_extent() for text in axes.texts]
    assert [text.get_text() for text in axes.texts] == ["first", "second", "third", "corner"]
    for index, box in enumerate(boxes):
        assert not any(box.overlaps(other) for other in boxes[index + 1 :])
        assert axes.bbox.x0 <= box.x0 and box.x1 <= axes.bbox.x1
        assert axes.bbox.y0 <= box.y0 and box.y1 <= axes.bbox.y1


def test_long_names_keep_their_ends() -> None:
    assert shortened("runs/short") == "runs/short"
    assert shortened("abcdefghij", 6) == "ab\u2026hij"
    assert len(shortened("a" * 120)) == 36


@pytest.mark.filterwarnings("error")
@pytest.mark.parametrize("name", ["\u732b\u3068\u72ac", "a" * 120])
def test_names_of_any_script_and_length_are_drawn_without_a_warning(tmp_path: Path, name: str) -> None:
    pytest.importorskip("matplotlib")
    line = Curve(name, 1, (1, 2), (0.1, 0.2), (0.1, 0.2), (0.1, 0.2), 0)
    curves = CurveSet([line], name, "voc12", 0.5)
    save_plot(tmp_path / "a.png", draw_curves(curves))
    axes = new_axes(300, 200)
    axes.plot([1], [1], "o")
    label_points(axes, [(1.0, 1.0)], [name], [9.0], ["black"])
    save_plot(tmp_path / "b.png", axes)


@pytest.mark.parametrize(
    ("limits", "wanted"),
    [((60, 61), (58, 63)), ((1, 3), (0, 4.5)), ((-2, 40), (0, 40)), ((20, 80), (20, 80))],
)
def test_axis_of_percent(limits: tuple[float, float], wanted: tuple[float, float]) -> None:
    pytest.importorskip("matplotlib")
    axes = new_axes(100, 100)
    axes.set_ylim(limits)
    limit_percent(axes)
    assert axes.get_ylim() == pytest.approx(wanted)

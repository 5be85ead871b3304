"""Training curves: reading logs, joining runs into lines, plots."""

from __future__ import annotations

import csv
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest

from fssd.errors import ConfigError, DataError
from fssd.figures.curves import draw_curves, read_curves, read_evaluations, write_csv


def report(value: float | None, **more: Any) -> dict[str, Any]:
    return {
        "metric": "voc12",
        "map": value,
        "iou": 0.5,
        "classes": {"cat": value},
        "sizes": {"small": 0.25, "large": None},
        "numbers": {},
        **more,
    }


def make_run(folder: Path, values: Mapping[int, float | None], **more: Any) -> Path:
    """A run whose log has a line of losses before each evaluation, as training writes it."""
    folder.mkdir(parents=True)
    lines = []
    for iteration, value in values.items():
        lines.append({"iteration": iteration, "loss": 3.5, "lr": 0.01})
        lines.append({"iteration": iteration, "evaluation": report(value, **more)})
    (folder / "log.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))
    return folder


def test_seeds_are_one_line_with_a_range(tmp_path: Path) -> None:
    runs = [
        make_run(tmp_path / "fssd" / "seed-0", {10: 0.5, 20: 0.6}),
        make_run(tmp_path / "fssd" / "seed-1", {10: 0.7, 20: 0.9}),
        make_run(tmp_path / "ssd", {20: 0.4}),
    ]
    fssd, ssd = read_curves(runs).lines
    assert (fssd.name, fssd.runs, fssd.iterations) == ("fssd", 2, (10, 20))
    assert fssd.mean == pytest.approx((0.6, 0.75))
    assert (fssd.low, fssd.high) == ((0.5, 0.6), (0.7, 0.9))
    assert (ssd.name, ssd.runs, ssd.iterations) == ("ssd", 1, (20,))
    assert ssd.mean == ssd.low == ssd.high == (0.4,)


def test_folder_of_seeds_selects_them_and_each_run_counts_once(tmp_path: Path) -> None:
    first = make_run(tmp_path / "fssd" / "seed-0", {10: 0.5})
    make_run(tmp_path / "fssd" / "seed-1", {10: 0.7})
    (line,) = read_curves([tmp_path / "fssd", first]).lines
    assert (line.runs, line.mean) == (2, (pytest.approx(0.6),))


def test_mean_is_over_all_runs_or_not_at_all(tmp_path: Path) -> None:
    make_run(tmp_path / "a" / "seed-0", {10: 0.2, 20: 0.4, 30: 0.5})
    make_run(tmp_path / "a" / "seed-1", {10: 0.4, 20: None})
    (line,) = read_curves([tmp_path / "a"]).lines
    assert (line.iterations, line.mean, line.left_out) == ((10,), (pytest.approx(0.3),), 2)


def test_runs_without_a_common_iteration(tmp_path: Path) -> None:
    make_run(tmp_path / "a" / "seed-0", {10: 0.2})
    make_run(tmp_path / "a" / "seed-1", {15: 0.4})
    with pytest.raises(ConfigError, match="runs of a were never evaluated at the same iteration"):
        read_curves([tmp_path / "a"])


def test_equal_folder_names_get_different_names(tmp_path: Path) -> None:
    runs = [make_run(tmp_path / data / "fssd", {10: 0.5}) for data in ("voc", "coco")]
    assert [line.name for line in read_curves(runs).lines] == ["voc/fssd", "coco/fssd"]


def test_cut_last_line_is_ignored(tmp_path: Path) -> None:
    run = make_run(tmp_path / "run", {10: 0.5})
    with (run / "log.jsonl").open("a") as log:
        log.write('{"iteration": 20, "evaluation": {"metric": "vo')
    assert list(read_evaluations(run)) == [10]


def test_damaged_line_in_the_middle_is_an_error(tmp_path: Path) -> None:
    run = make_run(tmp_path / "run", {10: 0.5})
    file = run / "log.jsonl"
    file.write_text("{half\n" + file.read_text())
    with pytest.raises(DataError, match=r"log\.jsonl \(line 1\): is not a line of a training log"):
        read_evaluations(run)


def test_repeated_evaluation_counts_as_written_last(tmp_path: Path) -> None:
    run = make_run(tmp_path / "run", {20: 0.5, 10: 0.1})
    with (run / "log.jsonl").open("a") as log:
        log.write(json.dumps({"iteration": 20, "evaluation": report(0.75)}) + "\n")
    (line,) = read_curves([run]).lines
    assert (line.iterations, line.mean) == ((10, 20), (0.1, 0.75))


@pytest.mark.parametrize(("number", "value"), [("map", 0.5), ("small", 0.25), ("cat", 0.5), ("AP50", 0.75)])
def test_number_by_name(number: str, value: float, tmp_path: Path) -> None:
    run = make_run(tmp_path / "run", {10: 0.5}, numbers={"AP50": 0.75})
    assert read_curves([run], number).lines[0].mean == (value,)


def test_a_class_with_the_name_of_a_size(tmp_path: Path) -> None:
    run = make_run(tmp_path / "run", {10: 0.5}, classes={"small": 0.75, "cat": 0.5})
    assert read_curves([run], "small").lines[0].mean == (0.25,)
    assert read_curves([run], "class:small").lines[0].mean == (0.75,)
    assert read_curves([run], "class:cat").lines[0].mean == (0.5,)
    with pytest.raises(ConfigError, match="no number 'class:large'"):
        read_curves([run], "class:large")


def test_number_that_is_not_there(tmp_path: Path) -> None:
    run = make_run(tmp_path / "run", {10: 0.5})
    with pytest.raises(ConfigError, match="no number 'smal'; did you mean 'small'"):
        read_curves([run], "smal")
    with pytest.raises(DataError, match="no evaluation has a value of 'large'"):
        read_curves([run], "large")


def test_folders_without_a_run(tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"has no log\.jsonl; name the folder of a run"):
        read_curves([tmp_path])
    with pytest.raises(DataError, match=r"has no log\.jsonl"):
        read_curves([tmp_path / "missing"])
    (tmp_path / "log.jsonl").write_text('{"iteration": 10, "loss": 3.5}\n')
    with pytest.raises(DataError, match="has no evaluation; wait for the first one, or train with"):
        read_curves([tmp_path])


def test_different_metrics_are_not_mixed(tmp_path: Path) -> None:
    runs = [
        make_run(tmp_path / "a", {10: 0.5}),
        make_run(tmp_path / "b", {10: 0.5}, metric="coco", iou=None),
    ]
    with pytest.raises(ConfigError, match=r"a was measured by integral AP, IoU 0\.50, .*b by COCO.*apart"):
        read_curves(runs)


def test_csv_has_the_numbers(tmp_path: Path) -> None:
    make_run(tmp_path / "a" / "seed-0", {10: 0.25})
    make_run(tmp_path / "a" / "seed-1", {10: 0.75})
    write_csv(tmp_path / "a.csv", read_curves([tmp_path / "a"]))
    with (tmp_path / "a.csv").open(newline="") as stream:
        (row,) = csv.DictReader(stream)
    assert row == {
        "name": "a",
        "number": "map",
        "metric": "voc12",
        "iteration": "10",
        "runs": "2",
        "mean": "0.5",
        "min": "0.25",
        "max": "0.75",
    }


def test_plot_shows_the_numbers_in_percent(tmp_path: Path) -> None:
    pytest.importorskip("matplotlib")
    make_run(tmp_path / "a" / "seed-0", {10: 0.25, 20: 0.5})
    make_run(tmp_path / "a" / "seed-1", {10: 0.75, 20: 0.5})
    make_run(tmp_path / "b", {10: 0.125, 20: 0.25})
    axes = draw_curves(read_curves([tmp_path / "a", tmp_path / "b"]))
    first, second = axes.get_lines()
    assert (list(first.get_xdata()), list(first.get_ydata())) == ([10, 20], [50, 50])
    assert list(second.get_ydata()) == [12.5, 25]
    assert first.get_color() != second.get_color()
    (band,) = axes.collections  # only of the line with two runs
    assert {tuple(corner) for corner in band.get_paths()[0].vertices} == {(10, 25), (10, 75), (20, 50)}
    assert [text.get_text() for text in axes.texts] == ["a", "b"]
    assert (axes.get_xlabel(), axes.get_ylabel()) == ("iterations", "mAP (%)")
    assert axes.get_title(loc="left") == "validation, integral AP, IoU 0.50; mean and range of 2 runs"


def test_names_are_not_read_as_formulas(tmp_path: Path) -> None:
    """matplotlib takes what stands between two dollar signs for one, and fails on this."""
    pytest.importorskip("matplotlib")
    runs = [make_run(tmp_path / name, {10: 0.25, 20: 0.5}, classes={"$_$": 0.5}) for name in ("a$_{$", "b")]
    axes = draw_curves(read_curves(runs, "$_$"))
    axes.figure.draw_without_rendering()
    assert [text.get_text() for text in axes.texts] == ["a$_{$", "b"]

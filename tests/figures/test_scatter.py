"""Speed against accuracy: timing, the paper's table, plot and CSV file."""

from __future__ import annotations

import csv
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch

from fssd.errors import CheckpointError, ConfigError
from fssd.export import write
from fssd.figures.scatter import (
    PAPER_TABLE_3,
    Accuracy,
    Point,
    colour_card,
    detection_speeds,
    draw_scatter,
    machine,
    machines,
    require_one_metric,
    stored_accuracy,
    write_csv,
)
from fssd.inference.detector import Detector
from fssd.runtimes.choose import find_runtime

POINTS = [Point("ours", 20.0, 0.75), Point("other", 25.0, 0.5)]
VOC12 = Accuracy(0.75, "voc12", 0.5)


def test_speed_of_a_model(model_file: Path) -> None:
    detector = Detector.load(model_file, device="cpu")
    (speed,) = detection_speeds([detector], repeats=1)
    assert 0.01 < speed < 10_000


def test_speed_of_an_exported_file(
    detectors: dict[str, Detector],
    traced: Callable[[str], Any],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """It is measured as such a file is used: by its runtime, on the CPU."""
    pytest.importorskip("onnxruntime", reason='needs onnxruntime: pip install "fssd[export]"')
    monkeypatch.setattr(write, "trace", lambda *_: traced("tiny"))
    file = tmp_path / "tiny.onnx"
    write.write_unchecked(detectors["tiny"], file, find_runtime("onnx"))
    exported = Detector.load(file, device="cpu")
    (speed,) = detection_speeds([exported], repeats=1)
    assert 0.01 < speed < 10_000
    threads = machine(torch.device("cpu"))
    assert machines([exported]) == machines([exported, detectors["tiny"]]) == threads


def test_colour_card_is_always_the_same() -> None:
    card = colour_card()
    assert card.shape == (300, 300, 3)
    assert card.dtype == "uint8"
    assert (card == colour_card()).all()
    assert card[0, 0].tolist() == [0, 0, 255]
    assert card[299, 299].tolist() == [255, 255, 0]


def test_stored_accuracy(model_file: Path) -> None:
    detector = Detector.load(model_file, device="cpu")
    with pytest.raises(CheckpointError, match="holds no accuracy; give --data to measure it"):
        stored_accuracy(detector, model_file)
    detector.facts["metrics"] = {"map": None, "metric": "voc12", "iou": 0.5}
    with pytest.raises(CheckpointError, match="holds no accuracy"):
        stored_accuracy(detector, model_file)
    detector.facts["metrics"]["map"] = 0.25
    assert stored_accuracy(detector, model_file) == Accuracy(0.25, "voc12", 0.5)


def test_different_metrics_are_not_mixed() -> None:
    files = [Path("a"), Path("b")]
    require_one_metric(files, [VOC12, Accuracy(0.1, "voc12", 0.5)])
    with pytest.raises(ConfigError, match=r"a was measured by integral AP.*b by COCO.*give --data for all"):
        require_one_metric(files, [VOC12, Accuracy(0.1, "coco", None)])


def test_paper_table_agrees_with_the_text_of_the_paper() -> None:
    # From the text around the table: 78.8 and 80.9 % of FSSD, 82.7 % with COCO, which "exceeds DSOD by 1%
    # and SSD300 by 1.5%"; 65.8 images a second, where SSD takes about 25 % less time on the same GPU.
    ap = {(name, gpu): ap for name, _, gpu, ap in PAPER_TABLE_3}
    fps = {(name, gpu): fps for name, fps, gpu, _ in PAPER_TABLE_3}
    assert len(PAPER_TABLE_3) == 21
    assert ap["FSSD300", "1080Ti"] == 78.8
    assert ap["FSSD512", "1080Ti"] == 80.9
    assert ap["FSSD300*", "1080Ti"] - ap["DSOD300*", "Titan X"] == pytest.approx(1.0)
    assert ap["FSSD300*", "1080Ti"] - ap["SSD300*", "Titan X"] == pytest.approx(1.5)
    assert fps["FSSD300", "1080Ti"] == 65.8
    assert fps["SSD300", "1080Ti"] / fps["FSSD300", "1080Ti"] == pytest.approx(1.25, abs=0.05)


def test_csv_names_the_machine_of_each_point(tmp_path: Path) -> None:
    write_csv(tmp_path / "s.csv", POINTS, VOC12, "CPU, 2 threads", paper=True)
    with (tmp_path / "s.csv").open(newline="") as stream:
        rows = list(csv.DictReader(stream))
    assert rows[0] == {
        "name": "ours",
        "images_per_second": "20.0",
        "map": "0.75",
        "metric": "voc12",
        "machine": "CPU, 2 threads",
        "from": "here",
    }
    assert len(rows) == 2 + 21
    last = rows[-1]  # FSSD512*: 35.7 images/s, 84.5 %
    assert (last["name"], last["machine"], last["from"]) == ("FSSD512*", "1080Ti", "paper")
    assert (float(last["images_per_second"]), float(last["map"])) == (35.7, pytest.approx(0.845))


def test_plot_shows_the_points(tmp_path: Path) -> None:
    pytest.importorskip("matplotlib")
    axes = draw_scatter(POINTS, VOC12, "CPU, 2 threads", paper=False)
    ours, other = axes.get_lines()
    assert (list(ours.get_xdata()), list(ours.get_ydata())) == ([20], [75])
    assert (list(other.get_xdata()), list(other.get_ydata())) == ([25], [50])
    assert [text.get_text() for text in axes.texts] == ["ours", "other"]
    assert (axes.get_xscale(), axes.get_xlim()[0]) == ("linear", 0)
    assert "CPU, 2 threads" in axes.get_title(loc="left")


def test_plot_with_the_paper_behind(tmp_path: Path) -> None:
    pytest.importorskip("matplotlib")
    axes = draw_scatter(POINTS, VOC12, "CPU, 2 threads", paper=True)
    *_, paper = axes.get_lines()
    assert len(paper.get_xdata()) == 21
    assert (paper.get_xdata()[-1], paper.get_ydata()[-1]) == (35.7, 84.5)
    assert axes.get_xscale() == "log"  # 2.4 to 85 images a second
    assert len(axes.texts) == 2 + 21
    assert "Table 3" in axes.get_title(loc="left")

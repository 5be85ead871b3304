"""The page of an evaluation: numbers, pictures, links, and its look in a browser."""

from __future__ import annotations

import re
from dataclasses import replace
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest

pytest.importorskip("matplotlib", reason='plots need matplotlib: pip install "fssd[plot]"')

from fssd.cli import eval as eval_command
from fssd.data.sample import DataSet
from fssd.errors import ConfigError, ImageError
from fssd.evaluation.evaluate import evaluate_detections
from fssd.inference.detections import Detections
from fssd.report.analysis import Tally, analyse
from fssd.report.eval_page import ReportSubject, write_eval_page

CLASSES = ("</td><script>alert(1)</script>", "$x_1$", "cat & 'dog'", "without")
A, B = [10, 10, 60, 60], [70, 20, 110, 80]


@pytest.fixture
def images(tmp_path: Path) -> list[Path]:
    """Four noisy images of 160 x 120, one with a name that is markup."""
    noise = np.random.default_rng(0).integers(0, 255, (4, 120, 160, 3), np.uint8)
    names = ["a.png", '"><img src=x onerror=alert(1)> #50%.png', "c.png", "d.png"]
    files = [tmp_path / "images" / name for name in names]
    files[0].parent.mkdir()
    for file, image in zip(files, noise, strict=True):
        file.write_bytes(cv2.imencode(".png", image)[1].tobytes())
    return files


@pytest.fixture
def data(make_set: Any, images: list[Path]) -> tuple[DataSet, list[Detections]]:
    """Four objects: of the first class one is found and one missed, those of the others are found. The third
    class has a false positive above its correct detection, and one image without objects has a detection.
    """
    rows = [
        ([(0, A), (1, B)], [(0, 0.9, A), (1, 0.6, B)]),
        ([(0, A)], [(2, 0.8, B)]),
        ([(2, A)], [(2, 0.7, A), (2, 0.65, [14, 14, 64, 64])]),
        ([], [(0, 0.3, B)]),
    ]
    return make_set(rows, CLASSES, paths=images)  # type: ignore[no-any-return]


def write(folder: Path, data: tuple[DataSet, list[Detections]], metric: Any = "voc12") -> Path:
    dataset, found = data
    subject = ReportSubject("model", Path("a & <b>"), "val")
    return write_eval_page(
        folder / "report", subject, dataset, found, evaluate_detections(dataset, found, metric)
    )


def test_page(data: tuple[DataSet, list[Detections]], tmp_path: Path, read_page: Any) -> None:
    page = read_page(write(tmp_path, data))
    assert "a & <b>, split val: 4 images, 4 objects" in page.text
    # AP: 1/2, 1 and 1/2 (a false positive of the third class scores more than its correct detection).
    assert "66.7 %" in page.text
    assert page.text.count(CLASSES[0]) > 3
    # One image with mistakes, its missed object, and the false positive that reaches the best threshold.
    assert page.linked_files() == [data[0].records[1].path.resolve()] * 3
    assert [picture.shape[:2] for picture in page.pictures()] == [(120, 160), (250, 250), (250, 250)]
    assert len(page.source) < 1_000_000


def test_classes_that_the_model_does_not_know(
    data: tuple[DataSet, list[Detections]], tmp_path: Path, read_page: Any
) -> None:
    dataset, found = data
    names = (*CLASSES[:2], "unknown & <here>")
    page = read_page(write(tmp_path, (replace(dataset, classes=names), found)))
    # AP of the first two classes is 1/2 and 1, see above; the third has no detection of its name.
    assert "not known to the model, AP 0: unknown & <here>" in page.text
    assert re.search(r"75\.0.{0,20}mean of the 2 classes that the model knows", page.text, re.S)
    assert "not known to" not in read_page(write(tmp_path, data)).text


def test_numbers_behind_the_page(data: tuple[DataSet, list[Detections]]) -> None:
    dataset, found = data
    analysis = analyse(dataset, found, evaluate_detections(dataset, found, "voc12"))
    assert [one.threshold for one in analysis.best] == pytest.approx(
        [np.float32(0.9), np.float32(0.6), np.float32(0.7), 0.5]
    )
    # At these thresholds: three correct and the false positive at 0.8. The second detection of the third
    # class is below its threshold.
    assert Tally.total(analysis.shown) == (3, 1, 1)
    assert analysis.errors.counts()["background"] == 1
    assert analysis.errors.counts()["missed"] == 1


def test_names_from_right_to_left(make_set: Any, images: list[Path], tmp_path: Path, read_page: Any) -> None:
    name = "\u05d7\u05ea\u05d5\u05dc"
    rows = [([(0, A)], [(0, 0.9, A)]), ([(0, A)], [(0, 0.95, B)])]
    page = read_page(write(tmp_path, make_set(rows, (name,), paths=images[:2])))
    assert f"\u2068{name}\u2069, 50 \u00d7 50 px" in page.text  # missed
    assert f"\u2068{name}\u2069 95%: nothing is labelled there" in page.text


def test_coco_numbers(data: tuple[DataSet, list[Detections]], tmp_path: Path, read_page: Any) -> None:
    pytest.importorskip("hotcoco")
    page = read_page(write(tmp_path, data, "coco"))
    assert "COCO's twelve numbers" in page.text
    assert "AR100" in page.text


def test_nothing_found(data: tuple[DataSet, list[Detections]], tmp_path: Path, read_page: Any) -> None:
    dataset, found = data
    empty = [Detections(f.boxes[:0], f.scores[:0], f.labels[:0], f.classes) for f in found]
    page = read_page(write(tmp_path, (dataset, empty)))
    assert "No class has a correct detection." in page.text
    assert "nothing was detected in this image" in page.text
    assert "None." in page.text
    assert "\u2013 %" not in page.text  # correct detections of none


def test_an_image_that_no_longer_exists(data: tuple[DataSet, list[Detections]], tmp_path: Path) -> None:
    data[0].records[1].path.unlink()
    with pytest.raises(ImageError, match=r"onerror"):
        write(tmp_path, data)


def test_in_a_browser(data: tuple[DataSet, list[Detections]], tmp_path: Path, look: Any) -> None:
    look(write(tmp_path, data), tmp_path)


def test_command(
    model_file: Path, scenes: Path, tmp_path: Path, read_page: Any, capsys: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / "new" / "report"
    arguments = ["--data", scenes, "--report", out, "--workers", 0, "--device", "cpu"]
    assert eval_command.run([str(model_file), *map(str, arguments)]) == 0
    assert f"report in {out / 'index.html'}" in capsys.readouterr().out
    page = read_page(out / "index.html")
    assert "untrained" in page.text
    assert page.pictures()


def test_command_without_matplotlib(
    model_file: Path, scenes: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(__import__("sys").modules, "matplotlib", None)
    with pytest.raises(ConfigError, match="plots need matplotlib"):
        eval_command.run([str(model_file), "--data", str(scenes), "--report", str(tmp_path / "report")])
    assert not (tmp_path / "report").exists()

"""The page of two models: differences in total and image by image."""

from __future__ import annotations

import re
from dataclasses import replace
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest
import torch

pytest.importorskip("matplotlib", reason='plots need matplotlib: pip install "fssd[plot]"')

from fssd.cli import compare as compare_command
from fssd.errors import ConfigError
from fssd.evaluation.bootstrap import Difference
from fssd.model.build import build_model
from fssd.report.compare_page import interval, verdict, write_compare_page
from fssd.report.eval_page import ReportSubject
from fssd.weights.checkpoint import save_model

A, B = [10, 10, 60, 60], [70, 20, 110, 80]
NAMES = ("first <i>", "second & 'third'")
NAN = float("nan")


@pytest.fixture
def page(make_set: Any, tmp_path: Path, read_page: Any) -> Any:
    """Both find the cats of images three and four, A that of image two, B that of image one. A has a false
    positive in image three.
    """
    files = [tmp_path / f"{name}.png" for name in ("gained", "lost", "wrong", "same")]
    for file, image in zip(
        files, np.random.default_rng(0).integers(0, 255, (4, 90, 120, 3), np.uint8), strict=True
    ):
        cv2.imwrite(str(file), image)
    rows = [[(0, A)], [(0, A)], [(0, A)], [(0, A), (1, B)]]
    of_a = [[], [(0, 0.9, A)], [(0, 0.95, A), (0, 0.8, B)], [(0, 0.7, A)]]
    of_b = [[(0, 0.9, A)], [], [(0, 0.95, A)], [(0, 0.7, A)]]
    dataset, first = make_set(list(zip(rows, of_a, strict=True)), paths=files)
    _, second = make_set(list(zip(rows, of_b, strict=True)), paths=files)
    subject = ReportSubject("unused", Path("cats"), None)
    file, difference = write_compare_page(
        tmp_path / "page", subject, NAMES, dataset, (first, second), "voc12", resamples=200
    )
    # A: correct, correct, false, correct of four cats: precision 1 up to recall 1/2 and 3/4 up to 3/4, so AP
    # 11/16. B: three correct, AP 3/4. Neither finds the dog, so the mean has half of the difference.
    assert difference.value == pytest.approx((12 / 16 - 11 / 16) / 2)
    return read_page(file)


def table(page: Any, label: str) -> dict[str, list[str]]:
    """The rows of a table: the first cell and the others."""
    source = page.source.split(f'aria-label="{label}"')[1].split("</table>")[0]
    rows = [re.findall(r"<t[hd][^>]*>(.*?)</t[hd]>", row) for row in source.split("<tr")[2:]]
    return {row[0]: row[1:] for row in rows}


def test_page(page: Any) -> None:
    assert "A: first <i>" in page.text
    assert "B: second & 'third'" in page.text
    assert "cats: 4 images, 5 objects" in page.text
    difference = table(page, "Difference by class")
    assert difference["cat"][:4] == ["4", "68.8", "75.0", "+6.2"]
    assert difference["dog"][:4] == ["1", "0.0", "0.0", "0.0"]
    assert difference["mean AP"][:4] == ["5", "34.4", "37.5", "+3.1"]
    assert difference["large objects"] == ["", "–", "–", "–", "", ""]  # noqa: RUF001


def test_objects_and_mistakes(page: Any) -> None:
    found = table(page, "Objects found by each model")
    assert found["cat"] == ["2", "1", "1", "0"]
    assert found["dog"] == ["0", "0", "0", "1"]
    assert found["all"] == ["2", "1", "1", "1"]
    mistakes = table(page, "Mistakes by kind")
    assert mistakes["background"][:2] == ["1", "0"]
    assert mistakes["missed"][:2] == ["2", "2"]


def test_gains_losses_and_images(page: Any) -> None:
    captions = re.findall(r"<figcaption>(.*?)</figcaption>", page.source)
    gained = [text for text in captions if text.startswith(("gained", "wrong"))]
    assert gained[0] == (
        "gained.png: A 0 correct, 0 false positives, 1 missed; B 1 correct, 0 false positives, 0 missed"
    )
    assert gained[1].startswith("wrong.png: A 1 correct, 1 false positive, 0 missed")
    (lost,) = [text for text in captions if text.startswith("lost")]
    assert lost.endswith("B 0 correct, 0 false positives, 1 missed")
    assert not [text for text in captions if text.startswith("same")]
    assert len(page.pictures()) == 2 * 3
    images = table(page, "Image by image")
    assert len(images) == 3
    cells = next(cells for link, cells in images.items() if "wrong.png" in link)
    assert cells == ["1", "1", "1", "0", "0", "0", "+33.3"]
    assert "3 images on which the models differ" in page.text
    assert "on 1 image the counts are equal" in page.text


def test_in_a_browser(page: Any, tmp_path: Path, look: Any) -> None:
    look(page.file, tmp_path)


@pytest.mark.parametrize(
    ("low", "high", "text", "shown"),
    [
        (0.01, 0.03, "B is better", "+1.0 to +3.0"),
        (-0.03, -0.01, "A is better", "\u22123.0 to \u22121.0"),
        (-0.01, 0.0004, "may be chance", "\u22121.0 to 0.0"),
        (0.0, 0.0, "may be chance", "0.0 to 0.0"),
        (NAN, NAN, "unknown: there is no object to find", "\u2013"),
    ],
)
def test_meaning_of_an_interval(low: float, high: float, text: str, shown: str) -> None:
    difference = Difference(0.0, low, high, 0.5)
    assert verdict(difference) == text
    assert interval(difference) == shown


def test_command(
    model_file: Path, scenes: Path, tmp_path: Path, read_page: Any, capsys: pytest.CaptureFixture[str]
) -> None:
    with torch.random.fork_rng():
        torch.manual_seed(1)
        network = build_model("ssd300-lite", 2)
    other = tmp_path / "other.safetensors"
    save_model(other, network.state_dict(), network, ("seven", "tree"), {})
    out = tmp_path / "page"
    arguments = [model_file, other, "--data", scenes, "--report", out, "--draws", 20, "--workers", 0]
    assert compare_command.run([*map(str, arguments), "--device", "cpu"]) == 0
    printed = capsys.readouterr().out
    assert re.search(r"B minus A: [+-]\d+\.\d points of mAP, 95 % interval ", printed)
    assert f"report in {out / 'index.html'}" in printed
    assert "untrained against other" in read_page(out / "index.html").text


def test_models_are_compared_on_the_classes_that_both_know(
    make_set: Any, tmp_path: Path, read_page: Any
) -> None:
    file = tmp_path / "image.png"
    cv2.imwrite(str(file), np.full((90, 120, 3), 90, np.uint8))
    rows, perfect = [(0, A), (1, B)], [(0, 0.9, A), (1, 0.9, B)]
    dataset, first = make_set([(rows, perfect)], paths=[file])
    lacking = [
        replace(
            found, boxes=found.boxes[:1], scores=found.scores[:1], labels=found.labels[:1], classes=("cat",)
        )
        for found in first
    ]
    subject = ReportSubject("unused", Path("cats"), None)
    written, difference = write_compare_page(
        tmp_path / "page", subject, NAMES, dataset, (first, lacking), "voc12", resamples=20
    )
    assert (difference.value, verdict(difference)) == (0, "may be chance")
    page = read_page(written)
    assert "compared on the 1 class that both know; left out, unknown to B: 'dog'" in page.text
    assert set(table(page, "Difference by class")) >= {"cat"}
    assert "dog" not in table(page, "Difference by class")


def test_command_says_which_classes_are_compared(
    model_file: Path, scenes: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    network = build_model("fssd300-lite", 2)
    other = tmp_path / "other.safetensors"
    save_model(other, network.state_dict(), network, ("seven", "tree"), {})
    arguments = [model_file, other, "--data", scenes, "--report", tmp_path / "page", "--draws", 20]
    assert compare_command.run([*map(str, arguments), "--workers", "0", "--split", "none"]) == 0
    assert (
        "compared on the 1 class that both know; left out, unknown to B: 'eight', 'five'"
        in capsys.readouterr().out
    )


def test_outputs_are_refused_before_a_model_is_loaded(model_file: Path, scenes: Path, tmp_path: Path) -> None:
    other = tmp_path / "other.safetensors"
    other.touch()
    both = [str(model_file), str(other)]
    (tmp_path / "page/index.html").mkdir(parents=True)
    with pytest.raises(ConfigError, match=r"index\.html: is a folder"):
        compare_command.run([*both, "--data", str(scenes), "--report", str(tmp_path / "page")])
    (tmp_path / "a.png").mkdir()
    picture = str(next((scenes / "JPEGImages").iterdir()))
    with pytest.raises(ConfigError, match=r"a\.png: is a folder"):
        compare_command.run([*both, picture, "--out", str(tmp_path / "a.png")])


def test_mistakes(model_file: Path, tmp_path: Path) -> None:
    other = tmp_path / "other.safetensors"
    other.touch()
    both = [str(model_file), str(other)]
    with pytest.raises(ConfigError, match="give --data DATA and --report DIR"):
        compare_command.run([*both, "--report", str(tmp_path / "page")])
    with pytest.raises(ConfigError, match="give --data DATA and --report DIR"):
        compare_command.run([*both, "--data", str(tmp_path)])
    with pytest.raises(ConfigError, match="leave out the others"):
        compare_command.run([*both, "a.jpg", "--data", str(tmp_path), "--report", str(tmp_path / "page")])
    with pytest.raises(ConfigError, match="draws is 0"):
        compare_command.run([*both, "--draws", "0"])
    assert not (tmp_path / "page").exists()

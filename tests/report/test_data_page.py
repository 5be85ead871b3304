"""The page of a data set: counts, boxes, samples, duplicates, findings; hostile names."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest
import torch

pytest.importorskip("matplotlib", reason='plots need matplotlib: pip install "fssd[plot]"')

from fssd.cli import check as check_command
from fssd.cli.main import main
from fssd.data.check import check_data
from fssd.errors import ConfigError
from fssd.model.build import build_model
from fssd.report import data_page
from fssd.report.data_page import Survey, write_data_page

BAD = "<script>alert(1)</script>"
OBJECT = (
    "<object><name>{name}</name><bndbox><xmin>{0}</xmin><ymin>{1}</ymin><xmax>{2}</xmax><ymax>{3}</ymax>"
    "</bndbox></object>"
)


def add(root: Path, split: str, name: str, seed: int, *boxes: tuple[str, list[int]]) -> None:
    """An image of 200 x 100 in a VOC folder, of blurred noise; equal seeds make equal pictures."""
    for folder in ("JPEGImages", "Annotations", "ImageSets/Main"):
        (root / folder).mkdir(parents=True, exist_ok=True)
    noise = np.random.default_rng(seed).integers(0, 255, (8, 16, 3), np.uint8)
    picture = cv2.resize(noise, (200, 100), interpolation=cv2.INTER_CUBIC)
    quality = [cv2.IMWRITE_JPEG_QUALITY, 80 + len(name) % 10]
    (root / "JPEGImages" / f"{name}.jpg").write_bytes(cv2.imencode(".jpg", picture, quality)[1].tobytes())
    objects = "".join(OBJECT.format(*box, name=kind.replace("<", "&lt;")) for kind, box in boxes)
    text = f"<annotation><size><width>200</width><height>100</height></size>{objects}</annotation>"
    (root / "Annotations" / f"{name}.xml").write_text(text)
    with (root / f"ImageSets/Main/{split}.txt").open("a") as lines:
        lines.write(f"{name}\n")


@pytest.fixture
def data(tmp_path: Path) -> Path:
    """Five images in two splits: a pair of near-duplicates, one with a box without area, one background."""
    root = tmp_path / "data & <b>"
    add(root, "train", "one", 1, (BAD, [20, 10, 60, 30]), ("dog", [100, 20, 102, 22]))
    add(root, "train", "two", 2, ("dog", [0, 0, 200, 100]))
    add(root, "train", "faulty", 3, ("dog", [50, 50, 50, 90]))
    add(root, "val", "one-again", 1, ("dog", [20, 10, 60, 30]))
    add(root, "val", "empty", 4)
    return root


def page_of(data: Path, folder: Path, decode: bool = True, **options: Any) -> Path:
    survey = Survey()
    report = check_data(data, decode=decode, visit=survey.visit)
    with torch.device("meta"):  # no weights are needed
        network = build_model("ssd300-vgg16", 1, **options)
    return write_data_page(folder, report, survey, network)[0]


def test_page(data: Path, tmp_path: Path, read_page: Any) -> None:
    page = read_page(page_of(data, tmp_path / "page"))
    assert "data & <b>" in page.text
    assert BAD in page.text
    assert "has xmax <= xmin" in page.text
    assert "train: one.jpg; val: one-again.jpg; correlation " in page.text
    # In the input of 300 x 300 the box of 2 x 2 px is 3 x 6: no prior of 30 px or more comes near.
    assert "dog, 3 × 6 px of the input, best overlap 0.0" in page.text  # noqa: RUF001
    # One misfit, two samples of train and two of val, one pair.
    assert len(page.pictures()) == 1 + 4 + 2
    assert {file.parent for file in page.linked_files()} == {data / "JPEGImages"}
    assert all(file.exists() for file in page.linked_files())


def test_numbers_of_boxes(data: Path, tmp_path: Path, read_page: Any) -> None:
    source = read_page(page_of(data, tmp_path / "page")).source
    table = source.split('aria-label="Boxes matched, by side, px of the input"')[1].split("</table>")[0]
    rows = [row.split("</tr>")[0] for row in table.split("<tr>")[2:]]
    # By the side of a square of equal area: 3 x 6 is 4.2; 60 x 60 twice; 300 x 300.
    counts = [int(row.split('<td class="n">')[1].split("<")[0]) for row in rows]
    assert counts == [1, 0, 0, 2, 0, 0, 1]
    assert ">0.0<" in rows[0]
    assert ">100.0<" in rows[6]


@pytest.mark.parametrize(("size", "has"), [(300, False), (1024, True)])
def test_plots_are_as_wide_as_the_input(
    data: Path, tmp_path: Path, read_page: Any, size: int, has: bool
) -> None:
    source = read_page(page_of(data, tmp_path / "page", size=[size])).source
    plots = source.split("<svg")
    assert [">1024<" in plots[1], ">1024<" in plots[3]] == [has, has]
    assert ">512<" in plots[1]


def test_without_decoding(data: Path, tmp_path: Path, read_page: Any) -> None:
    page = read_page(page_of(data, tmp_path / "page", decode=False))
    assert "Not searched: the images were not decoded." in page.text
    assert len(page.pictures()) == 1 + 4


def test_many_boxes_are_sampled(
    data: Path, tmp_path: Path, read_page: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(data_page, "BOXES", 3)
    assert "3 of 4 boxes, sampled at random" in read_page(page_of(data, tmp_path / "page")).text


def test_in_a_browser(data: Path, tmp_path: Path, look: Any) -> None:
    look(page_of(data, tmp_path / "page"), tmp_path)


def test_command(data: Path, tmp_path: Path, read_page: Any, capsys: pytest.CaptureFixture[str]) -> None:
    out = tmp_path / "new" / "page"
    arguments = [str(data), "--report", str(out), "--model", "fssd512-vgg16", "--json", "-"]
    assert main(["check", *arguments]) == 1
    captured = capsys.readouterr()
    assert json.loads(captured.out)["errors"] == 1
    assert f"report in {out / 'index.html'}; near-duplicates across splits: 1" in captured.err
    assert "input of fssd512-vgg16, 512" in read_page(out / "index.html").text


def test_command_advises_a_larger_input(data: Path, capsys: pytest.CaptureFixture[str]) -> None:
    # One box of four has 2 x 2 px in 200 x 100: 3 x 6 in the input, as large as a square of 4.2 px.
    check_command.run([str(data), "--labels-only"])
    told = capsys.readouterr().err
    assert "25% of the boxes are under 8 px in the input of 300 x 300 px" in told
    assert "--size 512, or --tiles auto, would help" in told
    check_command.run([str(data), "--labels-only", "--size", "1024"])  # where it has 10 x 20 px
    assert "under 8 px" not in capsys.readouterr().err


def test_command_with_an_unknown_model(data: Path, tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="did you mean 'fssd300-lite'"):
        check_command.run([str(data), "--report", str(tmp_path / "page"), "--model", "fssd300-light"])
    assert not (tmp_path / "page").exists()


def test_nothing_usable(tmp_path: Path, read_page: Any) -> None:
    add(tmp_path / "data", "train", "faulty", 3, ("dog", [50, 50, 50, 90]))
    page = read_page(page_of(tmp_path / "data", tmp_path / "page"))
    assert "There is no box." in page.text

"""`fssd label`: drafts of a real model, exit codes, and what is refused before the model is loaded."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest
from PIL import Image

from fssd.cli.main import main


@pytest.fixture
def shots(scenes: Path, tmp_path: Path) -> Path:
    (tmp_path / "shots").mkdir()
    for number in (0, 1):
        shutil.copy(scenes / "JPEGImages" / f"val_{number:05d}.jpg", tmp_path / "shots" / f"{number}.jpg")
    return tmp_path / "shots"


def test_label(model_file: Path, shots: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    flags = ["--to", "label-studio", "--out", str(tmp_path / "out"), "--score", "0.05"]
    assert main(["label", str(model_file), str(shots), *flags]) == 0
    assert capsys.readouterr().out.splitlines()[-1].startswith("2 of 2 inputs done, ")
    tasks = json.loads((tmp_path / "out" / "tasks.json").read_text())
    assert {task["predictions"][0]["model_version"] for task in tasks} == {model_file.as_posix()}
    regions = [region for task in tasks for region in task["predictions"][0]["result"]]
    assert regions and all(region["score"] > 0.05 for region in regions)


def test_unreadable_images_and_videos(
    model_file: Path, shots: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (shots / "bad.jpg").write_text("bad")
    (shots / "film.mp4").write_text("film")
    flags = ["--to", "yolo", "--out", str(tmp_path / "out")]
    assert main(["label", str(model_file), str(shots), *flags]) == 1
    printed = capsys.readouterr()
    assert "bad.jpg: is no image" in printed.err
    assert "film.mp4: is a video" in printed.err
    assert "2 of 4 inputs done" in printed.out
    assert len(list((tmp_path / "out" / "labels").rglob("*.txt"))) == 2


@pytest.mark.parametrize("verb", ["label", "pick"])
def test_an_image_of_too_many_tiles_is_named(
    verb: str, model_file: Path, shots: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    Image.new("RGB", (400, 300)).save(shots / "large.png")
    flags = ["--to", "yolo", "--out", str(tmp_path / "out")] if verb == "label" else ["--count", "2"]
    tiles = ["--tiles", "200", "--most-tiles", "5"]  # 6 tiles of the large one, less of the others
    assert main([verb, str(model_file), str(shots), *flags, *tiles]) == 1
    printed = capsys.readouterr()
    assert f"error: {shots / 'large.png'}: is 400 x 300 px, which makes" in printed.err
    if verb == "label":
        assert "2 of 3 inputs done" in printed.out
    else:
        assert len(printed.out.splitlines()) == 2


def test_refused_first(shots: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["label", "no-model", str(shots), "--to", "voc", "--out", str(shots)]) == 2
    assert "exists already and is kept" in capsys.readouterr().err
    assert main(["label", "no-model", str(shots), "--to", "vok", "--out", str(tmp_path / "out")]) == 2
    assert "did you mean 'voc'?" in capsys.readouterr().err

"""`fssd eval --keep-tiles`: the tiles of a measurement become those of the model."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest

from fssd.cli.main import main
from fssd.data.tiles import Tiles
from fssd.evaluation.class_scores import write_class_scores
from fssd.inference.detector import Detector


@pytest.fixture
def own(model_file: Path, tmp_path: Path) -> Path:
    file = tmp_path / "own.safetensors"
    shutil.copy(model_file, file)
    return file


def keep(own: Path, scenes: Path, *flags: str) -> int:
    data = ["--data", str(scenes), "--split", "val", "--workers", "0"]
    return main(["eval", str(own), *data, "--keep-tiles", *flags])


def test_they_are_used_from_then_on_and_can_be_taken_out(
    own: Path, scenes: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert keep(own, scenes, "--tiles", "200", "--overlap", "0.5") == 0
    assert f"tiles kept in {own}: tiles of 200 px" in capsys.readouterr().out.replace("\n", "")
    assert Detector.load(own, device="cpu").tiles == Tiles(200, 0.5)
    assert keep(own, scenes, "--tiles", "none") == 0
    assert f"tiles kept in {own}: none" in capsys.readouterr().out.replace("\n", "")
    assert Detector.load(own, device="cpu").tiles is None


def test_thresholds_that_were_chosen_without_them_are_named(
    own: Path, scenes: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    write_class_scores(own, {Detector.load(own, device="cpu").classes[0]: 0.3})
    told = (
        f"note: {own}: its thresholds were chosen for other tiles; choose them again with --keep-thresholds"
    )
    assert keep(own, scenes, "--tiles", "200") == 0
    assert told in capsys.readouterr().err
    assert keep(own, scenes, "--tiles", "200") == 0
    assert keep(own, scenes, "--tiles", "180", "--keep-thresholds") == 0
    assert "thresholds were chosen" not in capsys.readouterr().err

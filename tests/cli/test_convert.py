"""`fssd convert`: what it prints and writes, and one line for every mistake."""

from __future__ import annotations

from pathlib import Path

import pytest

from fssd.cli.main import main
from fssd.data.source import open_data


def test_convert(scenes: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["convert", str(scenes), "--to", "yolo", "--out", str(tmp_path / "out"), "--link"]) == 0
    train, val, *notes, last = capsys.readouterr().out.splitlines()
    objects = sum(len(record.labels) for record in open_data(scenes, "train").records)
    assert train == f"train: 12 images, {objects} objects"
    assert val.startswith("val: 4 images, ")
    assert notes == []
    assert last.startswith(f"written: {tmp_path / 'out'}, ") and last.endswith(" classes")
    picture = next((tmp_path / "out" / "images" / "val").iterdir())
    assert picture.samefile(scenes / "JPEGImages" / picture.name)
    assert main(["check", str(tmp_path / "out")]) == 0


def test_mistakes(scenes: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    out = str(tmp_path / "out")
    assert main(["convert", str(scenes), "--to", "vok", "--out", out]) == 2
    assert capsys.readouterr().err == "error: there is no format 'vok' to write; did you mean 'voc'?\n"
    (tmp_path / "out").write_text("mine")
    assert main(["convert", str(scenes), "--to", "voc", "--out", out]) == 2
    assert capsys.readouterr().err.startswith(f"error: {out}: exists already and is kept")
    assert main(["convert", str(tmp_path / "nothing"), "--to", "voc", "--out", str(tmp_path / "new")]) == 2
    assert "there is no such file or folder" in capsys.readouterr().err
    assert [path.name for path in tmp_path.iterdir()] == ["out"]

"""`fssd pick`: lines with values, files, folders and exit codes."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest

from fssd.cli.main import main


@pytest.fixture
def shots(scenes: Path, tmp_path: Path) -> Path:
    """Four pictures in two folders, two of them of one name, and a copy of one."""
    for number in range(4):
        folder = tmp_path / "shots" / f"f{number // 2}"
        folder.mkdir(parents=True, exist_ok=True)
        shutil.copy(scenes / "JPEGImages" / f"val_{number:05d}.jpg", folder / f"{number % 2}.jpg")
    shutil.copy(tmp_path / "shots" / "f0" / "0.jpg", tmp_path / "shots" / "copy.jpg")
    return tmp_path / "shots"


def test_pick(model_file: Path, shots: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    out, copies = tmp_path / "picks.txt", tmp_path / "copies"
    command = ["pick", str(model_file), str(shots), "--count", "3"]
    assert main([*command, "--out", str(out), "--copy", str(copies)]) == 0
    lines = [line.split("\t") for line in capsys.readouterr().out.splitlines()]
    assert len(lines) == 3 and all(float(value) > 0 for _, value in lines)
    assert out.read_text().splitlines() == [path for path, _ in lines]
    assert sorted(path.read_bytes() for path in copies.rglob("*.jpg")) == sorted(
        Path(path).read_bytes() for path, _ in lines
    )
    assert main(command) == 0
    assert [line.split("\t") for line in capsys.readouterr().out.splitlines()] == lines


def test_more_than_there_are(model_file: Path, shots: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (shots / "bad.jpg").write_text("bad")
    assert main(["pick", str(model_file), str(shots), "--count", "9"]) == 1
    printed = capsys.readouterr()
    assert len(printed.out.splitlines()) == 4  # each once, the copy not at all
    note = "note: 4 of the 9 asked for: there are 5 images; 1 are near-duplicates of those and left out"
    assert note in printed.err.splitlines()
    assert "bad.jpg: is no image" in printed.err


def test_mistakes(model_file: Path, shots: Path, capsys: pytest.CaptureFixture[str]) -> None:
    for flags, message in (
        (["--count", "0"], "count"),
        (["--count", "1", "--copy", str(shots)], "exists already"),
        (["--count", "1", "--out", str(shots / "copy.jpg")], "is an input and would be overwritten"),
        (["--count", "1", "--out", str(model_file)], "is an input and would be overwritten"),
        (["--count", "1", "--link"], "--link is for the folder of --copy; give both"),
    ):
        assert main(["pick", str(model_file), str(shots), *flags]) == 2
        assert message in capsys.readouterr().err

"""What holds for every verb: help, and text that stdout cannot encode."""

from __future__ import annotations

import json
import os
import shutil
import signal
import time
from pathlib import Path
from subprocess import CompletedProcess

import forks
import pytest

from fssd.atomic import atomic_path
from fssd.cli.main import COMMANDS, main
from fssd.zoo.models import PHOTOS


def fssd(*arguments: object, encoding: str = "ascii:strict") -> CompletedProcess[str]:
    return forks.run(forks.FSSD, *arguments, variables={"PYTHONIOENCODING": encoding})


@pytest.mark.parametrize("verb", ["export", "bench", "eval"])
@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_a_verb_that_is_asked_to_end_cleans_up(
    number: int,
    verb: str,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    def run(_: list[str]) -> int:
        with atomic_path(tmp_path / "model.onnx") as file:
            file.write_bytes(b"half")
            os.kill(os.getpid(), number)
            time.sleep(60)
        return 0

    monkeypatch.setattr(f"fssd.cli.{verb}.run", run)
    assert main([verb, "--json"]) == 128 + number
    told = capsys.readouterr()
    assert told.err == "interrupted\n" and json.loads(told.out) == {"error": "interrupted"}
    assert not list(tmp_path.iterdir())


def test_help_is_a_verb_too(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["help"]) == 0
    overview = capsys.readouterr().out
    assert all(f"  {verb} " in overview for verb in COMMANDS)
    assert main(["--help"]) == 0
    assert capsys.readouterr().out == overview
    with pytest.raises(SystemExit) as ended:
        main(["help", "detect"])
    assert ended.value.code in (0, None)
    assert "fssd detect" in capsys.readouterr().out
    assert main(["help", "detekt"]) == 2
    assert "did you mean 'detect'?" in capsys.readouterr().err


@pytest.fixture
def data(tmp_path: Path) -> Path:
    """A YOLO data set of bß.jpg, in Latin-1, which is no UTF-8, with a bad label, and of fö.jpg."""
    folder = tmp_path / "data"
    try:
        for kind in ("images", "labels"):
            (folder / kind).mkdir(parents=True)
        for name, label in ((b"b\xdf", "9"), ("fö".encode(), "0")):
            shutil.copy(PHOTOS[0], os.fsencode(folder / "images") + b"/" + name + b".jpg")
            path = os.fsencode(folder / "labels") + b"/" + name + b".txt"
            Path(os.fsdecode(path)).write_text(f"{label} .5 .5 .4 .4\n")
    except OSError:
        pytest.skip("this file system takes no names that are not UTF-8")
    (folder / "data.yaml").write_text("path: .\ntrain: images\nval: images\nnames: [cat]\n")
    return folder


@pytest.mark.parametrize("encoding", ["ascii:strict", "cp1252:strict", "utf-8:strict"])
def test_check(data: Path, tmp_path: Path, encoding: str) -> None:
    done = fssd("check", data, "--json", tmp_path / "found.json", encoding=encoding)
    assert done.returncode == 1, done.stderr
    printed = fssd("check", data, "--json", "-", encoding=encoding)
    assert printed.stdout.isascii()
    for text in (printed.stdout, (tmp_path / "found.json").read_text(encoding="utf-8")):
        json.loads(text)
        assert r"\udcdf" in text


def test_eval(data: Path, tmp_path: Path) -> None:
    out = tmp_path / "coco.json"
    arguments = ("--split", "val", "--seen-images", "--bad-share", "0.9", "--workers", "0", "--device", "cpu")
    results = ("--coco-results", out, "--json", tmp_path / "eval.json", "--voc-results", tmp_path / "voc")
    done = fssd("eval", "animals", "--data", data, *arguments, *results)
    assert done.returncode == 0, done.stderr
    assert {row["image_id"] for row in json.loads(out.read_text(encoding="utf-8"))} == {"fö.jpg"}


def test_pick_writes_paths_as_they_are(data: Path, tmp_path: Path) -> None:
    shutil.rmtree(data / "labels")
    (data / "images" / "fö.jpg").unlink()
    done = fssd("pick", "animals", data, "--count", "1", "--out", tmp_path / "list.txt", "--device", "cpu")
    assert done.returncode == 0, done.stderr
    assert (tmp_path / "list.txt").read_bytes() == os.fsencode(data / "images") + b"/b\xdf.jpg\n"


@pytest.mark.parametrize(
    ("verb", "name", "kind"),
    [
        ("detect", "photo.jpg", "image"),
        ("detect", "clip.MP4", "video"),
        ("detect", "none.png", "image"),
        ("compare", "photo.jpg", "image"),
        ("eval", "photo.jpg", "image"),
        ("export", "photo.jpg", "image"),
        ("label", "photo.jpg", "image"),
        ("pick", "photo.jpg", "image"),
        ("subset", "photo.jpg", "image"),
    ],
)
def test_a_picture_in_place_of_a_model(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], verb: str, name: str, kind: str
) -> None:
    shutil.copy(PHOTOS[0], tmp_path / "photo.jpg")
    (tmp_path / "clip.MP4").touch()
    more = {
        "label": ["--to", "voc", "--out", str(tmp_path / "out")],
        "pick": ["--count", "1"],
        "export": ["--to", "onnx", "--out", str(tmp_path / "a.onnx")],
        "eval": ["--data", str(tmp_path)],
        "subset": ["--classes", "cat", "--out", str(tmp_path / "out")],
    }.get(verb, [])
    photos = [str(PHOTOS[0])] if verb in ("detect", "label", "pick", "compare") else []
    models = [str(tmp_path / name)] + ["animals"] * (verb == "compare")
    assert main([verb, *models, *photos, *more]) == 2
    assert f"{name}: is of type {kind}, where a model is needed" in capsys.readouterr().err

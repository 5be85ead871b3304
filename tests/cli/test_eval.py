"""`eval`, `detect` and `check` refuse before the first image, name unknown classes, and lose no result."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import cv2
import numpy as np
import pytest
import yaml

from fssd.cli.main import BAD_INPUT, main
from fssd.cli.options import _inside_note
from fssd.data.geometry import Warp
from fssd.data.scenes import CLASSES
from fssd.heads.head import Thresholds
from fssd.inference.detector import Detector
from fssd.runtimes.header import Header
from fssd.runtimes.runner import FileRunner

GOOD = 0


def run(*arguments: object) -> int:
    return main([*map(str, arguments)])


def only_error(capsys: pytest.CaptureFixture[str]) -> str:
    """The only error on stderr, which is its last line."""
    lines = capsys.readouterr().err.splitlines()
    assert [line.startswith("error: ") for line in lines].index(True) == len(lines) - 1, lines
    return lines[-1]


@pytest.fixture
def untouched(monkeypatch: pytest.MonkeyPatch) -> None:
    """Fails the test if anything is detected."""

    def stream(*_: object, **__: object) -> None:
        raise AssertionError("images were detected before the refusal")

    monkeypatch.setattr(Detector, "stream", stream)
    monkeypatch.setattr(Detector, "evaluate_on", stream)


def digits_under_other_names(scenes: Path, root: Path, old: str, new: str) -> Path:
    """The scenes with another id or class name, in labels, pictures and lists."""
    shutil.copytree(scenes, root)
    for file in root.rglob("*.[xt][mx][lt]"):
        file.write_text(file.read_text().replace(old, new))
    for file in [file for file in root.rglob("*") if old in file.name]:
        file.rename(file.with_name(file.name.replace(old, new)))
    return root


@pytest.mark.usefixtures("untouched")
@pytest.mark.parametrize(
    ("old", "new", "message"),
    [
        ("val_00002", "val 00002", "image id 'val 00002' is empty or has a space"),
        ("<name>five</name>", "<name>five?</name>", "class name 'five?' cannot be part of a file name"),
    ],
)
def test_eval_refuses_names_before_it_detects(
    model_file: Path,
    scenes: Path,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    old: str,
    new: str,
    message: str,
) -> None:
    data = digits_under_other_names(scenes, tmp_path / "data", old, new)
    out = ["--voc-results", tmp_path / "voc", "--coco-results", tmp_path / "coco.json"]
    assert run("eval", model_file, "--data", data, "--workers", 0, *out) == BAD_INPUT
    assert message in only_error(capsys)


@pytest.mark.usefixtures("untouched")
@pytest.mark.parametrize(
    ("flags", "message"),
    [
        (["--json", "folder"], "folder: is a folder"),
        (["--coco-results", "folder"], "folder: is a folder"),
        (["--voc-results", "full"], "comp4_det_val_five.txt: is a folder"),
        (["--report", "full"], "index.html: is a folder"),
        (["--json", "a.json", "--coco-results", "./a.json"], "is named for two results"),
        (["--json", "MODEL"], "is an input and would be overwritten"),
        (["--json", "DATA"], "is an input and would be overwritten"),
        (["--coco-results", "LABEL"], "is an input and would be overwritten"),
        (["--json", "/proc/none/a.json"], "/proc/none"),
    ],
)
def test_eval_refuses_outputs_before_it_detects(
    model_file: Path,
    scenes: Path,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
    flags: list[str],
    message: str,
) -> None:
    monkeypatch.chdir(tmp_path)
    for name in ("folder", "full/comp4_det_val_five.txt", "full/index.html"):
        (tmp_path / name).mkdir(parents=True)
    data = tmp_path / "data.yaml"
    data.write_text(yaml.safe_dump({"sources": [{"data": str(scenes)}]}))
    inputs = {"MODEL": model_file, "LABEL": scenes / "Annotations/val_00000.xml", "DATA": data}
    arguments = [inputs.get(flag, flag) for flag in flags]
    assert run("eval", model_file, "--data", data, "--workers", 0, *arguments) == BAD_INPUT
    assert message in only_error(capsys)


def test_eval_writes_the_other_results_if_one_fails(
    model_file: Path,
    scenes: Path,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    def fail(*_: object) -> None:
        raise OSError(28, "No space left on device", "coco.json")

    monkeypatch.setattr("fssd.evaluation.results.write_coco_results", fail)
    names = ["--json", tmp_path / "a.json", "--coco-results", tmp_path / "coco.json"]
    more = ["--voc-results", tmp_path / "voc"]
    assert run("eval", model_file, "--data", scenes, "--workers", 0, *names, *more) == BAD_INPUT
    captured = capsys.readouterr()
    assert "mean of the classes" in captured.out and "No space left on device" in captured.err
    assert json.loads((tmp_path / "a.json").read_text())["images"] == 4
    assert len(list((tmp_path / "voc").iterdir())) == len(CLASSES)


def test_eval_tells_of_classes_that_the_detector_does_not_know(
    model_file: Path, scenes: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    data = digits_under_other_names(scenes, tmp_path / "data", "<name>five</name>", "<name>Five</name>")
    file = tmp_path / "a.json"
    arguments = ["--split", "none", "--workers", 0, "--json", file]
    voc = tmp_path / "voc"
    assert run("eval", model_file, "--data", data, *arguments, "--voc-results", voc) == GOOD
    assert not (voc / "comp4_det_test_Five.txt").exists() and len(list(voc.iterdir())) == len(CLASSES) - 1
    captured = capsys.readouterr()
    assert "note: the detector knows no 'Five' (did you mean 'five'?); its AP is 0\n" in captured.err
    assert "classes that the model knows" in captured.out
    content = json.loads(file.read_text())
    assert content["unknown_classes"] == ["Five"] and content["classes"]["Five"] == 0


def test_eval_of_some_classes_alone(
    model_file: Path, scenes: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    file = tmp_path / "a.json"
    arguments = ["--data", scenes, "--workers", 0, "--json", file, "--voc-results", tmp_path / "voc"]
    arguments += ["--report", tmp_path / "page", "--score", 0.2, "--nms", 0.45, "--flip"]
    assert run("eval", model_file, *arguments, "--classes", "five", "two") == GOOD
    assert "note: measured without 'eight', " in capsys.readouterr().err
    content = json.loads(file.read_text())
    assert set(content["classes"]) == {"five", "two"} and content["unknown_classes"] == []
    assert content["settings"]["classes"] == ["five", "two"]
    page = (tmp_path / "page/index.html").read_text()
    assert "<p>detected with --score 0.2, --classes five two, --flip</p>" in page  # 0.45 is the model's own
    assert sorted(each.name for each in (tmp_path / "voc").iterdir()) == [
        "comp4_det_val_five.txt",
        "comp4_det_val_two.txt",
    ]
    assert run("eval", model_file, *arguments, "--classes", "fife") == BAD_INPUT
    assert "did you mean 'five'?" in only_error(capsys)


@pytest.mark.usefixtures("untouched")
def test_files_of_the_data_set_are_spared(
    model_file: Path, scenes: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    data = tmp_path / "data"
    shutil.copytree(scenes, data)
    split, picture = data / "ImageSets/Main/val.txt", data / "JPEGImages/val_00000.jpg"
    joined = tmp_path / "joined.yaml"
    joined.write_text(yaml.safe_dump({"sources": [{"data": str(data)}]}))
    before = {file: file.read_bytes() for file in (split, picture)}
    for flags, message in (
        (["eval", model_file, "--data", data, "--json", split], "exists already in the data set"),
        (["eval", model_file, "--data", joined, "--json", picture], "is an input and would be overwritten"),
        (["check", data, "--json", split], "exists already in the data set"),
        (["check", joined, "--labels-only", "--json", picture], "is an input and would be overwritten"),
    ):
        assert run(*flags) == BAD_INPUT
        assert message in only_error(capsys)
    assert before == {file: file.read_bytes() for file in (split, picture)}
    assert run("check", data, "--labels-only", "--json", data / "new.json") == GOOD


@pytest.mark.parametrize("verb", ["check", "eval", "compare"])
def test_pages_of_others_are_spared(
    model_file: Path, scenes: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], verb: str
) -> None:
    page = tmp_path / "index.html"
    page.write_text("mine")
    other = tmp_path / "other.safetensors"
    shutil.copy(model_file, other)
    models = {"check": [scenes], "eval": [model_file, "--data", scenes]}
    models["compare"] = [model_file, other, "--data", scenes]
    assert run(verb, *models[verb], "--report", tmp_path) == BAD_INPUT
    assert "index.html: exists already and is no page of fssd" in only_error(capsys)
    assert page.read_text() == "mine"


@pytest.mark.parametrize("flags", [["--json", "folder"], ["--report", "full"]])
def test_check_refuses_outputs_before_it_checks(
    scenes: Path,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
    flags: list[str],
) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr("fssd.data.check.check_data", None)  # calling it would be a TypeError
    for name in ("folder", "full/index.html"):
        (tmp_path / name).mkdir(parents=True)
    assert run("check", scenes, *flags) == BAD_INPUT
    assert "is a folder" in only_error(capsys)


@pytest.fixture
def pictures(tmp_path: Path) -> Path:
    folder = tmp_path / "pictures"
    folder.mkdir()
    for name in ("a", "b"):
        cv2.imwrite(str(folder / f"{name}.png"), np.zeros((40, 50, 3), np.uint8))
    return folder


@pytest.mark.usefixtures("untouched")
@pytest.mark.parametrize("name", ["detections.json", "coco.json", "comp4_det_test_five.txt"])
def test_detect_refuses_outputs_of_all_images_before_it_detects(
    model_file: Path, pictures: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], name: str
) -> None:
    out = tmp_path / "out"
    (out / name).mkdir(parents=True)
    assert run("detect", model_file, pictures, "--out", out, "--voc", "--coco") == BAD_INPUT
    assert f"{name}: is a folder" in only_error(capsys)


@pytest.mark.usefixtures("untouched")
def test_detect_refuses_ids_with_a_tab(
    model_file: Path, pictures: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (pictures / "a.png").rename(pictures / "a\tb.png")
    assert run("detect", model_file, pictures, "--out", tmp_path / "out", "--voc") == BAD_INPUT
    assert "empty or has a space" in only_error(capsys)


def test_detect_writes_the_other_results_if_one_fails(
    model_file: Path,
    pictures: Path,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    def fail(*_: object) -> None:
        raise OSError(28, "No space left on device", "somewhere")

    monkeypatch.setattr("fssd.evaluation.results.write_voc_results", fail)
    out = tmp_path / "out"
    assert run("detect", model_file, pictures, "--out", out, "--voc", "--coco") == BAD_INPUT
    assert "No space left on device" in only_error(capsys)
    assert len(json.loads((out / "detections.json").read_text())) == 2
    assert json.loads((out / "coco.json").read_text()) == []


@pytest.mark.parametrize(
    ("inside", "said"), [(Thresholds(score=0.3, keep=5), "below a score of 0.3 and at most 5"), (None, "")]
)
def test_what_a_file_with_nms_inside_leaves_out_is_told(inside: Thresholds | None, said: str) -> None:
    header = Header(("a",), Warp((300, 300)), None, inside, {})
    note = _inside_note(Detector(FileRunner(lambda _: [], header), ("a",)))
    assert said in note and bool(note) == bool(said)

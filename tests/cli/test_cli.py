"""The command line: what each verb writes, its exit codes, and one line for every mistake."""

from __future__ import annotations

import errno
import json
import os
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest
import torch

from fssd.cli.main import COMMANDS, main
from fssd.data.scenes import CLASSES, make_scenes
from fssd.model.build import build_model
from fssd.weights.checkpoint import save_model

GOOD, FINDING, BAD_INPUT = 0, 1, 2


def run(*arguments: object) -> int:
    """The exit code of `fssd ARGUMENTS`, also where the parser of flags ends it."""
    try:
        return main([str(argument) for argument in arguments])
    except SystemExit as end:
        return int(end.code or 0)


def only_error(capsys: pytest.CaptureFixture[str]) -> str:
    """The last line on stderr, the only one that begins with `error:`; before it, what was found or not."""
    *before, text = capsys.readouterr().err.splitlines()
    assert text.startswith("error: "), text
    known = ("passed over: ", "amp auto: ")
    assert all(" images" in line or line.startswith(known) for line in before), before
    return text


@pytest.fixture(scope="module")
def shots(scenes: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with two pictures, a video of three frames and something else."""
    folder = tmp_path_factory.mktemp("shots")
    for number in (0, 1):
        shutil.copy(scenes / "JPEGImages" / f"val_{number:05d}.jpg", folder / f"shot{number}.jpg")
    image = cv2.imread(str(folder / "shot0.jpg"))
    writer = cv2.VideoWriter(str(folder / "film.mp4"), cv2.VideoWriter.fourcc(*"mp4v"), 10, (300, 300))
    for step in range(3):
        writer.write(np.roll(image, 5 * step, axis=1))
    writer.release()
    (folder / "notes.txt").write_text("not an image")
    return folder


# ---- help and the verb itself


def test_overview(capsys: pytest.CaptureFixture[str]) -> None:
    assert run("--help") == GOOD
    text = capsys.readouterr().out
    assert all(f"  {verb} " in text for verb in COMMANDS)
    assert run() == BAD_INPUT
    assert run("--version") == GOOD
    assert capsys.readouterr().out.splitlines()[-1].startswith("fssd ")


@pytest.mark.parametrize("verb", COMMANDS)
def test_help_of_a_verb(verb: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert run(verb, "--help") == GOOD
    assert f"fssd {verb}" in capsys.readouterr().out


@pytest.mark.parametrize("arguments", [["--help"], ["train", "--help"], ["detect", "--help"], ["trian"]])
def test_help_does_not_wait_for_torch(arguments: list[str]) -> None:
    program = (
        "import sys\nfrom fssd.cli.main import main\n"
        "try:\n    main(sys.argv[1:])\nexcept SystemExit:\n    pass\n"
        "print('HEAVY', sorted({'torch', 'cv2', 'numpy'} & set(sys.modules)))\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", program, *arguments], capture_output=True, text=True, timeout=120, check=True
    )
    assert done.stdout.splitlines()[-1] == "HEAVY []"


def test_unknown_verb_names_the_nearest(capsys: pytest.CaptureFixture[str]) -> None:
    assert run("trian", "--data", "x") == BAD_INPUT
    assert "'trian'; did you mean 'train'?" in only_error(capsys)


def test_as_a_module_in_its_own_process(tmp_path: Path) -> None:
    command = [sys.executable, "-m", "fssd", "eval", str(tmp_path / "none"), "--data", str(tmp_path)]
    done = subprocess.run(command, capture_output=True, text=True, timeout=120, check=False)
    assert done.returncode == BAD_INPUT
    assert done.stderr.startswith("error: ")
    assert done.stderr.count("\n") == 1
    assert done.stdout == ""


# ---- train


def train_arguments(data: Path, out: Path, *more: object) -> list[object]:
    return [
        *("train", "--data", data, "--out", out, "--start", "nothing", "--iterations", 1),
        *("--batch-size", 2, "--workers", 0, "--val-split", "none", *more),
    ]


def test_train(scenes: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    settings = tmp_path / "settings.yaml"
    settings.write_text("batch_size: 3\nlr: 0.004\nsteps: [7]\noptions: {norm: none, priors: voc}\n")
    out = tmp_path / "run"
    more = ("--config", settings, "--set", "norm=batch-affine", "merge=sum")
    assert run(*train_arguments(scenes, out, *more)) == GOOD
    assert capsys.readouterr().out.splitlines()[-1] == f"model: {out / 'final.safetensors'}"

    import yaml

    resolved = yaml.safe_load((out / "config.yaml").read_text())
    assert (resolved["lr"], resolved["steps"]) == (0.004, [7]), "from the file"
    assert (resolved["batch_size"], resolved["val_split"]) == (2, None), "flags override the file"
    assert resolved["options"] == {"norm": "batch-affine", "merge": "sum", "priors": "voc"}
    assert resolved["schedule"] == "multistep", "because there are steps"
    assert resolved["warmup"] == 50, "from the recipe"

    assert run(*train_arguments(scenes, out, *more)) == BAD_INPUT
    assert "--resume" in only_error(capsys)
    assert run(*train_arguments(scenes, out, *more, "--resume", "--workers", 1)) == GOOD
    capsys.readouterr()
    assert run(*train_arguments(scenes, out, *more, "--resume", "--seed", 3)) == BAD_INPUT
    assert "was made with seed 0, not 3" in only_error(capsys)


def wrong_config(tmp_path: Path, text: str) -> Path:
    file = tmp_path / "wrong.yaml"
    file.write_text(text)
    return file


@pytest.mark.parametrize(
    ("more", "message"),
    [
        (["--model", "fssd300-lit"], "did you mean 'fssd300-lite'"),
        (["--data", "no/where"], "no/where: there is no such file or folder"),
        (["--train-split", "vall"], "vall"),
        (["--set", "merge"], "KEY=VALUE"),
        (["--set", "merge=mean"], "there is no merge 'mean'"),
        (["--set", "mergee=sum"], "did you mean 'merge'"),
        (["--set", "norm=[1"], "not a YAML value"),
        (["--set", "ratios=3"], "give a list of numbers for each level"),
        (["--lr", "-1"], "lr is -1.0"),
        (["--epochs", "2"], "not both"),
        (["--config", "no.yaml"], "no.yaml: cannot be read"),
        (["--config", "batch_size: many"], "batch_size cannot be 'many'"),
        (["--config", "learning_rate: 1"], "learning_rate"),
        (["--start", "ssd"], "--weights"),
        (["--start", "backbone", "--weights", "FOLDER"], "no such weights file"),
        (["--start", "ssd", "--weights", "FOLDER"], "FOLDER"),
        (["--model", "fssd300-vgg16", "--priors", "coco", "--start", "backbone"], "--start nothing"),
        (["--device", "tpu9"], "device 'tpu9'"),
        (["--out", "FILE"], "choose another"),
        (["--out", "FILE/run"], "choose another"),
    ],
)
def test_train_mistakes(
    scenes: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], more: list[str], message: str
) -> None:
    (tmp_path / "FILE").write_text("in the way")
    (tmp_path / "FOLDER").mkdir()
    more = [str(tmp_path / part) if part.startswith(("FILE", "FOLDER")) else part for part in more]
    if more[0] == "--config" and ":" in more[1]:
        more[1] = str(wrong_config(tmp_path, more[1]))
    before = set(tmp_path.rglob("*"))
    assert run(*train_arguments(scenes, tmp_path / "run", *more)) == BAD_INPUT
    assert message in only_error(capsys)
    assert set(tmp_path.rglob("*")) == before


def test_train_flags_that_do_not_parse(scenes: Path, tmp_path: Path) -> None:
    assert run(*train_arguments(scenes, tmp_path / "run", "--batch-size", "many")) == BAD_INPUT
    assert run(*train_arguments(scenes, tmp_path / "run", "--no-such-flag", 1)) == BAD_INPUT


@pytest.mark.parametrize("workers", [0, 1])
def test_train_on_a_damaged_image(tmp_path: Path, capsys: pytest.CaptureFixture[str], workers: int) -> None:
    data = make_scenes(tmp_path / "data", train=2, val=0, size=64)
    image = data / "JPEGImages" / "train_00000.jpg"
    image.write_bytes(image.read_bytes()[:-400])
    arguments = train_arguments(data, tmp_path / "run", "--iterations", 2, "--workers", workers)
    assert run(*arguments) == BAD_INPUT
    *_, saved, error = capsys.readouterr().err.splitlines()
    assert saved == "saved at update 0, to go on with --resume"
    assert error.startswith("error: ")
    assert "train_00000.jpg: the JPEG is truncated" in error


def test_train_on_an_empty_split(scenes: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    data = tmp_path / "data"
    shutil.copytree(scenes, data)
    (data / "ImageSets" / "Main" / "train.txt").write_text("")
    assert run(*train_arguments(data, tmp_path / "run")) == BAD_INPUT
    assert "train" in only_error(capsys)


# ---- eval


def test_eval(model_file: Path, scenes: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    report = tmp_path / "report.json"
    arguments = ["eval", model_file, "--data", scenes, "--split", "val", "--metric", "voc07", "--workers", 0]
    results = ["--voc-results", tmp_path / "voc", "--coco-results", tmp_path / "coco.json"]
    assert run(*arguments, "--json", report, *results, "--batch-size", 3) == GOOD
    assert "mean of the classes" in capsys.readouterr().out
    content = json.loads(report.read_text())
    assert (content["metric"], content["images"], content["iou"]) == ("voc07", 4, 0.5)
    assert 0 <= content["map"] <= 1
    assert set(content["classes"]) == set(CLASSES)
    names = {path.name for path in (tmp_path / "voc").iterdir()}
    assert names == {f"comp4_det_val_{name}.txt" for name in CLASSES}
    rows = json.loads((tmp_path / "coco.json").read_text())
    assert {row["image_id"] for row in rows} <= {f"val_{number:05d}" for number in range(4)}
    assert 0 < len(rows) <= 4 * 200
    lines = [line for path in (tmp_path / "voc").iterdir() for line in path.read_text().splitlines()]
    assert len(lines) == len(rows)


def test_eval_settings_reach_the_detector(model_file: Path, scenes: Path, tmp_path: Path) -> None:
    file = tmp_path / "coco.json"
    arguments = ["eval", model_file, "--data", scenes, "--workers", 0, "--coco-results", file]
    assert run(*arguments, "--keep", 2) == GOOD
    assert len(json.loads(file.read_text())) == 4 * 2
    assert run(*arguments, "--score", 1) == GOOD
    assert json.loads(file.read_text()) == []


@pytest.mark.parametrize(
    ("more", "message"),
    [
        (["--data", "no/where"], "no such file or folder"),
        (["--split", "valid"], "splits here: train, val"),
        (["--score", "1.5"], "score is 1.5"),
        (["--nms", "nan"], "nms is nan"),
        (["--iou", "7"], "iou is 7.0"),
        (["--batch-size", "0"], "batch_size is 0"),
        (["--top-k", "-1"], "top_k is -1"),
        (["--keep", "0"], "keep is 0"),
        (["--workers", "-2"], "workers is -2"),
        (["--device", "tpu9"], "device 'tpu9'"),
        (["--json", "FILE/report.json"], "FILE"),
        (["--voc-results", "FILE"], "FILE"),
    ],
)
def test_eval_mistakes(
    model_file: Path,
    scenes: Path,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
    more: list[str],
    message: str,
) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "FILE").write_text("in the way")
    assert run("eval", model_file, "--data", scenes, "--workers", 0, *more) == BAD_INPUT
    assert message in only_error(capsys)


@pytest.mark.parametrize("kind", ["none", "empty folder", "no checkpoint", "training state", "pickle"])
def test_wrong_checkpoint(
    scenes: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], kind: str
) -> None:
    path = tmp_path / "model"
    if kind == "empty folder":
        path.mkdir()
    elif kind == "no checkpoint":
        path.write_bytes(b"\x00" * 64)
    elif kind == "pickle":
        torch.save({"a": torch.zeros(1)}, path)
    elif kind == "training state":
        network = build_model("ssd300-lite", 1)
        save_model(path, {}, network, ("dog",), {"kind": "training"})
    for arguments in (["eval", path, "--data", scenes], ["detect", path, scenes, "--out", tmp_path / "out"]):
        assert run(*arguments) == BAD_INPUT
        assert str(path) in only_error(capsys)


# ---- detect


def detect(model: Path, out: Path, *more: object) -> int:
    return run("detect", model, *more, "--out", out, "--score", 0.05, "--keep", 5)


def rows_of(file: Path) -> list[dict[str, Any]]:
    rows = json.loads(file.read_text(encoding="utf-8"))
    for row in rows:
        for thing in row["objects"]:
            x1, y1, x2, y2 = thing["box"]
            assert 0 <= x1 <= x2 <= row["width"] and 0 <= y1 <= y2 <= row["height"]
            assert thing["name"] in CLASSES
    return list(rows)


def test_detect_in_a_folder(
    model_file: Path, shots: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / "deep" / "out"
    assert detect(model_file, out, shots) == GOOD
    assert "3 of 3 inputs done" in capsys.readouterr().out
    names = {path.name for path in out.iterdir()}
    assert names == {"shot0.jpg", "shot1.jpg", "film.mp4", "film.mp4.json", "detections.json"}
    stills, frames = rows_of(out / "detections.json"), rows_of(out / "film.mp4.json")
    assert [row["image"] for row in stills] == [str(shots / "shot0.jpg"), str(shots / "shot1.jpg")]
    assert [row["image"] for row in frames] == [f"{shots / 'film.mp4'}#{number}" for number in range(3)]
    assert all(len(row["objects"]) == 5 for row in stills + frames)
    capture = cv2.VideoCapture(str(out / "film.mp4"))
    assert capture.get(cv2.CAP_PROP_FRAME_COUNT) == 3
    assert capture.get(cv2.CAP_PROP_FPS) == 10
    drawn, plain = (cv2.imread(str(folder / "shot0.jpg")) for folder in (out, shots))
    assert drawn.shape == plain.shape
    assert np.abs(drawn.astype(int) - plain).max() > 100, "boxes are drawn"


def test_detect_in_files_and_patterns(model_file: Path, shots: Path, tmp_path: Path) -> None:
    arguments = (shots / "*1.jpg", shots / "shot0.jpg", shots / "shot*.jpg", "--no-pictures")
    assert detect(model_file, tmp_path / "out", *arguments) == GOOD
    assert {path.name for path in (tmp_path / "out").iterdir()} == {"detections.json"}
    rows = rows_of(tmp_path / "out" / "detections.json")
    assert [Path(row["image"]).name for row in rows] == ["shot1.jpg", "shot0.jpg"], "each once"


def test_detect_writes_results(model_file: Path, shots: Path, tmp_path: Path) -> None:
    out = tmp_path / "out"
    assert detect(model_file, out, shots / "shot0.jpg", shots / "shot1.jpg", "--voc", "--coco") == GOOD
    rows = rows_of(out / "detections.json")
    coco = json.loads((out / "coco.json").read_text())
    expected = [
        (Path(row["image"]).stem, CLASSES.index(thing["name"]) + 1, thing["score"])
        for row in rows
        for thing in row["objects"]
    ]
    assert [(row["image_id"], row["category_id"], row["score"]) for row in coco] == expected
    lines = [
        (line.split()[0], path.stem.removeprefix("comp4_det_test_"), float(line.split()[1]))
        for path in out.glob("comp4_det_test_*.txt")
        for line in path.read_text().splitlines()
    ]
    assert len(list(out.glob("comp4_det_test_*.txt"))) == len(CLASSES)
    found = sorted((stem, CLASSES.index(name) + 1, round(score, 5)) for stem, name, score in lines)
    assert [row[:2] for row in found] == sorted(row[:2] for row in expected)


def test_unreadable_inputs_are_passed_over(
    model_file: Path, shots: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    folder = tmp_path / "mixed"
    shutil.copytree(shots, folder)
    whole = (folder / "shot0.jpg").read_bytes()
    (folder / "a.jpg").write_bytes(whole[: len(whole) // 2])
    (folder / "shot05.png").write_bytes(b"no picture")
    (folder / "bad.mp4").write_bytes(b"no film")
    assert detect(model_file, tmp_path / "out", folder, "--batch-size", 1) == FINDING
    told = capsys.readouterr()
    assert "3 of 6 inputs done" in told.out
    errors = [line for line in told.err.splitlines() if line.startswith("error: ")]
    assert [name for line in errors for name in ("a.jpg", "shot05.png", "bad.mp4") if name in line] == [
        "a.jpg",
        "shot05.png",
        "bad.mp4",
    ]
    rows = rows_of(tmp_path / "out" / "detections.json")
    assert [Path(row["image"]).name for row in rows] == ["shot0.jpg", "shot1.jpg"]
    names = {path.name for path in (tmp_path / "out").iterdir()}
    assert names == {"shot0.jpg", "shot1.jpg", "film.mp4", "film.mp4.json", "detections.json"}


def test_inputs_are_not_written_over(
    model_file: Path, shots: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    folder = tmp_path / "mine"
    shutil.copytree(shots, folder)
    before = {path.name: path.read_bytes() for path in folder.iterdir()}
    for chosen in (folder, folder / "film.mp4"):
        assert detect(model_file, folder, chosen) == BAD_INPUT
        assert "would be overwritten" in only_error(capsys)
    assert {path.name: path.read_bytes() for path in folder.iterdir()} == before
    assert detect(model_file, folder, folder / "film.mp4", folder / "shot0.jpg", "--no-pictures") == 0
    results = {"detections.json", "film.mp4.json"}
    assert {path.name: path.read_bytes() for path in folder.iterdir() if path.name not in results} == before


@pytest.mark.parametrize(
    ("more", "message"),
    [
        (["none.jpg"], "no such file"),
        (["notes.txt"], "neither an image"),
        (["shot0.jpg", "--score", "2"], "score is 2.0"),
        (["shot0.jpg", "--batch-size", "0"], "batch_size is 0"),
        (["shot0.jpg", "--device", "tpu9"], "device 'tpu9'"),
        (["shot0.jpg", "--out", "notes.txt"], "notes.txt"),
        (["a" * 300 + ".jpg"], "a" * 300),
    ],
)
def test_detect_mistakes(
    model_file: Path,
    shots: Path,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
    more: list[str],
    message: str,
) -> None:
    monkeypatch.chdir(shots)
    assert run("detect", model_file, "--out", tmp_path / "out", *more) == BAD_INPUT
    assert message in only_error(capsys)


# ---- check and scenes


def test_scenes_and_check(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    folder = tmp_path / "scenes"
    assert run("scenes", folder, "--train", 2, "--val", 1, "--size", 64) == GOOD
    assert capsys.readouterr().out == f"scenes: {folder}\n"
    assert run("check", folder, "--json", "-") == GOOD
    assert isinstance(json.loads(capsys.readouterr().out), dict)

    label = folder / "Annotations" / "train_00000.xml"
    label.write_text("<annotation>")
    report = tmp_path / "report.json"
    assert run("check", folder, "--json", report, "--labels-only") == FINDING
    assert "train_00000.xml" in report.read_text()
    assert run("check", folder, "--splits", "val") == GOOD


@pytest.mark.parametrize(
    "arguments",
    [
        ["check", "none"],
        ["check", "scenes", "--json", "full/file/report.json"],
        ["scenes", "full"],
        ["scenes", "new", "--train", "0"],
        ["scenes", "full/file/new"],
    ],
)
def test_check_and_scenes_mistakes(
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
    arguments: list[str],
) -> None:
    monkeypatch.chdir(tmp_path)
    make_scenes("scenes", train=1, val=1, size=64)
    (tmp_path / "full").mkdir()
    (tmp_path / "full" / "file").write_text("in the way")
    assert run(*arguments) == BAD_INPUT
    only_error(capsys)


# ---- a pipe that is closed, a full disk


@pytest.mark.parametrize("arguments", ["--help", "train --help", "--version"])
@pytest.mark.parametrize("unbuffered", ["", "1"])
def test_ends_quietly_when_nobody_reads(arguments: str, unbuffered: str) -> None:
    reader, writer = os.pipe()
    os.close(reader)
    done = subprocess.run(
        [sys.executable, "-m", "fssd", *arguments.split()],
        stdout=writer,
        stderr=subprocess.PIPE,
        env={**os.environ, "PYTHONUNBUFFERED": unbuffered},
        check=False,
    )
    os.close(writer)
    assert (done.returncode, done.stderr) == (141, b"")


def test_a_full_disk_says_what_to_do(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def full(_: list[str]) -> int:
        raise OSError(errno.ENOSPC, "No space left on device", "run/last.safetensors")

    monkeypatch.setattr("fssd.cli.train.run", full)
    assert run("train") == BAD_INPUT
    text = only_error(capsys)
    assert text.startswith("error: run/last.safetensors: No space left on device; free space there")

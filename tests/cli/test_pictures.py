"""`fssd curves`, `scatter` and `compare`: files written, mistakes told."""

from __future__ import annotations

import csv
import json
import subprocess
import sys
from pathlib import Path
from types import ModuleType
from typing import Any

import cv2
import numpy as np
import pytest
import torch

from fssd.cli import compare, curves, scatter
from fssd.errors import CheckpointError, ConfigError, DataError
from fssd.inference.detector import Detector
from fssd.model.build import build_model
from fssd.weights.checkpoint import load_model, save_model


def run(verb: ModuleType, *arguments: object) -> int:
    return int(verb.run([str(argument) for argument in arguments]))


def require_picture(file: Path, width: int, height: int) -> None:
    """A file of that size with something to see."""
    image = cv2.imread(str(file))
    assert image.shape == (height, width, 3)
    assert image.std() > 5


@pytest.fixture
def log(tmp_path: Path) -> Path:
    """The folder of a run with one evaluation."""
    folder = tmp_path / "runs" / "mine"
    folder.mkdir(parents=True)
    evaluation = {"metric": "voc12", "map": 0.5, "iou": 0.5}
    (folder / "log.jsonl").write_text(json.dumps({"iteration": 10, "evaluation": evaluation}) + "\n")
    return folder


@pytest.fixture(scope="module")
def measured(model_file: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run whose best model says how good it is."""
    network, classes, _ = load_model(model_file)
    folder = tmp_path_factory.mktemp("runs") / "measured"
    folder.mkdir()
    metrics = {"map": 0.25, "metric": "voc12", "iou": 0.5}
    save_model(folder / "best.safetensors", network.state_dict(), network, classes, {"metrics": metrics})
    return folder


@pytest.fixture(scope="module")
def other_classes(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """An untrained model that knows two classes."""
    with torch.random.fork_rng():
        torch.manual_seed(1)
        network = build_model("ssd300-lite", 2)
    file = tmp_path_factory.mktemp("model") / "two.safetensors"
    save_model(file, network.state_dict(), network, ("seven", "tree"), {})
    return file


@pytest.fixture
def shots(tmp_path: Path) -> Path:
    """A folder with three noisy images of 80 x 60."""
    folder = tmp_path / "shots"
    folder.mkdir()
    noise = np.random.default_rng(0).integers(0, 255, (3, 60, 80, 3), np.uint8)
    for number, image in enumerate(noise):
        cv2.imwrite(str(folder / f"{number}.png"), image)
    return folder


def test_curves(log: Path, tmp_path: Path) -> None:
    pytest.importorskip("matplotlib")
    out = tmp_path / "new" / "curves.png"
    assert run(curves, log, "--out", out) == 0
    require_picture(out, 900, 450)
    (row,) = csv.DictReader(out.with_suffix(".csv").open())
    assert (row["name"], row["iteration"], row["mean"]) == ("mine", "10", "0.5")
    assert run(curves, log, "--out", out) == 0  # replaces its own files


@pytest.mark.parametrize("verb", [curves, scatter])
def test_tables_of_others_are_spared(verb: ModuleType, log: Path, measured: Path, tmp_path: Path) -> None:
    pytest.importorskip("matplotlib")
    table = tmp_path / "own.csv"
    table.write_text("name,price\nfan,3\n")
    with pytest.raises(ConfigError, match=r"own\.csv: exists already and is no table of such a plot"):
        run(verb, log if verb is curves else measured, "--out", tmp_path / "own.png")
    assert table.read_text() == "name,price\nfan,3\n" and not (tmp_path / "own.png").exists()


def test_curves_tells_what_it_leaves_out(
    log: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    pytest.importorskip("matplotlib")
    text = (log / "log.jsonl").read_text()
    for seed, extra in ((0, ""), (1, text.replace("10", "20"))):
        folder = tmp_path / "a" / f"seed-{seed}"
        folder.mkdir(parents=True)
        (folder / "log.jsonl").write_text(text + extra)
    assert run(curves, tmp_path / "a", "--out", tmp_path / "a.png") == 0
    assert (
        "note: a: left out 1 iterations at which not all of its 2 runs were evaluated"
        in capsys.readouterr().err
    )


@pytest.mark.filterwarnings("error")
def test_curves_of_a_run_that_was_evaluated_at_its_start_alone(log: Path, tmp_path: Path) -> None:
    pytest.importorskip("matplotlib")
    file = log / "log.jsonl"
    file.write_text(file.read_text().replace("10", "0", 1))
    assert run(curves, log, "--out", tmp_path / "a.png") == 0


def test_curves_mistakes(log: Path, tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="there is nothing to plot"):
        run(curves)
    with pytest.raises(ConfigError, match="is not a name of a picture"):
        run(curves, log, "--out", tmp_path / "curves.csv")
    with pytest.raises(DataError, match=r"has no log\.jsonl"):
        run(curves, tmp_path, "--out", tmp_path / "curves.png")


def test_scatter_with_stored_accuracy(measured: Path, tmp_path: Path) -> None:
    pytest.importorskip("matplotlib")
    out = tmp_path / "scatter.png"
    assert run(scatter, measured, "--out", out, "--repeats", 1, "--paper", "--device", "cpu") == 0
    require_picture(out, 900, 600)
    first, *paper = csv.DictReader(out.with_suffix(".csv").open())
    assert (first["name"], first["map"], first["metric"]) == ("measured", "0.25", "voc12")
    assert float(first["images_per_second"]) > 0
    assert len(paper) == 21


def test_scatter_measures_on_data(
    model_file: Path,
    other_classes: Path,
    scenes: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    pytest.importorskip("matplotlib")
    monkeypatch.setattr("fssd.figures.scatter.detection_speeds", lambda detectors, *_: [4.0] * len(detectors))
    out = tmp_path / "scatter.png"
    arguments = ("--data", scenes, "--metric", "voc07", "--workers", 0, "--device", "cpu")
    assert run(scatter, model_file, model_file, "--out", out, *arguments) == 0
    (row,) = csv.DictReader(out.with_suffix(".csv").open())  # a model that is named twice counts once
    assert (row["name"], row["images_per_second"], row["metric"]) == ("untrained", "4.0", "voc07")
    assert 0 <= float(row["map"]) < 0.2  # what chance finds
    assert "knows no" not in capsys.readouterr().err
    assert run(scatter, other_classes, "--out", out, *arguments) == 0
    note = f"note: {other_classes}: the detector knows no 'eight', 'five', "
    assert note in capsys.readouterr().err


def test_scatter_mistakes(model_file: Path, tmp_path: Path) -> None:
    out = tmp_path / "scatter.png"
    with pytest.raises(ConfigError, match="there is nothing to plot"):
        run(scatter, "--out", out)
    with pytest.raises(CheckpointError, match="holds no accuracy; give --data"):
        run(scatter, model_file, "--out", out)
    with pytest.raises(ConfigError, match="repeats is 0"):
        run(scatter, model_file, "--repeats", 0)
    assert not list(tmp_path.iterdir())


def test_scatter_overwrites_nothing_and_finds_mistakes_at_once(
    model_file: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("fssd.cli.scatter._accuracies", None)  # the work that takes long
    data, photo = tmp_path / "boxes.csv", tmp_path / "photo.png"
    data.write_text("")
    photo.write_bytes(b"")
    for given, told in (
        (
            ("--data", data, "--out", tmp_path / "boxes.png"),
            r"boxes\.csv: is an input and would be overwritten",
        ),
        (("--image", photo, "--out", photo), r"photo\.png: is an input and would be overwritten"),
        (("--image", tmp_path / "none.jpg", "--out", tmp_path / "a.png"), r"none\.jpg"),
        (("--out", "/proc/none/a.png"), "/proc/none"),
    ):
        with pytest.raises((ConfigError, DataError), match=told):
            run(scatter, model_file, *given)


def test_compare_models_of_different_classes(
    model_file: Path, other_classes: Path, shots: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / "compare.jpg"
    arguments = ("--out", out, "--columns", 2, "--cell", 100, "--score", 0.3, "--device", "cpu")
    assert run(compare, model_file, other_classes, shots, *arguments) == 0
    # Two blocks of two rows; rows of 24 + 75, gaps of 6, 24 between the blocks, a frame of 6.
    require_picture(out, 2 * 100 + 18, 4 * 99 + 2 * 6 + 24 + 6)
    printed = capsys.readouterr().out
    assert "untrained: " in printed
    assert "two: " in printed
    assert printed.count("objects in 3 images") == 2


def test_compare_looks_at_both_models_before_it_begins(
    model_file: Path, shots: Path, scenes: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A file with NMS inside for other settings, which is the second one."""
    load = Detector.load

    def loaded(path: Path, **settings: Any) -> Detector:
        detector = load(model_file, **settings)
        if path.name == "inside.onnx":
            monkeypatch.setattr(detector, "require_settings", refuse)
        monkeypatch.setattr(detector, "stream", None)
        monkeypatch.setattr(detector, "evaluate_on", None)
        return detector

    def refuse(**_: Any) -> None:
        raise ConfigError("this file has NMS inside")

    monkeypatch.setattr(Detector, "load", loaded)
    inside = tmp_path / "inside.onnx"
    inside.touch()
    for page in ((shots, "--out", tmp_path / "a.png"), ("--data", scenes, "--report", tmp_path / "page")):
        with pytest.raises(ConfigError, match=r"inside\.onnx: this file has NMS inside"):
            run(compare, model_file, inside, *page, "--nms", 0.6, "--device", "cpu")


def test_compare_mistakes(model_file: Path, other_classes: Path, shots: Path, tmp_path: Path) -> None:
    both = (model_file, other_classes)
    with pytest.raises(ConfigError, match="is named twice"):
        run(compare, model_file, model_file, shots)
    with pytest.raises(DataError, match="there are no images"):
        run(compare, *both)
    with pytest.raises(ConfigError, match=r"let --out end in \.png or \.jpg"):
        run(compare, *both, shots, "--out", tmp_path / "a.svg")
    with pytest.raises(ConfigError, match="is an input and would be overwritten"):
        run(compare, *both, shots, "--out", shots / "1.png")
    with pytest.raises(ConfigError, match="score is 50"):
        run(compare, *both, shots, "--score", 50)
    page = ("--data", shots, "--report", tmp_path / "page")
    for given in (("--score", 0.9), ("--columns", 7), ("--out", "a.png")):
        with pytest.raises(ConfigError, match=f"{given[0]} is for a picture; leave it out"):
            run(compare, *both, *page, *given)
    for given in (("--iou", 0.75), ("--draws", 50), ("--metric", "coco"), ("--seen-images",)):
        with pytest.raises(ConfigError, match=f"{given[0]} is for a page; leave it out"):
            run(compare, *both, shots, *given)
    (shots / "film.mp4").write_bytes(b"")
    with pytest.raises(DataError, match=r"film\.mp4: is a video, where images are needed"):
        run(compare, *both, shots, "--out", tmp_path / "a.png")


@pytest.mark.parametrize("verb", ["curves", "scatter", "compare"])
def test_help_does_not_wait_for_heavy_packages(verb: str) -> None:
    program = (
        f"import sys\nfrom fssd.cli.{verb} import run\n"
        "try:\n    run(['--help'])\nexcept SystemExit:\n    pass\n"
        "print('HEAVY', sorted({'torch', 'cv2', 'numpy', 'matplotlib'} & set(sys.modules)))\n"
    )
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    assert done.stdout.splitlines()[-1] == "HEAVY []", done.stdout
    assert f"fssd {verb}" in done.stdout

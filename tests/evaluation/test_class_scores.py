"""The best threshold of each class, kept in a model and used by default."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from fssd.cli.main import BAD_INPUT, main
from fssd.data.sample import DataSet, Record
from fssd.errors import ConfigError
from fssd.evaluation.class_scores import best_class_scores, require_own_model, write_class_scores
from fssd.export import write
from fssd.heads.head import Thresholds
from fssd.inference.detections import Detections
from fssd.inference.detector import Detector
from fssd.runtimes.choose import find_runtime
from fssd.weights.checkpoint import read_model


def test_best_scores_by_hand() -> None:
    """Cat at 0.9 is right, at 0.6 right, at 0.4 wrong: the best F1 keeps two. The dog is never found."""
    boxes = np.array([[0, 0, 10, 10], [50, 50, 70, 70], [20, 0, 30, 10]], np.float32)
    no = np.zeros(3, bool)
    file, labels = Path("a.jpg"), np.array([0, 0, 1])
    dataset = DataSet(("cat", "dog"), (Record("a", file, file, 100, 100, boxes, labels, no, no),))
    places = np.array([*boxes[:2], [80, 80, 90, 90]], np.float32)
    scores = np.array([0.9, 0.6, 0.4], np.float32)
    found = Detections(places, scores, np.zeros(3, np.int64), ("cat", "dog"))
    best = best_class_scores(dataset, [found], 0.5)
    assert list(best) == ["cat"]
    assert best["cat"] == pytest.approx(0.599), "other runtimes may score a little lower"
    assert found.scores[1] > best["cat"], "what reaches the best threshold is kept"
    close = np.array([0.9, 0.6, 0.5998], np.float32)
    best = best_class_scores(dataset, [replace(found, scores=close)], 0.5)
    assert best["cat"] == pytest.approx(0.5999), "half way to what is wrong"
    equal = np.array([0.9, 0.6, np.nextafter(np.float32(0.6), np.float32(0))], np.float32)
    best = best_class_scores(dataset, [replace(found, scores=equal)], 0.5)
    assert equal[2] <= best["cat"] < equal[1]


def test_equal_f1_keeps_the_higher_score_and_the_unseen_keep_none() -> None:
    """F1 is 2 hits / (detections kept + objects). Two cats: 0.9 right 2/3, 0.8 wrong 2/4, 0.7 right 4/5, then
    wrong ones. Three dogs: 0.9 right 2/4, three wrong at 0.8 2/7, 0.7 right 4/8, as good as 0.9 alone. A bird
    is found where there is none, a fish is there and not found."""
    wrong = [200, 200, 210, 210]
    cats, dogs = [[0, 0, 10, 10], [20, 0, 30, 10]], [[0, 50, 9, 59], [20, 50, 29, 59], [40, 50, 49, 59]]
    boxes = np.array([*cats, *dogs, [70, 70, 90, 90]], np.float32)
    names, labels, no = ("cat", "dog", "bird", "fish"), np.array([0, 0, 1, 1, 1, 3]), np.zeros(6, bool)
    file = Path("a.jpg")
    dataset = DataSet(names, (Record("a", file, file, 300, 300, boxes, labels, no, no),))
    rows = [(0, 0.9, cats[0]), (0, 0.8, wrong), (0, 0.7, cats[1]), (0, 0.6, wrong), (0, 0.5, wrong)]
    rows += [(1, 0.9, dogs[0]), *[(1, 0.8, wrong)] * 3, (1, 0.7, dogs[1]), (2, 0.99, wrong)]
    rows.sort(key=lambda row: -row[1])
    found = Detections(
        np.array([box for _, _, box in rows], np.float32),
        np.array([score for _, score, _ in rows], np.float32),
        np.array([label for label, _, _ in rows]),
        names,
    )
    assert best_class_scores(dataset, [found], 0.5) == pytest.approx({"cat": 0.699, "dog": 0.899})


@pytest.mark.parametrize("name", ["onnx", "openvino"])
def test_exported_files_carry_them(
    name: str,
    detectors: dict[str, Detector],
    traced: Callable[[str], Any],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """One with NMS inside has none below its own threshold."""
    for package in ("onnxruntime", name):
        pytest.importorskip(package, reason=f'needs {package}: pip install "fssd[export,openvino]"')
    monkeypatch.setattr(write, "trace", lambda *_: traced("tiny"))
    network, classes = detectors["tiny"].network, detectors["tiny"].classes
    own = Detector(network, classes, {"class_scores": {classes[0]: 0.2, classes[1]: 0.6, "of others": 0.1}})
    assert own.class_scores == {classes[0]: 0.2, classes[1]: 0.6}
    runtime = find_runtime(name)
    kept = []
    for nms in (None, Thresholds(score=0.4)):
        file = tmp_path / f"{nms is None}{runtime.suffix}"
        write.write_unchecked(own, file, runtime, nms=nms)
        made = Detector.load(file, device="cpu")
        kept.append(made.class_scores)
        picture = np.random.default_rng(2).integers(0, 255, (80, 60, 3), dtype=np.uint8)
        limits = {classes[0]: kept[-1][classes[0]], classes[1]: 0.6, classes[2]: 0.5}
        assert made(picture).names == made(picture, score=limits).names
    assert kept == [own.class_scores, {classes[0]: 0.4, classes[1]: 0.6}]


def test_written_and_used(model_file: Path, tmp_path: Path) -> None:
    own = tmp_path / "own.safetensors"
    shutil.copy(model_file, own)
    picture = np.random.default_rng(1).integers(0, 255, (60, 90, 3), dtype=np.uint8)
    every = Detector.load(own, device="cpu")(picture, score=0.05, keep=100_000)
    first = every[0]
    before = read_model(own)[0]
    write_class_scores(own, {first.name: 0.05})
    after = read_model(own)[0]
    assert all(bool((before[name] == after[name]).all()) for name in before)

    detector = Detector.load(own, device="cpu")
    assert detector.class_scores == {first.name: 0.05}
    others = [one for one in every if one.score > (0.05 if one.name == first.name else 0.5)]
    assert list(detector(picture)) == others[:200]
    assert list(detector(picture, score=0.05)) == list(every)[:200]
    assert len(detector(picture, class_scores={}, score=0.99)) == 0
    with pytest.raises(ConfigError, match=r"goes by name is not changed; copy .*animals\.safetensors"):
        require_own_model(Path("animals"), detector)
    with pytest.raises(ConfigError, match="is no PyTorch model"):
        require_own_model(Path("a.json"), None)


def test_by_the_command(
    model_file: Path, scenes: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    own = tmp_path / "own.safetensors"
    shutil.copy(model_file, own)
    arguments = ["eval", str(own), "--data", str(scenes), "--split", "val", "--workers", "0"]
    for flags in (["--agnostic"], ["--score", "0.05"], ["--classes", "eight"], ["--scales", "300"]):
        assert main([*arguments, "--keep-thresholds", *flags]) == BAD_INPUT
        assert f"for detection without {flags[0]}" in capsys.readouterr().err
    assert "class_scores" not in read_model(own)[1]
    assert main([*arguments, "--agnostic", "--flip", "--score", "0.05"]) == 0
    assert main([*arguments, "--keep-thresholds", "--json", str(tmp_path / "numbers.json")]) == 0
    assert f"thresholds kept in {own}" in capsys.readouterr().out.replace("\n", "")
    numbers = json.loads((tmp_path / "numbers.json").read_text())
    assert numbers["class_scores"] == read_model(own)[1]["class_scores"] and "map" in numbers
    assert "class_scores" in read_model(own)[1]
    photo = sorted((scenes / "JPEGImages").iterdir())[0]
    rules = ["--classes", "eight", "zero", "--class-scores", "eight=0.05", "--soft", "gaussian"]
    assert main(["detect", str(own), str(photo), "--out", str(tmp_path / "out"), *rules]) == 0
    (row,) = json.loads((tmp_path / "out" / "detections.json").read_text())
    expected = Detector.load(own, device="cpu")(
        photo, classes=["eight", "zero"], class_scores={"eight": 0.05}, soft="gaussian"
    )
    assert [one["name"] for one in row["objects"]] == expected.names
    for wrong, reason in (("eight", "is not NAME=SCORE"), ("nine!=0.3", "there is no class")):
        command = ["detect", str(own), str(photo), "--out", str(tmp_path / "b"), "--class-scores", wrong]
        assert main(command) == BAD_INPUT
        assert reason in capsys.readouterr().err

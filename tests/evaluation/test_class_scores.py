"""The best threshold of each class, kept in a model and used by default."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import numpy as np
import pytest

from fssd.cli.main import BAD_INPUT, main
from fssd.data.sample import DataSet, Record
from fssd.errors import ConfigError
from fssd.evaluation.class_scores import best_class_scores, require_own_model, write_class_scores
from fssd.inference.detections import Detections
from fssd.inference.detector import Detector
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
    assert best["cat"] == pytest.approx(0.6)
    assert found.scores[1] > best["cat"], "what reaches the best threshold is kept"


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
    with pytest.raises(ConfigError, match="packaged model"):
        require_own_model(Path("animals"), detector)
    with pytest.raises(ConfigError, match="is no PyTorch model"):
        require_own_model(Path("a.json"), None)


def test_by_the_command(
    model_file: Path, scenes: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    own = tmp_path / "own.safetensors"
    shutil.copy(model_file, own)
    arguments = ["eval", str(own), "--data", str(scenes), "--split", "val", "--workers", "0"]
    assert main([*arguments, "--keep-thresholds", "--agnostic", "--flip", "--score", "0.05"]) == 0
    assert f"thresholds kept in {own}" in capsys.readouterr().out.replace("\n", "")
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

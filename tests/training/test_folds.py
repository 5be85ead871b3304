"""Cross-validation and early stopping."""

from __future__ import annotations

import json
import statistics
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from fssd.cli.main import main
from fssd.config.train_config import TrainConfig
from fssd.data.division import read_division
from fssd.errors import ConfigError
from fssd.evaluation.evaluate import Report
from fssd.training import folds, loop
from fssd.training.folds import fold_scores, train_folds
from fssd.training.loop import train
from fssd.weights.checkpoint import read_tensors


@pytest.fixture
def quick(scenes: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> TrainConfig:
    """One update a run; its mAP is the number of images that were measured, in tenths."""

    def judge(dataset: Any, *_: Any) -> Report:
        return Report("voc12", len(dataset) / 10, {}, {}, len(dataset), 9, 0.5)

    monkeypatch.setattr(loop, "evaluate_detections", judge)
    return TrainConfig(
        data=scenes,
        out=tmp_path / "run",
        start="nothing",
        iterations=1,
        batch_size=2,
        workers=0,
        amp="off",
        folds=3,
    )


def test_every_image_is_measured_once(quick: TrainConfig, capsys: pytest.CaptureFixture[str]) -> None:
    results = list(train_folds(quick))
    assert quick.out is not None
    assert [result.out for result in results] == [quick.out / f"fold-{fold}" for fold in (1, 2, 3)]
    divisions = [read_division(result.out) for result in results]
    assert all(division is not None for division in divisions)
    measured = [name for division in divisions if division for name in division.val]
    assert len(measured) == len(set(measured)) == 12
    values = [len(division.val) / 10 for division in divisions if division]
    scores = fold_scores(quick)
    assert scores.folds == pytest.approx(values)
    assert (scores.mean, scores.spread) == pytest.approx((0.4, statistics.stdev(values)))
    assert json.loads((quick.out / "folds.json").read_text())["mean"] == pytest.approx(0.4)


def test_folds_on_the_command_line(scenes: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    out = tmp_path / "cv"
    arguments = ["train", "--data", str(scenes), "--out", str(out), "--folds", "2", "--iterations", "1"]
    arguments += ["--batch-size", "2", "--workers", "0", "--start", "nothing", "--size", "128"]
    assert main(arguments) == 0
    assert "of each fold: " in capsys.readouterr().out.splitlines()[-1]
    assert main(arguments) == 2, "the folder is taken"
    assert main([*arguments, "--resume"]) == 0, "all folds are finished"


def test_a_fold_that_is_not_finished_ends_it(quick: TrainConfig, monkeypatch: pytest.MonkeyPatch) -> None:
    def stopped(config: TrainConfig, **_: Any) -> loop.Result:
        assert config.out is not None
        return loop.Result(config.out, None, None, finished=False)

    monkeypatch.setattr(folds, "train", stopped)
    assert [result.finished for result in train_folds(quick)] == [False]


def test_without_folds(quick: TrainConfig) -> None:
    with pytest.raises(ConfigError, match="--folds"):
        list(train_folds(replace(quick, folds=0)))


def test_patience(quick: TrainConfig, scenes: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Best at the second evaluation; the two after it are no better (one is equal), so the run ends there."""
    values = iter([0.2, 0.5, 0.5, 0.4, 0.9, 0.9])

    def judge(*_: Any) -> Report:
        return Report("voc12", next(values), {}, {}, 4, 9, 0.5)

    monkeypatch.setattr(loop, "evaluate_detections", judge)
    config = replace(quick, folds=0, iterations=6, eval_every=1 / 6, patience=2)  # one update an evaluation
    result = train(config)
    assert (result.finished, result.best) == (True, 0.5)
    assert config.out is not None
    assert read_tensors(config.out / "final.safetensors")[1]["iteration"] == 4
    assert read_tensors(config.out / "best.safetensors")[1]["iteration"] == 2
    assert train(config, resume=True).finished, "it is over, though the updates are not all done"
    assert next(values) == 0.9, "nothing more was measured"


def test_patience_counts_on_after_a_stop(quick: TrainConfig, monkeypatch: pytest.MonkeyPatch) -> None:
    values = iter([0.5, 0.4, 0.4, 0.9])

    def judge(*_: Any) -> Report:
        return Report("voc12", next(values), {}, {}, 4, 9, 0.5)

    monkeypatch.setattr(loop, "evaluate_detections", judge)
    config = replace(quick, folds=0, iterations=6, eval_every=1 / 6, patience=2)
    assert not train(config, minutes=1e-9).finished  # after the first update
    assert train(config, resume=True).best == 0.5
    assert config.out is not None
    assert read_tensors(config.out / "final.safetensors")[1]["iteration"] == 3

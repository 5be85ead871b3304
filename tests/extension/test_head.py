"""A head without priors, in one file: trained, evaluated, resumed and exported as any other."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
import torch

from fssd.cli.main import main
from fssd.config.train_config import TrainConfig
from fssd.data.source import open_data
from fssd.evaluation.evaluate import evaluate_detections
from fssd.export.write import export_model
from fssd.inference.detector import Detector
from fssd.model.build import build_model
from fssd.training.loop import train
from fssd.weights.checkpoint import read_tensors

OPTIONS = {"head": "cell_head:CellHead", "backbone": "own_parts:SmallBackbone", "size": 256}


def config_for(scenes: Path, out: Path) -> TrainConfig:
    return TrainConfig(
        data=scenes,
        out=out,
        options=OPTIONS,
        start="nothing",
        iterations=4,
        batch_size=2,
        eval_every=0.3,
        save_every=1,
        log_every=1,
        workers=1,
        threads=1,
        amp="off",
    )


@pytest.fixture(scope="module")
def run(scenes: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A finished run."""
    with pytest.MonkeyPatch.context() as patch:
        patch.syspath_prepend(str(Path(__file__).parent))
        return train(config_for(scenes, tmp_path_factory.mktemp("run") / "run")).out


def test_it_trains_and_logs_its_own_terms(run: Path) -> None:
    lines = [json.loads(line) for line in (run / "log.jsonl").read_text(encoding="utf-8").splitlines()]
    steps = [line for line in lines if "evaluation" not in line]
    assert len(steps) == 4
    for line in steps:
        assert line["loss"] == pytest.approx(line["loss_score"] + line["loss_box"], rel=1e-4)
        assert "loss_loc" not in line and "positives" not in line
    assert any("evaluation" in line for line in lines)
    assert (run / "loss.png").is_file(), "the plot of whatever terms there are"


def test_it_detects_and_is_evaluated(run: Path, scenes: Path, tmp_path: Path) -> None:
    detector = Detector.load(run)
    data = open_data(scenes, "val")
    found = list(detector.evaluate_on(data))
    assert all(len(one) for one in found)
    for one, record in zip(found, data.records, strict=True):
        assert one.boxes.min() >= 0
        assert (one.boxes[:, 2] <= (record.width or 0)).all() and (
            one.boxes[:, 3] <= (record.height or 0)
        ).all()
    report = evaluate_detections(data, found, "voc12")
    assert np.isfinite(report.map)
    assert main(["eval", str(run), "--data", str(scenes), "--json", str(tmp_path / "report.json")]) == 0
    assert json.loads((tmp_path / "report.json").read_text())["map"] == pytest.approx(report.map)


def test_it_resumes_to_the_same_bytes(run: Path, scenes: Path, tmp_path: Path) -> None:
    config = config_for(scenes, tmp_path / "again")
    while not (result := train(config, resume=True, minutes=0)).finished:
        pass
    ends = [read_tensors(folder / "final.safetensors")[0] for folder in (run, result.out)]
    assert ends[0].keys() == ends[1].keys()
    assert all(torch.equal(ends[0][key], ends[1][key]) for key in ends[0])


def test_it_exports_with_parity_and_opens_again(run: Path, scenes: Path, tmp_path: Path) -> None:
    pytest.importorskip("onnxruntime", reason='needs onnxruntime: pip install "fssd[export]"')
    detector = Detector.load(run)
    done = export_model(detector, tmp_path / "cells.onnx", "onnx")
    assert done.parity is not None and done.parity.detections > 0
    image = open_data(scenes, "val").records[0].path
    settings = {"score": 0.01}
    one, other = detector(image, **settings), Detector.load(tmp_path / "cells.onnx")(image, **settings)
    assert len(one) == len(other) > 0
    np.testing.assert_allclose(one.boxes, other.boxes, atol=0.1)


def test_the_loss_by_hand() -> None:
    network = build_model("fssd300-lite", 2, **OPTIONS)
    head = network.heads
    # 256 px, 16 x 16 cells of 16 px: the centre (40, 24) lies in row 1, column 2.
    made = head.targets(np.array([[24, 8, 56, 40]], np.float32), np.array([1]))
    assert made["classes"].nonzero().flatten().tolist() == [1 * 16 + 2]
    assert made["boxes"][18].tolist() == pytest.approx([24 / 256, 8 / 256, 56 / 256, 40 / 256])
    raw = (torch.zeros(1, 256, 4), torch.zeros(1, 256, 2))
    terms = head.loss(raw, {key: value[None] for key, value in made.items()})
    # Every score is 0.5: 512 times ln 2. Coordinates are 0.5 for .09375, .03125, .21875, .15625: 1.5 in all.
    assert terms["loss_score"].item() == pytest.approx(512 * np.log(2), rel=1e-5)
    assert terms["loss_box"].item() == pytest.approx(1.5, rel=1e-5)

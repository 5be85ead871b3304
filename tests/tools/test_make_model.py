"""Making the packaged files of a run: all of them, of one model, checked and measured."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

import pytest
import torch

import make_model as module
from fssd.config.train_config import TrainConfig, to_values
from fssd.data.scenes import CLASSES
from fssd.inference.detector import Detector
from fssd.model.build import build_model
from fssd.weights.checkpoint import save_model
from fssd.zoo.models import FOLDER
from make_model import Make, make

for package in ("onnx", "onnxscript"):
    pytest.importorskip(package, reason=f'needs {package}: pip install "fssd[export]"')


@pytest.fixture
def run_folder(tmp_path: Path) -> Path:
    """A run that never learned anything."""
    with torch.random.fork_rng():
        torch.manual_seed(0)
        network = build_model("ssd300-lite", len(CLASSES))
    folder = tmp_path / "secret" / "run"
    folder.mkdir(parents=True)
    config = TrainConfig(model="ssd300-lite", data=folder / "data", out=folder, lr=0.0625)
    facts = {"config": to_values(config), "iteration": 3}
    save_model(folder / "best.safetensors", network.state_dict(), network, CLASSES, facts)
    return folder


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A place for the files, with the card that is to be filled."""
    folder = tmp_path / "zoo"
    folder.mkdir()
    (folder / "digits.md").write_text((FOLDER / "animals.md").read_text(encoding="utf-8"), encoding="utf-8")
    return folder


@pytest.fixture
def asked(monkeypatch: pytest.MonkeyPatch) -> list[dict[str, Any]]:
    """What `export_model` is asked for. It takes a minute, and writes no eight-bit file here."""
    seen: list[dict[str, Any]] = []

    def note(detector: Detector, out: Path, to: str, **settings: Any) -> Any:
        seen.append({"detector": detector, "out": out, "to": to, **settings})
        load = Detector.load

        def fake(path: Path, **more: Any) -> Detector:
            return detector if Path(path) == out else load(path, **more)

        monkeypatch.setattr(module.Detector, "load", fake)
        return type("Done", (), {"maps": (0.5, 0.495)})

    monkeypatch.setattr(module, "export_model", note)
    return seen


def test_all_files_of_a_run(
    run_folder: Path,
    folder: Path,
    scenes: Path,
    asked: list[dict[str, Any]],
    capsys: pytest.CaptureFixture[str],
) -> None:
    make(Make(run_folder, scenes, name="digits", folder=folder))
    told = capsys.readouterr().out
    assert re.search(r"\d+ detections in 33 images agree", told)
    assert "mAP 0.5000, in eight bits 0.4950" in told
    assert {file.name for file in folder.iterdir()} == {"digits.safetensors", "digits.json", "digits.md"}

    (call,) = asked
    assert (call["out"], call["to"]) == (folder / "digits-int8.xml", "openvino")
    assert call["trial"].images.shape == (12, 3, 300, 300), "calibrated on the training images"
    assert len(call["trial"].measured) == 4, "judged on the validation images"
    assert "allow_drop" not in call
    assert call["detector"].facts["precision"] == "fp16", "made from the file that is shipped"

    reports = json.loads((folder / "digits.json").read_text())
    assert list(reports) == ["digits", "digits-int8"]
    assert reports["digits"]["images"] == 4
    assert set(reports["digits"]["classes"]) == set(CLASSES)
    card = (folder / "digits.md").read_text(encoding="utf-8")
    assert "| AP in percent | `digits` | `digits-int8` |" in card
    assert "lr: 0.0625" in card and "model: ssd300-lite" in card
    for file in folder.iterdir():
        assert b"secret" not in file.read_bytes(), file.name


def test_the_card_is_filled_again(folder: Path) -> None:
    def report(ap: float) -> dict[str, Any]:
        part = {"classes": {"cat": ap}, "sizes": {"small": ap}, "map": ap}
        return {"metric": "voc12", "images": 1, "objects": 1, "iou": 0.5, **part}

    card = folder / "digits.md"
    before = card.read_text(encoding="utf-8")
    module.write_card(card, {"digits": report(0.25)}, {"model": "m", "seed": 8})
    assert "| cat | 25.0 |" in card.read_text(encoding="utf-8")
    module.write_card(card, {"digits": report(0.5)}, {"model": "m", "seed": 9})
    text = card.read_text(encoding="utf-8")
    assert "| cat | 50.0 |" in text and "25.0" not in text
    assert "seed: 9" in text and "seed: 8" not in text
    head = before.split("<!-- metrics -->")[0]
    assert text.startswith(head) and text.endswith(before.split("<!-- /recipe -->")[1])

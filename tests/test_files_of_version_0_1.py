"""What version 0.1 wrote still opens, and finds what it found then.

The archive holds a model, the state of a training after two of four updates, its settings, and three exports
of a network of 38, 19 and 10 cells on the backbone of `tests/conftest.py`. Weights are rounded to sixteenths,
so that the archive is small. `found.json` is what version 0.1 found in the image below.
"""

from __future__ import annotations

import json
import tarfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from torch import nn

from fssd.config.config_files import load_config
from fssd.inference.detector import Detector
from fssd.training.loop import train
from fssd.weights.checkpoint import read_tensors
from fssd.zoo.models import PHOTOS, packaged_model

ARCHIVE = Path(__file__).parent / "files" / "version-0.1.tar.xz"


@pytest.fixture(scope="module")
def files(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("files")
    with tarfile.open(ARCHIVE) as archive:
        archive.extractall(folder, filter="data")
    return folder / "version-0.1"


def blocks() -> np.ndarray:
    colours = np.random.default_rng(0).integers(0, 256, (15, 20, 3))
    return np.kron(colours, np.ones((16, 16, 1))).astype(np.uint8)


@pytest.mark.parametrize(
    ("name", "package"),
    [
        ("final.safetensors", "torch"),
        ("raw.onnx", "onnxruntime"),
        ("nms.onnx", "onnxruntime"),
        ("raw.xml", "openvino"),
    ],
)
def test_models_find_what_they_found(
    files: Path, tiny_backbone: Callable[[], nn.Module], name: str, package: str
) -> None:
    pytest.importorskip(package, reason=f"needs {package}")
    more: dict[str, Any] = {"backbone": tiny_backbone()} if package == "torch" else {}
    detector = Detector.load(files / name, device="cpu", **more)
    expected = json.loads((files / "found.json").read_text())
    found = detector(blocks(), score=expected["score"], keep=expected["keep"])
    assert len(found) == len(expected["found"]) == 10
    for index, (score, label, box) in enumerate(expected["found"]):
        assert found.scores[index] == pytest.approx(score, abs=1e-3)
        assert found.labels[index] == label
        assert found.boxes[index].tolist() == pytest.approx(box, abs=0.1)


def test_a_training_goes_on(
    files: Path, scenes: Path, tiny_backbone: Callable[[], nn.Module], tmp_path: Path
) -> None:
    run = tmp_path / "run"
    run.mkdir()
    for name in ("last.safetensors", "config.yaml"):
        (run / name).write_bytes((files / name).read_bytes())
    config = load_config(run / "config.yaml")
    assert config.options == {"sources": ["middle"], "merge": "sum", "priors": "voc", "clip": "sides"}
    changes = {"out": run, "data": scenes}
    result = train(config.__class__(**{**vars(config), **changes}), resume=True, backbone=tiny_backbone())
    assert result.finished
    lines = [json.loads(line) for line in (run / "log.jsonl").read_text(encoding="utf-8").splitlines()]
    assert [line["iteration"] for line in lines if "evaluation" not in line] == [3, 4]
    assert read_tensors(run / "last.safetensors")[1]["options"] == {**config.options, "variant": "narrow"}


@pytest.mark.parametrize("name", ["animals", "animals-int8"])
def test_packaged_models_open(name: str) -> None:
    if name == "animals-int8":
        pytest.importorskip("openvino", reason="needs openvino")
    assert packaged_model(name).is_file()
    assert Detector.load(name, device="cpu")(PHOTOS[0]).names == ["cat"]

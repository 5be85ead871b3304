"""What every neck goes through: two updates, an evaluation, both exports with parity, and opening again."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from fssd.config.train_config import TrainConfig
from fssd.data.source import open_data
from fssd.evaluation.evaluate import evaluate_detections
from fssd.export.write import export_model
from fssd.inference.detector import Detector
from fssd.runtimes.choose import RUNTIMES
from fssd.training.loop import train


@pytest.fixture
def whole_life(
    scenes: Path, tmp_path: Path, few_blocks: None, one_trace: None, few_pictures: None
) -> Callable[..., Detector]:
    """Trains a model of that name, size and options, evaluates, exports and opens it; returns it opened."""
    pytest.importorskip("onnx", reason='needs onnx: pip install "fssd[export]"')
    pytest.importorskip("openvino", reason='needs openvino: pip install "fssd[openvino]"')

    def live(model: str, size: int = 160, **options: Any) -> Detector:
        run = tmp_path / "run"
        fixed: dict[str, Any] = {
            "size": (size,),  # the parts of a network, and so the time to export it, do not depend on it
            "batch_size": 2,
            "workers": 0,
            "amp": "off",
            "start": "nothing",
        }
        train(TrainConfig(data=scenes, out=run, model=model, options=options, iterations=2, **fixed))
        detector, data = Detector.load(run), open_data(scenes, "val")
        found = list(detector.evaluate_on(data))
        assert 0 <= evaluate_detections(data, found).map <= 1
        image = data.records[0].path
        for to in ("onnx", "openvino"):
            file = tmp_path / f"{to}{RUNTIMES[to].suffix}"
            parity = export_model(detector, file, to).parity
            assert parity is not None and parity.detections > 0
            opened = Detector.load(file)(image, score=0.01)
            assert len(opened) == len(detector(image, score=0.01)) > 0
        return detector

    return live

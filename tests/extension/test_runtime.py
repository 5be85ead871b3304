"""A runtime of its own: one class and one row, and every verb that opens or writes files knows it."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from fssd.bench.subject import open_subject
from fssd.errors import ConfigError
from fssd.export.write import export_model
from fssd.inference.detector import Detector
from fssd.model.cost import multiply_adds
from fssd.runtimes.choose import RUNTIMES
from fssd.runtimes.onnx import OnnxRuntime
from fssd.runtimes.runner import FileRunner, Images
from fssd.serve.opening import Concurrency, load_detectors, serving_runtime, share_cores
from fssd.weights.checkpoint import save_model

for _package in ("onnx", "onnxscript", "onnxruntime"):
    pytest.importorskip(_package, reason=f'needs {_package}: pip install "fssd[export]"')


class CountingRuntime(OnnxRuntime):
    """ONNX Runtime under another name, which counts what it is asked."""

    name = "counting"
    suffix = ".counted"
    side_by_side = 3

    def __init__(self) -> None:
        self.images = 0

    def open(self, file: Path, device: str, threads: int | None) -> FileRunner:
        opened = super().open(file, device, threads)

        def counted(images: Images) -> Sequence[np.ndarray]:
            self.images += len(images)
            return opened.session(images)

        return FileRunner(counted, opened.header)


@pytest.fixture
def counting(monkeypatch: pytest.MonkeyPatch) -> CountingRuntime:
    runtime = CountingRuntime()
    monkeypatch.setitem(RUNTIMES, runtime.name, runtime)
    return runtime


def test_a_row_is_all_it_takes(
    counting: CountingRuntime,
    detectors: dict[str, Detector],
    traced: Callable[[str], Any],
    scenes: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    few_pictures: None,
) -> None:
    monkeypatch.setattr("fssd.export.write.trace", lambda *_: traced("fssd300-lite"))
    detector, model_file = detectors["fssd300-lite"], tmp_path / "untrained.safetensors"
    save_model(model_file, detector.network.state_dict(), detector.network, detector.classes, detector.facts)
    file = tmp_path / "model.counted"
    done = export_model(detector, file, "counting")
    assert done.parity is not None and done.parity.detections > 0
    assert counting.images >= 5, "the file proved itself in its own runtime"

    image = next(scenes.rglob("*.jpg"))
    before = counting.images
    assert len(Detector.load(file)(image, score=0.1)) == len(detector(image, score=0.1))
    assert counting.images == before + 1

    assert serving_runtime(file, "auto") == "counting"
    assert share_cores("counting", None, None, 2).workers == 3
    served = load_detectors(model_file, "counting", Concurrency(1, 1), folder=tmp_path)
    assert len(served) == 1 and (tmp_path / "model.counted").is_file()

    subject = open_subject(str(model_file), tmp_path, runtime="counting")
    assert subject.runtime == "counting"
    assert subject.multiply_adds == multiply_adds(detector.network)  # as PyTorch counts


def test_names_of_runtimes_are_told(counting: CountingRuntime, model_file: Path, tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"such a file ends in \.counted"):
        export_model(Detector.load(model_file), tmp_path / "model.onnx", "counting")
    with pytest.raises(ConfigError, match=r"there is no runtime 'countin'.*did you mean 'counting'"):
        export_model(Detector.load(model_file), tmp_path / "model.onnx", "countin")
    with pytest.raises(ConfigError, match=r"there is no runtime 'onix'.*did you mean 'onnx'"):
        serving_runtime(model_file, "onix")

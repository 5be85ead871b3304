"""Opening a model in the runtime that is asked for."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch

from fssd.errors import ConfigError
from fssd.serve.opening import Concurrency, load_detectors, serving_runtime, share_cores


@pytest.mark.parametrize(
    ("model", "wanted", "runtime"),
    [
        ("a.safetensors", "auto", "torch"),
        ("runs/a", "auto", "torch"),
        ("animals", "auto", "torch"),
        ("a.safetensors", "onnx", "onnx"),
        ("animals", "openvino", "openvino"),
        ("a.onnx", "auto", "onnx"),
        ("a.onnx", "onnx", "onnx"),
        ("a.xml", "auto", "openvino"),
        ("animals-int8", "auto", "openvino"),
    ],
)
def test_runtime(model: str, wanted: Any, runtime: str) -> None:
    assert serving_runtime(Path(model), wanted) == runtime


@pytest.mark.parametrize(
    ("model", "wanted"), [("a.onnx", "torch"), ("a.onnx", "openvino"), ("a.xml", "torch")]
)
def test_exported_file_in_another_runtime(model: str, wanted: Any) -> None:
    with pytest.raises(ConfigError, match="leave out --runtime"):
        serving_runtime(Path(model), wanted)


def test_unknown_runtime_names_the_nearest() -> None:
    with pytest.raises(ConfigError, match="did you mean 'openvino'"):
        serving_runtime(Path("a.safetensors"), "openvno")


@pytest.mark.parametrize(
    ("runtime", "workers", "threads", "cores", "share"),
    [
        ("torch", None, None, 2, (2, 2)),
        ("openvino", None, None, 8, (2, 8)),
        ("onnx", None, None, 8, (1, 8)),
        ("torch", 1, None, 8, (1, 8)),
        ("torch", 4, None, 8, (4, 4)),
        ("onnx", 4, None, 8, (4, 2)),
        ("onnx", 4, None, 2, (4, 1)),
        ("openvino", 3, None, 1, (3, 1)),
        ("openvino", None, 3, 8, (2, 3)),
        ("onnx", 2, 5, 1, (2, 5)),
    ],
)
def test_cores_are_shared_out(
    runtime: Any, workers: int | None, threads: int | None, cores: int, share: tuple[int, int]
) -> None:
    assert share_cores(runtime, workers, threads, cores) == share


def test_workers_share_a_network_of_pytorch(model: Path, tmp_path: Path) -> None:
    before = torch.get_num_threads()
    try:
        first, second = load_detectors(model, "torch", Concurrency(2, 1), folder=tmp_path, device="cpu")
        assert torch.get_num_threads() == 1
    finally:
        torch.set_num_threads(before)
    assert first is second


def test_workers_have_a_session_each(tmp_path: Path) -> None:
    pytest.importorskip("openvino", reason='needs openvino: pip install "fssd[openvino]"')
    first, second = load_detectors(Path("animals-int8"), "openvino", Concurrency(2, 1), folder=tmp_path)
    width, height = first.image_size
    images = torch.randint(0, 256, (1, 3, height, width), dtype=torch.uint8)
    assert first.runner is not second.runner
    runners = (first.runner, second.runner)
    found = [runner.finish(runner.predict(images), score=0.01)[0] for runner in runners]
    for one, other in zip(*found, strict=True):
        assert torch.equal(one, other)
    assert list(tmp_path.iterdir()) == []

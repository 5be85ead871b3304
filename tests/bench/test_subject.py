"""What can be measured, and what cannot."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from fssd.bench.subject import open_subject
from fssd.data.scenes import CLASSES
from fssd.errors import CheckpointError, ConfigError
from fssd.export.graph import trace
from fssd.export.images import make_pictures
from fssd.export.write import write_unchecked
from fssd.inference.detector import Detector
from fssd.model.build import build_model
from fssd.model.cost import multiply_adds
from fssd.runtimes.choose import RUNTIMES
from fssd.runtimes.runtime import Runtime


def test_a_model_file(model_file: Path, tmp_path: Path) -> None:
    opened = open_subject(str(model_file), tmp_path, device="cpu", threads=1)
    assert (opened.runtime, opened.precision, opened.random) == ("torch", "fp32", False)
    assert opened.detector.classes == CLASSES
    assert opened.threads == 1


def test_a_network_by_name_is_random_and_always_the_same(tmp_path: Path) -> None:
    state = torch.get_rng_state()
    first = open_subject("fssd300-lite", tmp_path, device="cpu")
    assert torch.equal(torch.get_rng_state(), state)
    with torch.random.fork_rng():
        torch.manual_seed(1)
        second = open_subject("fssd300-lite", tmp_path, device="cpu")
    assert first.random
    assert len(first.detector.classes) == 20
    assert first.multiply_adds == multiply_adds(build_model("fssd300-lite", 20))
    weights = [next(iter(one.detector.network.parameters())) for one in (first, second)]
    assert torch.equal(*weights)


OURS = ("onnx", "openvino")  # the others are tested in tests/export


@pytest.fixture(scope="module")
def exported(tiny: Detector, tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """The small detector as a file for each runtime, and for ONNX Runtime in eight bits; traced once."""
    for package in ("onnx", "onnxscript", "onnxruntime", "openvino"):
        pytest.importorskip(package, reason='needs the runtimes: pip install "fssd[openvino]"')
    folder = tmp_path_factory.mktemp("exported")
    graph = trace(tiny.network)

    def copy(*_: object) -> Any:
        own = type(graph)()
        own.CopyFrom(graph)
        return own

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("fssd.export.write.trace", copy)
        files = {name: folder / f"fp32{runtime.suffix}" for name, runtime in RUNTIMES.items() if name in OURS}
        for name, file in files.items():
            write_unchecked(tiny, file, RUNTIMES[name])
        files["half"] = folder / "half.onnx"
        write_unchecked(tiny, files["half"], RUNTIMES["onnx"], fp16=True)
        files["int8"] = folder / "int8.onnx"
        pictures = make_pictures(2, (300, 300))
        write_unchecked(tiny, files["int8"], RUNTIMES["onnx"], calibration=pictures)
        return files


@pytest.mark.parametrize("to", ["onnx", "openvino"])
def test_an_exported_file_runs_in_its_own_runtime(
    to: str, exported: dict[str, Path], tiny: Detector, tmp_path: Path
) -> None:
    file = exported[to]
    opened = open_subject(str(file), tmp_path, threads=1)
    assert (opened.runtime, opened.precision, opened.random) == (to, "fp32", False)
    assert opened.multiply_adds == multiply_adds(tiny.network)
    assert opened.detector.classes == tiny.classes
    image = make_pictures(2, (300, 300))[1].permute(1, 2, 0).numpy()
    ours, theirs = tiny(image, score=0.01), opened.detector(image, score=0.01)
    assert len(ours) > 0
    np.testing.assert_allclose(theirs.scores, ours.scores, atol=1e-4)
    other = "openvino" if to == "onnx" else "onnx"
    with pytest.raises(ConfigError, match=f"is a file for {to}"):
        open_subject(str(file), tmp_path, runtime=other)
    with pytest.raises(ConfigError, match="is exported already"):
        open_subject(str(file), tmp_path, precision="int8")


def test_half_precision_is_told(exported: dict[str, Path], tmp_path: Path) -> None:
    assert open_subject(str(exported["half"]), tmp_path, threads=1).precision == "fp16"


def test_eight_bits(exported: dict[str, Path], tiny: Detector, tmp_path: Path) -> None:
    import onnx

    kinds = {node.op_type for node in onnx.load(exported["int8"]).graph.node}
    assert "DequantizeLinear" in kinds
    opened = open_subject(str(exported["int8"]), tmp_path, threads=1)
    assert opened.precision == "int8"
    assert opened.multiply_adds == multiply_adds(tiny.network)


def test_a_model_is_exported_for_another_runtime(
    model_file: Path, exported: dict[str, Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    seen = []

    def write(detector: Detector, file: Path, runtime: Runtime, calibration: torch.Tensor | None) -> None:
        seen.append((detector.classes, runtime.name, file.parent, calibration))
        shutil.copyfile(exported["onnx"], file)

    monkeypatch.setattr("fssd.bench.subject.write_unchecked", write)
    opened = open_subject(str(model_file), tmp_path, runtime="onnx", threads=1)
    assert seen == [(CLASSES, "onnx", tmp_path, None)]
    assert opened.runtime == "onnx"
    open_subject(str(model_file), tmp_path, runtime="onnx", precision="int8", threads=1)
    assert seen[1][3] is not None
    assert seen[1][3].shape[1:] == (3, 300, 300)


@pytest.mark.parametrize(
    ("choices", "reason"),
    [
        ({"precision": "bf16"}, "bf16 is for --runtime cuda"),
        ({"precision": "int8"}, "int8 is for --runtime onnx or openvino"),
        ({"precision": "int8", "runtime": "cuda"}, "int8 is for"),
        ({"precision": "int8", "runtime": "ncnn"}, "int8 is for --runtime onnx or openvino; choose"),
        ({"precision": "int8", "runtime": "tensorrt"}, "int8 is for --runtime onnx or openvino; choose"),
    ],
)
def test_choices_that_do_not_fit(choices: dict[str, str], reason: str, tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=reason):
        open_subject("fssd300-lite", tmp_path, **choices)  # type: ignore[arg-type]


def test_no_cuda(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    with pytest.raises(ConfigError, match="no CUDA device here; choose --runtime torch"):
        open_subject("fssd300-lite", tmp_path, runtime="cuda", precision="bf16")


def test_no_such_model(tmp_path: Path) -> None:
    with pytest.raises(CheckpointError, match="did you mean 'fssd300-vgg16'"):
        open_subject("fssd300-vg16", tmp_path)
    with pytest.raises(CheckpointError, match=r"nothing\.safetensors"):
        open_subject(str(tmp_path / "nothing.safetensors"), tmp_path)


def test_missing_runtime(model_file: Path, tmp_path: Path, refuse: Callable[[str], None]) -> None:
    refuse("onnx")
    with pytest.raises(ConfigError, match=r"pip install \"fssd\[export\]\""):
        open_subject(str(model_file), tmp_path, runtime="onnx")

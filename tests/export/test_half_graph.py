"""ONNX in half precision, its description, and OpenCV as a second reader."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest

from fssd.errors import ConfigError, ExportError
from fssd.export import write
from fssd.export.graph import in_half
from fssd.export.opencv_check import OpenCvSession
from fssd.export.write import export_model, write_unchecked
from fssd.heads.head import Thresholds
from fssd.inference.detector import Detector
from fssd.runtimes.choose import find_runtime

onnx = pytest.importorskip("onnx", reason='needs onnx: pip install "fssd[export]"')
for _package in ("onnxscript", "onnxruntime"):
    pytest.importorskip(_package, reason=f'needs {_package}: pip install "fssd[export]"')

OPENCV_5 = int(cv2.__version__.partition(".")[0]) >= 5


@pytest.fixture(autouse=True)
def _one_trace(traced: Callable[[str], Any], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(write, "trace", lambda *_: traced("tiny"))


def test_half_of_the_bytes_and_a_valid_graph(traced: Callable[[str], Any]) -> None:
    full = traced("tiny")
    half = in_half(traced("tiny"))
    onnx.checker.check_model(half)  # among others, that nodes stand in order
    kinds = {tensor.data_type for tensor in half.graph.initializer if len(tensor.dims) == 4}
    assert kinds == {onnx.TensorProto.FLOAT16}
    assert half.ByteSize() < 0.65 * full.ByteSize()
    assert [end.type.tensor_type.elem_type for end in half.graph.output] == [onnx.TensorProto.FLOAT] * 2


def test_half_with_nms_in_onnx_runtime_and_opencv(detectors: dict[str, Detector], tmp_path: Path) -> None:
    file = tmp_path / "half.onnx"
    nms = Thresholds(score=0.3, keep=20)
    done = export_model(detectors["tiny"], file, "onnx", nms=nms, fp16=True, opencv=OPENCV_5)
    assert done.parity is not None and 0 < done.parity.box < 0.5
    if OPENCV_5:
        assert done.opencv is not None and done.opencv.images == 33
    model = onnx.load(file)
    document = json.loads(next(one.value for one in model.metadata_props if one.key == "fssd"))
    assert document["precision"] == "fp16"

    import onnxruntime

    told = onnxruntime.InferenceSession(file).get_modelmeta().description
    assert "Takes images (B, 300, 300, 3) uint8, RGB: each image stretched to 300 x 300" in told
    assert "Gives boxes (B, K, 4) float32: x1, y1, x2, y2 in pixels of the input" in told
    assert "NMS inside: keep 20, nms 0.45, score 0.3, top_k 400." in told
    assert "Classes: 0 eight, 1 five, 2 zero." in told
    assert model.graph.input[0].doc_string.startswith("images (B, 300, 300, 3) uint8")
    told_ends = [output.doc_string.split()[0] for output in model.graph.output]
    assert told_ends == ["boxes", "scores", "labels", "count"]


@pytest.mark.skipif(not OPENCV_5, reason="OpenCV 4 cannot read these graphs")
def test_opencv_runs_nms_where_nothing_is_found(detectors: dict[str, Detector], tmp_path: Path) -> None:
    """OpenCV 5.0 divides by zero when NonMaxSuppression chooses nothing; the graph never lets it."""
    file = tmp_path / "a.onnx"
    write_unchecked(detectors["tiny"], file, find_runtime("onnx"), nms=Thresholds(score=0.3))
    blank = onnx.load(file)
    for tensor in blank.graph.initializer:
        if tensor.name == "least" or tensor.name.endswith("/least"):
            tensor.CopyFrom(onnx.numpy_helper.from_array(np.float32(1.0), tensor.name))
    for node in blank.graph.node:
        if node.op_type == "Constant" and node.output[0].endswith("least"):
            node.attribute[0].t.CopyFrom(onnx.numpy_helper.from_array(np.float32(1.0)))
    onnx.save(blank, file)
    names = ("boxes", "scores", "labels", "count")
    *_, count = OpenCvSession(file, names)(np.zeros((2, 300, 300, 3), np.uint8))
    assert count.tolist() == [0, 0]


def test_opencv_that_cannot(tmp_path: Path, detectors: dict[str, Detector]) -> None:
    file = tmp_path / "a.onnx"
    file.write_bytes(b"nothing")
    with pytest.raises(ExportError, match=r"OpenCV .* cannot run this file"):
        OpenCvSession(file, ["boxes"])(np.zeros((1, 300, 300, 3), np.uint8))
    with pytest.raises(ConfigError, match="OpenCV checks ONNX files"):
        export_model(detectors["tiny"], tmp_path / "a.xml", "openvino", opencv=True)

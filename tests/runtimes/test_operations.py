"""Multiply-adds of graphs, against hand counts. Exported detectors are counted in test_subject."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from fssd.errors import ConfigError
from fssd.runtimes.choose import RUNTIMES
from fssd.runtimes.onnx import onnx_multiply_adds
from fssd.runtimes.openvino import openvino_multiply_adds

onnx = pytest.importorskip("onnx", reason='needs onnx: pip install "fssd[export]"')

# 3 -> 4 channels, 3 x 3, stride 2: 4 x 4 cells of 8 x 8, each 4 * 3 * 9 products, together 1728.
# Then 3 x 3 in two groups of 2 -> 2 channels: 16 cells of 4 * 2 * 9, 1152. Then 16 rows times (4 x 5): 320.
TEXT = """
<ir_version: 9, opset_import: ["": 18]>
graph (float[batch, 3, 8, 8] images) => (float[batch, 16, 5] out)
<float[4, 3, 3, 3] w1, float[4, 2, 3, 3] w2, float[4, 5] w3, int64[3] rows = {0, 4, 16}>
{
    a = Conv <pads = [1, 1, 1, 1], strides = [2, 2]> (images, w1)
    b = Conv <pads = [1, 1, 1, 1], group = 2> (a, w2)
    c = Reshape(b, rows)
    d = Transpose <perm = [0, 2, 1]> (c)
    out = MatMul(d, w3)
}
"""
BY_HAND = 1728 + 1152 + 320


def model(text: str = TEXT) -> Any:
    """The graph with weights of ones."""
    import numpy as np

    made = onnx.parser.parse_model(text)
    shapes = {"w1": (4, 3, 3, 3), "w2": (4, 2, 3, 3), "w3": (4, 5)}
    kept = [tensor for tensor in made.graph.initializer if tensor.name not in shapes]
    del made.graph.initializer[:]
    made.graph.initializer.extend(kept)
    for name, shape in shapes.items():
        made.graph.initializer.append(onnx.numpy_helper.from_array(np.ones(shape, np.float32), name))
    return made


def test_by_hand() -> None:
    made = model()
    before = made.SerializeToString()
    assert onnx_multiply_adds(made) == BY_HAND
    assert made.SerializeToString() == before


def test_openvino_counts_the_same(tmp_path: Path) -> None:
    openvino = pytest.importorskip("openvino", reason='needs openvino: pip install "fssd[openvino]"')
    file = tmp_path / "small.onnx"
    onnx.save(model(), file)
    read = openvino.Core().read_model(file)
    assert openvino_multiply_adds(read) == BY_HAND
    assert read.input(0).partial_shape[0].is_dynamic
    assert RUNTIMES["onnx"].multiply_adds(file) == BY_HAND
    openvino.save_model(read, tmp_path / "small.xml")
    assert RUNTIMES["openvino"].multiply_adds(tmp_path / "small.xml") == BY_HAND


def test_a_product_of_another_kind_is_not_left_out_in_silence() -> None:
    assert onnx_multiply_adds(model(TEXT.replace("out = MatMul(d, w3)", "out = Einsum(d, w3)"))) is None


def test_nothing_counted_is_not_zero() -> None:
    text = """
    <ir_version: 9, opset_import: ["": 18]>
    graph (float[batch, 3, 8, 8] images) => (float[batch, 3, 8, 8] out)
    { out = Relu(images) }
    """
    assert onnx_multiply_adds(onnx.parser.parse_model(text)) is None


def test_missing_package(monkeypatch: pytest.MonkeyPatch, refuse: Callable[[str], None]) -> None:
    refuse("onnx")
    with pytest.raises(ConfigError, match=r"onnx; pip install \"fssd\[export\]\""):
        RUNTIMES["onnx"].multiply_adds(Path("model.onnx"))

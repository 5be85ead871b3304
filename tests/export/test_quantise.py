"""Eight bits: every convolution that is meant to be is."""

from __future__ import annotations

from collections.abc import Callable
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import pytest

from fssd.export.images import make_pictures
from fssd.runtimes.onnx import quantise_onnx
from fssd.runtimes.openvino import as_openvino, quantise_openvino


def need(*packages: str) -> None:
    """Skip the test where a package is absent. It is not imported: OpenVINO would set up its telemetry."""
    if any(find_spec(package) is None for package in packages):
        pytest.skip(f'needs {" and ".join(packages)}: pip install "fssd[openvino]"')


def test_onnx_reads_bytes_in_every_convolution_but_the_predictors_and_in_every_sum(
    traced: Callable[[str], Any], tmp_path: Path
) -> None:
    need("onnxruntime")
    quantised = quantise_onnx(traced("tiny"), make_pictures(2, (300, 300)), str(tmp_path))
    makers = {output: node.op_type for node in quantised.graph.node for output in node.output}
    read = {
        kind: [
            {makers.get(name) for name in node.input} for node in quantised.graph.node if node.op_type == kind
        ]
        for kind in ("Conv", "Add")
    }
    assert len(read["Add"]) == 6 and all(inputs == {"DequantizeLinear"} for inputs in read["Add"])
    floats = [inputs for inputs in read["Conv"] if inputs != {"DequantizeLinear"}]
    assert len(floats) == 12  # offsets and scores of six levels


def test_openvino_reads_the_weights_of_every_convolution_as_bytes(traced: Callable[[str], Any]) -> None:
    need("openvino", "nncf")
    quantised = quantise_openvino(as_openvino(traced("tiny")), make_pictures(2, (300, 300)))
    kinds = ("Convolution", "GroupConvolution")
    convolutions = [node for node in quantised.get_ordered_ops() if node.get_type_name() in kinds]
    depthwise = [node for node in convolutions if node.get_type_name() == "GroupConvolution"]
    assert len(depthwise) == 18  # of six blocks of the pyramid and twelve heads
    for convolution in convolutions:
        scaled = convolution.input_value(1).get_node()
        widened = scaled.input_value(0).get_node()
        weights = widened.input_value(0).get_node()
        chain = [node.get_type_name() for node in (scaled, widened, weights)]
        assert chain == ["Multiply", "Convert", "Constant"], convolution.get_friendly_name()
        assert weights.get_element_type().get_type_name() == "i8"

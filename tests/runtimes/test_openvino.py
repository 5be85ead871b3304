"""OpenVINO's files: constants computed beforehand, and in eight bits every convolution."""

from __future__ import annotations

from collections.abc import Callable
from importlib.util import find_spec
from typing import Any

import pytest

from fssd.export.images import make_pictures
from fssd.runtimes.openvino import as_openvino, quantise_openvino


def need(*packages: str) -> None:
    """Skip the test where a package is absent. It is not imported: OpenVINO would set up its telemetry."""
    if any(find_spec(package) is None for package in packages):
        pytest.skip(f'needs {" and ".join(packages)}: pip install "fssd[openvino]"')


def test_openvino_has_nothing_left_to_compute_from_constants(traced: Callable[[str], Any]) -> None:
    need("openvino")
    for node in as_openvino(traced("fssd300-lite")).get_ordered_ops():
        inputs = [value.get_node().get_type_name() for value in node.input_values()]
        assert not inputs or set(inputs) != {"Constant"}, node.get_friendly_name()


def test_openvino_reads_the_weights_of_every_convolution_as_bytes(traced: Callable[[str], Any]) -> None:
    need("openvino", "nncf")
    quantised = quantise_openvino(as_openvino(traced("tiny")), make_pictures(2, (300, 300)))
    kinds = ("Convolution", "GroupConvolution")
    convolutions = [node for node in quantised.get_ordered_ops() if node.get_type_name() in kinds]
    depthwise = [node for node in convolutions if node.get_type_name() == "GroupConvolution"]
    assert len(depthwise) == 17  # of five blocks of the pyramid and twelve heads
    for convolution in convolutions:
        scaled = convolution.input_value(1).get_node()
        widened = scaled.input_value(0).get_node()
        weights = widened.input_value(0).get_node()
        chain = [node.get_type_name() for node in (scaled, widened, weights)]
        assert chain == ["Multiply", "Convert", "Constant"], convolution.get_friendly_name()
        assert weights.get_element_type().get_type_name() == "i8"

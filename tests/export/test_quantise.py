"""Eight bits: every convolution that is meant to be is."""

from __future__ import annotations

from collections.abc import Callable
from importlib.util import find_spec
from typing import Any

import pytest

from fssd.export.graph import as_openvino
from fssd.export.pictures import make_pictures
from fssd.export.quantise import quantise_openvino

if find_spec("openvino") is None or find_spec("nncf") is None:
    pytest.skip('needs openvino and nncf: pip install "fssd[openvino]"', allow_module_level=True)


def test_openvino_reads_the_weights_of_every_convolution_as_bytes(traced: Callable[[str], Any]) -> None:
    quantised = quantise_openvino(as_openvino(traced("tiny")), make_pictures(2, 300))
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

"""ONNX files in eight bits: every convolution that is meant to be is."""

from __future__ import annotations

import logging
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from fssd.export.images import make_pictures
from fssd.runtimes.onnx import quantise_onnx


def test_onnx_reads_bytes_in_every_convolution_but_the_predictors_and_in_every_sum(
    traced: Callable[[str], Any], tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    pytest.importorskip("onnxruntime", reason='needs onnxruntime: pip install "fssd[export]"')
    quantised = quantise_onnx(traced("tiny"), make_pictures(2, (300, 300)), tmp_path)
    advice = [record for record in caplog.records if record.levelno >= logging.WARNING]
    assert not advice, "ONNX Runtime has nothing to advise"
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

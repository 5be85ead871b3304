"""A model in another runtime, for its speed alone: exported without the checks of `fssd export`."""

from __future__ import annotations

from pathlib import Path
from typing import Literal

from torch import Tensor

from fssd.export.graph import as_openvino, trace
from fssd.export.quantise import quantise_onnx, quantise_openvino
from fssd.export.write import SUFFIXES
from fssd.inference.detector import Detector
from fssd.runtimes.header import KEY, write_header
from fssd.runtimes.packages import require, require_openvino

Target = Literal["onnx", "openvino"]


def export_unchecked(detector: Detector, to: Target, folder: Path, calibration: Tensor | None = None) -> Path:
    """Write a PyTorch detector into `folder` as a file that ends in raw predictions; returns the file.

    calibration: (N, 3, S, S) uint8 RGB; with it the file is in eight bits. Raises ConfigError for a missing
    package, or a detector that is an exported file.
    """
    network = detector.network
    precision = "fp32" if calibration is None else "int8"
    header = write_header(network, detector.classes, {}, None, precision)
    model = trace(network)
    file = folder / f"{network.spec.name}-{precision}{SUFFIXES[to]}"
    if to == "onnx":
        if calibration is not None:
            model = quantise_onnx(model, calibration, str(folder))
        onnx = require("onnx", "export")
        onnx.helper.set_model_props(model, {KEY: header})
        onnx.save(model, file)
        return file
    openvino = require_openvino()
    graph = as_openvino(model)
    if calibration is not None:
        graph = quantise_openvino(graph, calibration)
    graph.set_rt_info(header, [KEY])
    openvino.save_model(graph, file, compress_to_fp16=False)
    return file

"""Post-training quantisation to eight bits, with the ranges that a few hundred images show."""

from __future__ import annotations

import logging
from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

import numpy as np
from torch import Tensor

from fssd.export.tail import PREFIX
from fssd.runtimes.packages import require, require_openvino

if TYPE_CHECKING:
    import onnx


class _Reader:
    """Images one by one, as onnxruntime asks for them."""

    def __init__(self, images: Tensor) -> None:
        self.rows = _rows(images)

    def get_next(self) -> dict[str, Any] | None:
        row = next(self.rows, None)
        return None if row is None else {"images": row}


def quantise_onnx(model: onnx.ModelProto, images: Tensor, folder: str) -> onnx.ModelProto:
    """The graph with its convolutions and sums in eight bits, weights by channel.

    images: (N, 3, S, S) uint8 RGB. folder: a place for temporary files. The convolutions that predict stay as
    they are: their outputs are the answer, and rounding them costs more than it saves. Only inputs are
    rounded: an output would be before its activation cuts it, over a range far wider than what is left.
    Raises ConfigError if onnxruntime is missing.
    """
    tools = require("onnxruntime.quantization", "export")
    out = f"{folder}/quantised.onnx"
    tools.quantize_static(
        model,
        out,
        _Reader(images),
        quant_format=tools.QuantFormat.QDQ,
        op_types_to_quantize=["Conv", "Add"],
        nodes_to_exclude=_predictors(model),
        per_channel=True,
        activation_type=tools.QuantType.QUInt8,
        weight_type=tools.QuantType.QInt8,
        extra_options={"OpTypesToExcludeOutputQuantization": ["Conv", "Add"]},
    )
    quantised: onnx.ModelProto = require("onnx", "export").load(out)
    return quantised


def quantise_openvino(model: Any, images: Tensor) -> Any:
    """A model of `as_openvino` in eight bits, but for the NMS. images: (N, 3, S, S) uint8 RGB.

    Raises ConfigError if nncf is missing.
    """
    nncf = require_openvino("nncf")
    nncf.set_log_level(logging.ERROR)
    return nncf.quantize(
        model,
        nncf.Dataset(list(_rows(images))),
        subset_size=len(images),
        ignored_scope=nncf.IgnoredScope(patterns=[f"{PREFIX}.*"], validate=False),
    )


def _rows(images: Tensor) -> Iterator[np.ndarray]:
    for image in images:
        yield np.ascontiguousarray(image.permute(1, 2, 0)[None].numpy())


def _predictors(model: onnx.ModelProto) -> list[str]:
    """Names of the convolutions that only moves of numbers lie between and the outputs."""
    makers = {output: node for node in model.graph.node for output in node.output}
    names: list[str] = []
    waiting = [makers[output.name] for output in model.graph.output]
    while waiting:
        node = waiting.pop()
        if node.op_type == "Conv":
            names.append(node.name)
        elif node.op_type in ("Concat", "Reshape", "Transpose", "Split"):
            waiting += [makers[name] for name in node.input if name in makers]
    return names

"""Multiply-adds of an exported file for one image, counted in its graph.

Convolutions and matrix products count, as in `fssd.model.cost`; quantisation does not change the number.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from math import prod
from typing import Any

from fssd.runtimes.packages import require

# Products that `fssd export` writes only for a backbone of the user's own.
NOT_COUNTED = {"Gemm", "Einsum", "ConvTranspose", "ConvolutionBackpropData", "GroupConvolutionBackpropData"}


def onnx_multiply_adds(model: Any) -> int | None:
    """Of an `onnx.ModelProto` whose first input is a batch of images; `model` is not changed."""
    own = type(model)()
    own.CopyFrom(model)
    own.graph.input[0].type.tensor_type.shape.dim[0].dim_value = 1
    del own.graph.value_info[:]  # inferred for any batch size; it would contradict the fixed one
    for output in own.graph.output:
        output.type.tensor_type.ClearField("shape")
    graph = require("onnx", "export").shape_inference.infer_shapes(own, data_prop=True).graph
    return _total({node.op_type for node in graph.node}, _onnx_products(graph))


def openvino_multiply_adds(model: Any) -> int | None:
    """Of an `openvino.Model` whose first input is a batch of images; `model` is not changed."""
    own = model.clone()
    own.reshape([1, *list(own.input(0).partial_shape)[1:]])
    return _total({op.get_type_name() for op in own.get_ops()}, _openvino_products(own))


def _onnx_products(graph: Any) -> Iterator[int]:
    """Multiply-adds of each convolution and product; 0 where a size is unknown."""
    shapes = {
        value.name: [dim.dim_value for dim in value.type.tensor_type.shape.dim]
        for value in (*graph.input, *graph.value_info, *graph.output)
    }
    shapes |= {tensor.name: list(tensor.dims) for tensor in graph.initializer}
    for node in graph.node:
        if node.op_type == "Conv":  # weights (C_out, C_in / groups, H, W)
            yield prod(shapes.get(node.output[0], [0])) * prod(shapes.get(node.input[1], [0])[1:])
        elif node.op_type == "MatMul":
            yield prod(shapes.get(node.output[0], [0])) * shapes.get(node.input[0], [0])[-1]


def _openvino_products(model: Any) -> Iterator[int]:
    for op in model.get_ops():
        kind = op.get_type_name()
        if kind == "Convolution":  # weights (C_out, C_in, H, W)
            yield prod(op.output(0).shape) * prod(op.input(1).get_shape()[1:])
        elif kind == "GroupConvolution":  # weights (groups, C_out, C_in, H, W)
            yield prod(op.output(0).shape) * prod(op.input(1).get_shape()[2:])
        elif kind == "MatMul":
            inner = -2 if op.get_attributes().get("transpose_a") else -1
            yield prod(op.output(0).shape) * op.input(0).get_shape()[inner]


def _total(kinds: set[str], products: Iterable[int]) -> int | None:
    if kinds & NOT_COUNTED:
        return None
    found = [int(product) for product in products]
    return sum(found) if found and all(found) else None

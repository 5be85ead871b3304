"""Graphs of ONNX, from which the files of every runtime are made."""

from __future__ import annotations

from typing import TYPE_CHECKING

from fssd.runtimes.packages import require

if TYPE_CHECKING:
    import onnx

PREFIX = "nms/"  # of the names of a tail's nodes, so that quantisation can leave them alone


def append_tail(graph: onnx.ModelProto, tail: onnx.ModelProto | None) -> onnx.ModelProto:
    """The graph with its outputs connected to the inputs of the same names of `tail`."""
    if tail is None:
        return graph
    tools = require("onnx", "export")
    tail = tools.compose.add_prefix(tail, PREFIX, rename_inputs=False, rename_outputs=False)
    names = [value.name for value in tail.graph.input]
    joined: onnx.ModelProto = tools.compose.merge_models(graph, tail, io_map=[(n, n) for n in names])
    return joined

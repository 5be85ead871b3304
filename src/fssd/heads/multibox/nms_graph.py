"""Scores and decoding as `fssd.heads.multibox.detect.detect` does them, as a part of an ONNX graph."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
from torch import Tensor

from fssd.boxes import VARIANCES, to_center_size
from fssd.heads.head import Thresholds
from fssd.heads.selection_graph import Decoding, selection_graph

if TYPE_CHECKING:
    import onnx

INPUTS = "float[batch, {priors}, 4] offsets, float[batch, {priors}, {columns}] logits"
CONSTANTS = "float half = {0.5}"
COLUMNS = ", int64[1] first = {{1}}, int64[1] end = {{{columns}}}"  # of the classes, behind the background
NODES = """
    scaled = Mul(offsets, variances)
    shift, growth = Split<axis = -1, num_outputs = 2>(scaled)
    moved = Mul(shift, prior_sizes)
    center = Add(moved, prior_centers)
    factor = Exp(growth)
    size = Mul(factor, prior_sizes)
    reach = Mul(size, half)
    low = Sub(center, reach)
    high = Add(center, reach)
    decoded = Concat<axis = -1>(low, high)
"""
SOFTMAX = """
    probabilities = Softmax<axis = -1>(logits)
    by_class = Transpose<perm = [0, 2, 1]>(probabilities)
    objects = Slice(by_class, first, end, first)
"""
SIGMOID = """
    probabilities = Sigmoid(logits)
    objects = Transpose<perm = [0, 2, 1]>(probabilities)
"""


def nms_graph(
    priors: Tensor, columns: int, sigmoid: bool, thresholds: Thresholds, opset: int, ir_version: int
) -> onnx.ModelProto:
    """From offsets (B, P, 4) and logits (B, P, columns) to `boxes`, `scores`, `labels` and `count`.

    priors: (P, 4) xyxy pixels. columns: background and the classes; the classes alone for the sigmoid. The
    outputs: see `selection_graph`.
    """
    sizes = {"priors": len(priors), "columns": columns}
    shapes = to_center_size(priors).numpy()
    arrays = {
        "prior_centers": shapes[:, :2],
        "prior_sizes": shapes[:, 2:],
        "variances": np.array(VARIANCES, np.float32),
    }
    constants = CONSTANTS if sigmoid else CONSTANTS + COLUMNS.format(**sizes)
    nodes = NODES + (SIGMOID if sigmoid else SOFTMAX)
    decoding = Decoding(INPUTS.format(**sizes), constants, nodes, arrays)
    classes = columns if sigmoid else columns - 1
    return selection_graph(decoding, len(priors), classes, thresholds, opset, ir_version)

"""Softmax and decoding as `fssd.heads.multibox.detect.detect` does them, as a part of an ONNX graph."""

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
CONSTANTS = "float half = {{0.5}}, int64[1] first = {{1}}, int64[1] end = {{{columns}}}"
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

    probabilities = Softmax<axis = -1>(logits)
    by_class = Transpose<perm = [0, 2, 1]>(probabilities)
    objects = Slice(by_class, first, end, first)
"""


def nms_graph(
    priors: Tensor, classes: int, thresholds: Thresholds, opset: int, ir_version: int
) -> onnx.ModelProto:
    """From offsets (B, P, 4) and logits (B, P, classes) to `boxes`, `scores`, `labels` and `count`.

    priors: (P, 4) xyxy pixels. classes: with background. The outputs: see `selection_graph`.
    """
    sizes = {"priors": len(priors), "columns": classes}
    shapes = to_center_size(priors).numpy()
    arrays = {
        "prior_centers": shapes[:, :2],
        "prior_sizes": shapes[:, 2:],
        "variances": np.array(VARIANCES, np.float32),
    }
    decoding = Decoding(INPUTS.format(**sizes), CONSTANTS.format(**sizes), NODES, arrays)
    return selection_graph(decoding, len(priors), classes - 1, thresholds, opset, ir_version)

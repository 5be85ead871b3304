"""Softmax, decoding and per-class NMS as `fssd.heads.multibox.decode.detect` does them, as an ONNX graph.

Written in ONNX's own text form; export appends it to the graph of a network. NonMaxSuppression is run on
each class of each image as if it were an image of its own, on its `top_k` best priors, because the operator
itself limits what is kept and not what goes in.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
from torch import Tensor

from fssd.boxes import VARIANCES, to_center_size
from fssd.heads.head import Thresholds

if TYPE_CHECKING:
    import onnx

TEXT = """
<ir_version: {ir}, opset_import: ["": {opset}]>
tail (float[batch, {priors}, 4] offsets, float[batch, {priors}, {columns}] logits) =>
     (float[batch, {keep}, 4] boxes, float[batch, {keep}] scores, int64[batch, {keep}] labels,
      int64[batch] count)
<float zero = {{0}}, int64 none = {{-1}}, int64[1] first = {{1}}, int64[1] end = {{{columns}}},
 int64[1] last = {{-1}}, float half = {{0.5}}, float least = {{{score!r}}}, float overlap = {{{nms!r}}},
 int64[1] top_k = {{{top_k}}}, int64[1] keep = {{{keep}}}, int64 places = {{{top_k}}},
 int64[3] one_class = {{-1, 1, {top_k}}}, int64[3] class_boxes = {{-1, {top_k}, 4}},
 int64[2] flat = {{-1, {candidates}}}, int64[3] four = {{1, 1, 4}}, int64 most = {{{top_k}}}>
{{
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
    best, prior = TopK<axis = -1>(objects, top_k)

    prior_flat = Reshape(prior, flat)
    prior_column = Unsqueeze(prior_flat, last)
    prior_index = Tile(prior_column, four)
    candidates = GatherElements<axis = 1>(decoded, prior_index)
    stacked = Reshape(candidates, class_boxes)
    stacked_scores = Reshape(best, one_class)
    chosen = NonMaxSuppression(stacked, stacked_scores, most, overlap, least)

    chosen_scores = GatherND(stacked_scores, chosen)
    blank = Mul(stacked_scores, zero)
    surviving = ScatterND(blank, chosen, chosen_scores)
    surviving_flat = Reshape(surviving, flat)
    scores, place = TopK<axis = -1>(surviving_flat, keep)

    valid = Greater(scores, least)
    class_index = Div(place, places)
    labels = Where(valid, class_index, none)
    place_column = Unsqueeze(place, last)
    place_index = Tile(place_column, four)
    chosen_boxes = GatherElements<axis = 1>(candidates, place_index)
    valid_column = Unsqueeze(valid, last)
    boxes = Where(valid_column, chosen_boxes, zero)
    ones = Cast<to = 7>(valid)
    count = ReduceSum<keepdims = 0>(ones, last)
}}
"""


def nms_graph(
    priors: Tensor, classes: int, thresholds: Thresholds, opset: int, ir_version: int
) -> onnx.ModelProto:
    """From offsets (B, P, 4) and logits (B, P, classes) to `boxes`, `scores`, `labels` and `count`.

    priors: (P, 4) xyxy pixels. classes: with background. boxes: (B, K, 4) xyxy pixels of the
    network's input. scores, labels: (B, K). count: (B,). K:
    `thresholds.keep`, or the number of candidates if that is less. The first `count` of an image are its
    detections, best first; after them come boxes and scores of 0 and labels of -1. Needs the package onnx.
    """
    import onnx
    import onnx.numpy_helper
    import onnx.parser

    top_k = min(thresholds.top_k, len(priors))
    candidates = top_k * (classes - 1)
    text = TEXT.format(
        ir=ir_version,
        opset=opset,
        priors=len(priors),
        columns=classes,
        score=float(thresholds.score),
        nms=float(thresholds.nms),
        top_k=top_k,
        candidates=candidates,
        keep=min(thresholds.keep, candidates),
    )
    graph: onnx.ModelProto = onnx.parser.parse_model(text)
    shapes = to_center_size(priors).numpy()
    constants = {
        "prior_centers": shapes[:, :2],
        "prior_sizes": shapes[:, 2:],
        "variances": np.array(VARIANCES, np.float32),
    }
    for name, values in constants.items():
        graph.graph.initializer.append(onnx.numpy_helper.from_array(np.ascontiguousarray(values), name))
    return graph

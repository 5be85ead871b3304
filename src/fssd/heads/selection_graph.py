"""`fssd.heads.selection.select` as an ONNX graph, behind the part of a head that decodes.

Written in ONNX's own text form; export appends it to the graph of a network. NonMaxSuppression is run on
each class of each image as if it were an image of its own, on its `top_k` best candidates, because the
operator itself limits what is kept and not what goes in.

The best candidate of each class is always chosen, and dropped afterwards if its score is too low: OpenCV 5
stops the process when NonMaxSuppression chooses nothing. It suppresses only what has a lower score.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, NamedTuple

import numpy as np
import numpy.typing as npt

from fssd.heads.head import Thresholds

if TYPE_CHECKING:
    import onnx

TEXT = """
<ir_version: {ir}, opset_import: ["": {opset}]>
tail ({inputs}) =>
     (float[batch, {keep}, 4] boxes, float[batch, {keep}] scores, int64[batch, {keep}] labels,
      int64[batch] count)
<{constants}, float zero = {{0}}, int64 none = {{-1}}, int64[1] last = {{-1}}, float least = {{{score!r}}},
 float overlap = {{{nms!r}}}, int64[1] top_k = {{{top_k}}}, int64[1] keep = {{{keep}}},
 int64 places = {{{top_k}}}, int64[3] one_class = {{-1, 1, {top_k}}},
 int64[3] class_boxes = {{-1, {top_k}, 4}}, int64[2] flat = {{-1, {candidates}}},
 int64[3] four = {{1, 1, 4}}, int64 most = {{{top_k}}}>
{{
    {decoding}

    best, prior = TopK<axis = -1>(objects, top_k)

    prior_flat = Reshape(prior, flat)
    prior_column = Unsqueeze(prior_flat, last)
    prior_index = Tile(prior_column, four)
    candidates = GatherElements<axis = 1>(decoded, prior_index)
    stacked = Reshape(candidates, class_boxes)
    stacked_scores = Reshape(best, one_class)
    raised_scores = Max(stacked_scores, raised)
    chosen = NonMaxSuppression(stacked, raised_scores, most, overlap, least)

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


class Decoding(NamedTuple):
    """How a head makes `decoded` (B, P, 4), xyxy pixels of the input, and `objects` (B, C, P), class scores.

    All in ONNX's text form: inputs: the head's predictions. constants: small ones. nodes: what computes.
    arrays: larger constants by name.
    """

    inputs: str
    constants: str
    nodes: str
    arrays: Mapping[str, npt.NDArray[np.float32]]


def selection_graph(
    decoding: Decoding, priors: int, classes: int, thresholds: Thresholds, opset: int, ir_version: int
) -> onnx.ModelProto:
    """From a head's predictions to `boxes`, `scores`, `labels` and `count`.

    priors: candidates of an image. classes: without background. boxes: (B, K, 4) xyxy pixels of the network's
    input. scores, labels: (B, K). count: (B,). K: `thresholds.keep`, or the number of candidates if that is
    less. The first `count` of an image are its detections, best first; after them come boxes and scores of 0
    and labels of -1. Needs the package onnx.
    """
    import onnx
    import onnx.numpy_helper
    import onnx.parser

    top_k = min(thresholds.top_k, priors)
    candidates = top_k * classes
    text = TEXT.format(
        ir=ir_version,
        opset=opset,
        inputs=decoding.inputs,
        constants=decoding.constants,
        decoding=decoding.nodes.strip(),
        score=float(thresholds.score),
        nms=float(thresholds.nms),
        top_k=top_k,
        candidates=candidates,
        keep=min(thresholds.keep, candidates),
    )
    graph: onnx.ModelProto = onnx.parser.parse_model(text)
    raised = np.zeros((1, 1, top_k), np.float32)
    raised[..., 0] = 2.0  # above any threshold; TopK has put the best candidate first
    for name, values in {**decoding.arrays, "raised": raised}.items():
        graph.graph.initializer.append(onnx.numpy_helper.from_array(np.ascontiguousarray(values), name))
    return graph

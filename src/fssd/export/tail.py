"""The end of a graph with `--nms`: softmax, decoding and per-class NMS as the multibox head does them.

Written in ONNX's own text form and appended to the graph of `fssd.export.graph`. NonMaxSuppression is run on
each class of each image as if it were an image of its own, on its `top_k` best priors, because the operator
itself limits what is kept and not what goes in.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from fssd.boxes import VARIANCES, to_center_size
from fssd.export.graph import OPSET
from fssd.model.network import Network
from fssd.runtimes.header import Thresholds
from fssd.runtimes.packages import require

if TYPE_CHECKING:
    import onnx

PREFIX = "nms/"  # of the names of these nodes, so that quantisation can leave them alone

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


def append_nms(model: onnx.ModelProto, network: Network, thresholds: Thresholds) -> onnx.ModelProto:
    """The graph with `boxes` (B, K, 4), `scores` (B, K), `labels` (B, K) and `count` (B,) for outputs.

    boxes: xyxy pixels of the network's input. K: `thresholds.keep`, or the number of candidates if that is
    less. The first `count` of an image are its detections, best first; after them come boxes and scores of 0
    and labels of -1.
    """
    tools = require("onnx", "export")
    priors = len(network.priors)
    columns = network.spec.num_classes + 1
    top_k = min(thresholds.top_k, priors)
    text = TEXT.format(
        ir=model.ir_version,
        opset=OPSET,
        priors=priors,
        columns=columns,
        score=float(thresholds.score),
        nms=float(thresholds.nms),
        top_k=top_k,
        candidates=top_k * network.spec.num_classes,
        keep=min(thresholds.keep, top_k * network.spec.num_classes),
    )
    tail = tools.parser.parse_model(text)
    shapes = to_center_size(network.priors.cpu()).numpy()
    constants = {
        "prior_centers": shapes[:, :2],
        "prior_sizes": shapes[:, 2:],
        "variances": np.array(VARIANCES, np.float32),
    }
    for name, values in constants.items():
        tail.graph.initializer.append(tools.numpy_helper.from_array(np.ascontiguousarray(values), name))
    tail = tools.compose.add_prefix(tail, PREFIX, rename_inputs=False, rename_outputs=False)
    joined: onnx.ModelProto = tools.compose.merge_models(
        model, tail, io_map=[(name, name) for name in ("offsets", "logits")]
    )
    return joined

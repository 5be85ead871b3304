"""From YOLOv2's predictions to boxes, scores and detections, in PyTorch and as a part of an ONNX graph."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, NamedTuple

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from fssd.heads.head import Candidates, Found, Thresholds
from fssd.heads.selection import Places, select
from fssd.heads.selection_graph import Decoding, selection_graph
from fssd.heads.selection_together import select_together
from fssd.heads.yolov2.anchors import Anchors

if TYPE_CHECKING:
    import onnx

Floats = npt.NDArray[np.float32]
BOX = 5  # numbers before those of the classes: x, y, width, height, objectness

INPUTS = "float[batch, {channels}, {rows}, {columns}] predictions"
CONSTANTS = (
    "float half = {{0.5}}, int64[4] by_anchor = {{0, {anchors}, {each}, {cells}}},"
    " int64[4] parts = {{2, 2, 1, {classes}}}, int64[3] box_rows = {{0, {priors}, 4}},"
    " int64[3] class_rows = {{0, {classes}, {priors}}}"
)
NODES = """
    shaped = Reshape(predictions, by_anchor)
    shift, growth, object, logits = Split<axis = 2>(shaped, parts)
    within = Sigmoid(shift)
    place_in_cells = Add(within, corners)
    center = Mul(place_in_cells, cell_size)
    factor = Exp(growth)
    size = Mul(factor, anchor_sizes)
    reach = Mul(size, half)
    low = Sub(center, reach)
    high = Add(center, reach)
    by_coordinate = Concat<axis = 2>(low, high)
    by_place = Transpose<perm = [0, 1, 3, 2]>(by_coordinate)
    decoded = Reshape(by_place, box_rows)

    objectness = Sigmoid(object)
    probabilities = Softmax<axis = 2>(logits)
    products = Mul(probabilities, objectness)
    by_class = Transpose<perm = [0, 2, 1, 3]>(products)
    objects = Reshape(by_class, class_rows)
"""


class RegionGrid(NamedTuple):
    """What is predicted where: anchors in cells, rows and columns of the map, (width, height) pixels of the
    input, classes.

    Predictions of an image are listed anchor by anchor, then row by row: A * H * W.
    """

    anchors: Anchors
    rows: int
    columns: int
    image_size: tuple[int, int]
    classes: int

    @property
    def cell(self) -> tuple[float, float]:
        """Width and height of a cell, pixels."""
        return self.image_size[0] / self.columns, self.image_size[1] / self.rows

    @property
    def channels(self) -> int:
        """Outputs of the last convolution."""
        return len(self.anchors) * (BOX + self.classes)

    def arrays(self) -> dict[str, Floats]:
        """Corners of the cells (1, 1, 2, H * W) in cells; cell size (1, 1, 2, 1) and those of the anchors
        (1, A, 2, 1) in pixels."""
        y, x = np.divmod(np.arange(self.rows * self.columns), self.columns)
        cell = np.array(self.cell)
        return {
            "corners": np.stack((x, y))[None, None].astype(np.float32),
            "cell_size": cell[None, None, :, None].astype(np.float32),
            "anchor_sizes": (np.array(self.anchors) * cell)[None, :, :, None].astype(np.float32),
        }


def detect_regions(predictions: Tensor, grid: RegionGrid, thresholds: Thresholds) -> list[Found]:
    """Detections of each image of a batch. predictions: (B, A * (5 + C), H, W)."""
    chosen = {"nms": thresholds.nms, "top_k": thresholds.top_k, "keep": thresholds.keep}
    if predictions.device.type != "cpu":
        boxes, scores = zip(*region_candidates(predictions.detach(), grid), strict=True)
        return select_together(torch.stack(scores).mT, torch.stack(boxes), least=thresholds.score, **chosen)  # type: ignore[arg-type]
    arrays = grid.arrays()
    return [
        _detect_one(image, grid, arrays, thresholds) for image in predictions.detach().float().cpu().numpy()
    ]


def _detect_one(
    predictions: Floats, grid: RegionGrid, arrays: dict[str, Floats], thresholds: Thresholds
) -> Found:
    by_anchor = predictions.reshape(len(grid.anchors), BOX + grid.classes, -1)  # (A, 5 + C, H * W)
    # A class scores no more than its box's objectness.
    object_ = _sigmoid(by_anchor[:, BOX - 1])
    anchor, cell = np.nonzero(object_ > thresholds.score)
    rows = by_anchor[anchor, :, cell].T  # (5 + C, R)
    powers = np.exp(rows[BOX:] - rows[BOX:].max(axis=0, initial=-np.inf))
    scores = powers / powers.sum(axis=0) * object_[anchor, cell]

    def boxes_of(column: Places) -> Floats:
        places, kinds, numbers = cell[column], anchor[column], rows[:4, column]
        centre = (_sigmoid(numbers[:2]) + arrays["corners"][0, 0][:, places]) * arrays["cell_size"][0, 0]
        with np.errstate(over="ignore"):  # untrained networks predict boxes of any size
            half = np.exp(numbers[2:]) * arrays["anchor_sizes"][0, kinds, :, 0].T / 2
        return np.ascontiguousarray(np.concatenate((centre - half, centre + half)).T)

    chosen = {"nms": thresholds.nms, "top_k": thresholds.top_k, "keep": thresholds.keep}
    return select(scores, boxes_of, least=thresholds.score, **chosen)  # type: ignore[arg-type]


def _sigmoid(x: Floats) -> Floats:
    with np.errstate(over="ignore"):  # then it is 0
        return np.asarray(1 / (1 + np.exp(-x)), np.float32)


def region_candidates(predictions: Tensor, grid: RegionGrid) -> list[Candidates]:
    """The box and the scores of every prediction of each image."""
    arrays = {name: torch.from_numpy(array).to(predictions.device) for name, array in grid.arrays().items()}
    shaped = predictions.float().reshape(len(predictions), len(grid.anchors), BOX + grid.classes, -1)
    shift, growth, object_, logits = torch.split(shaped, [2, 2, 1, grid.classes], dim=2)  # (B, A, ..., H * W)
    centre = (shift.sigmoid() + arrays["corners"]) * arrays["cell_size"]
    half = growth.exp() * arrays["anchor_sizes"] / 2
    boxes = torch.cat((centre - half, centre + half), dim=2).mT.flatten(1, 2)  # (B, A * H * W, 4)
    scores = (logits.softmax(dim=2) * object_.sigmoid()).mT.flatten(1, 2)  # (B, A * H * W, C)
    return [Candidates(*one) for one in zip(boxes, scores, strict=True)]


def region_graph(grid: RegionGrid, thresholds: Thresholds, opset: int, ir_version: int) -> onnx.ModelProto:
    """From predictions (B, A * (5 + C), H, W) to detections; see `selection_graph`."""
    anchors, cells = len(grid.anchors), grid.rows * grid.columns
    sizes = {"channels": grid.channels, "rows": grid.rows, "columns": grid.columns, "anchors": anchors}
    sizes |= {"cells": cells, "each": BOX + grid.classes, "classes": grid.classes, "priors": anchors * cells}
    decoding = Decoding(INPUTS.format(**sizes), CONSTANTS.format(**sizes), NODES, grid.arrays())
    return selection_graph(decoding, anchors * cells, grid.classes, thresholds, opset, ir_version)


def read_anchor_rows(rows: Sequence[Sequence[float]]) -> Anchors:
    """Anchors from their JSON form in an exported file. Raises TypeError or ValueError."""
    return tuple((float(width), float(height)) for width, height in rows)

"""YOLOv2's head: a 1x1 convolution, the region loss, and a softmax over the classes (YOLO9000, 2)."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor, nn

from fssd.data.batch import Targets
from fssd.errors import ConfigError
from fssd.heads.head import Candidates, Decode, Found, Head, HeadBlueprint, Origins, Raw, Thresholds
from fssd.heads.yolov2.anchors import Anchors, cluster_anchors, read_anchors, shape_overlaps
from fssd.heads.yolov2.region_decode import (
    BOX,
    RegionGrid,
    detect_regions,
    read_anchor_rows,
    region_candidates,
    region_graph,
)
from fssd.heads.yolov2.region_loss import region_loss
from fssd.heads.yolov2.region_targets import RegionTargets
from fssd.layers.first_weights import he
from fssd.necks.neck import Cells
from fssd.necks.yolov2 import generation_of

if TYPE_CHECKING:
    import onnx

WARM_IMAGES = 12_800  # images of training during which empty predictions are pulled towards their anchors


class YOLOv2Head(Head):
    """grid: anchors, cells and input of the network's own size. by_size: see `region_loss`.

    seen: images that it was trained on, by all processes; part of the weights, as in darknet's files.
    """

    known_options = frozenset({"priors", "generation"})
    outputs = ("predictions",)
    # darknet's evaluation: no limit on candidates and detections
    thresholds = Thresholds(score=0.005, nms=0.45, top_k=100_000, keep=100_000)
    before_classes = BOX
    any_size = True
    matching = (
        "Training gives every object to the prior of the most similar shape in the cell of its centre;"
        " overlaps are those of the shapes, since a prediction moves within its cell."
    )
    unmatched = "the others are learned from a prior of another shape"
    anchors: Tensor
    class_weights: Tensor | None
    seen: Tensor

    def __init__(self, channels: int, grid: RegionGrid, by_size: bool = True) -> None:
        super().__init__()
        self.grid, self.by_size = grid, by_size
        self.last = nn.Conv2d(channels, grid.channels, 1)
        self.targets = RegionTargets(grid.image_size)
        self.register_buffer("class_weights", None, persistent=False)
        self.register_buffer("anchors", torch.tensor(grid.anchors), persistent=False)
        self.register_buffer("seen", torch.zeros((), dtype=torch.int64))

    @classmethod
    def build(cls, blueprint: HeadBlueprint) -> YOLOv2Head:
        """See `Head`. Options:

        priors: the anchors of "voc" or "coco", or fitted ones as `fitted` returns them. generation: 2017, or
        2016 (see `YOLOv2`): its anchors, and boxes of all sizes weighted alike.
        """
        if len(blueprint.channels) != 1:
            raise ConfigError(
                f"YOLOv2's head predicts from one map, but this neck gives {len(blueprint.channels)};"
                " use its own neck"
            )
        generation = generation_of(blueprint.options)
        anchors = read_anchors(blueprint.options["priors"], generation)
        (rows, columns) = blueprint.cells[0]
        grid = RegionGrid(anchors, rows, columns, blueprint.image_size, blueprint.num_classes)
        return cls(blueprint.channels[0], grid, by_size=generation > 2016)

    def forward(self, levels: list[Tensor]) -> Raw:
        """One map to predictions (B, A * (5 + C), rows, columns), anchor by anchor; see `region_loss`."""
        (x,) = levels
        return (self.last(x),)

    def initialise(self) -> None:
        """See `Head`: by darknet's rule."""
        he(self)

    def loss(self, raw: Raw, targets: Targets, counts: Tensor | None = None) -> dict[str, Tensor]:
        """See `region_loss`."""
        return region_loss(
            raw[0],
            targets,
            self.anchors,
            warm=self.seen < WARM_IMAGES,
            by_size=self.by_size,
            images=counts,
            class_weights=self.class_weights,
        )

    def weigh_classes(self, weights: Tensor) -> None:
        """See `Head`."""
        self.class_weights = weights

    def counts(self, targets: Targets) -> Tensor:
        """See `Head`: the number of images, a scalar."""
        return torch.full((), len(targets["labels"]), device=targets["labels"].device)

    def count_images(self, images: int) -> None:
        """See `Head`."""
        self.seen += images

    def detect(self, raw: Raw, thresholds: Thresholds) -> list[Found]:
        """See `Head`: softmax times objectness, then NMS in each class."""
        return detect_regions(raw[0], self.grid, thresholds)

    def candidates(self, raw: Raw) -> list[Candidates]:
        """See `Head`: every anchor in every cell."""
        return region_candidates(raw[0], self.grid)

    def origins(self) -> Origins:
        """See `Head`: each anchor in the middle of its cell, anchor by anchor, then row by row."""
        grid = self.grid
        shape, row, column = np.indices((len(grid.anchors), grid.rows, grid.columns)).reshape(3, -1)
        centre = (np.stack((column, row), axis=1) + 0.5) * grid.cell
        half = np.array(grid.anchors)[shape] * grid.cell / 2
        priors = np.concatenate((centre - half, centre + half), axis=1).astype(np.float32)
        return Origins(priors, np.zeros_like(row), row, column, shape)

    def describe(self) -> dict[str, Any]:
        """The anchors and the cells."""
        grid = self.grid
        return {"anchors": [list(shape) for shape in grid.anchors], "cells": [grid.rows, grid.columns]}

    @classmethod
    def decoder(cls, document: Mapping[str, Any]) -> Decode:
        """See `Head`."""
        grid = _grid(document)

        def decode(outputs: Sequence[npt.NDArray[Any]], thresholds: Thresholds) -> list[Found]:
            return detect_regions(torch.from_numpy(outputs[0]), grid, thresholds)

        return decode

    @classmethod
    def output_shapes(cls, document: Mapping[str, Any]) -> dict[str, tuple[int, ...]]:
        """See `Head`."""
        grid = _grid(document)
        return {"predictions": (grid.channels, grid.rows, grid.columns)}

    def class_layers(self) -> list[str]:
        """See `Head`."""
        return ["last"]

    def fitted(self, boxes: npt.NDArray[np.float32], coverage: float | None = None) -> dict[str, Any]:
        """See `Head`: as many anchors as now, by k-means."""
        if coverage is not None:
            raise ConfigError("YOLOv2's anchors are as many as they are; leave out --prior-coverage")
        shapes = self._in_cells(boxes)
        anchors: Anchors = cluster_anchors(shapes, len(self.grid.anchors)) or self.grid.anchors
        return {"priors": {"anchors": [list(shape) for shape in anchors]}}

    def enlarged(self, priors: Mapping[str, Any], growth: float) -> dict[str, Any]:  # noqa: ARG002
        """See `Head`: as they are. In the authors' training the input changes and the anchors do not."""
        return dict(priors)

    def best_overlaps(self, boxes: npt.NDArray[np.float32]) -> npt.NDArray[np.float64]:
        """See `Head`: of shapes at one centre, since a prediction moves within its cell."""
        overlaps = shape_overlaps(self._in_cells(boxes), np.array(self.grid.anchors))
        return np.asarray(overlaps.max(axis=1))

    def prior_shapes(self) -> npt.NDArray[np.float64]:
        """See `Head`."""
        return np.asarray(np.array(self.grid.anchors) * self.grid.cell)

    def change_size(
        self,
        image_size: tuple[int, int],
        cells: Sequence[Cells],
        steps: Sequence[tuple[float, float]],
    ) -> None:
        """See `Head`. Anchors keep their sizes in cells, and so in pixels.

        Raises ConfigError where the cells do not divide the image, as the decoding of boxes takes them to.
        """
        ((rows, columns),) = cells
        width, height = image_size
        ((x, y),) = steps
        if not (math.isclose(x * columns, width) and math.isclose(y * rows, height)):
            raise ConfigError(
                f"{width} x {height} px are not {columns} x {rows} cells of {x:g} x {y:g} px; choose"
                " sides that are multiples of these"
            )
        self.grid = self.grid._replace(rows=rows, columns=columns, image_size=image_size)
        self.targets = RegionTargets(image_size)

    def summary(self) -> str:
        """See `Head`."""
        grid = self.grid
        total = len(grid.anchors) * grid.rows * grid.columns
        return f"priors: {total:,}, {len(grid.anchors)} anchors in each of {grid.columns} x {grid.rows} cells"

    def nms_graph(self, thresholds: Thresholds, opset: int, ir_version: int) -> onnx.ModelProto:
        """See `Head`."""
        return region_graph(self.grid, thresholds, opset, ir_version)

    def _in_cells(self, boxes: npt.NDArray[np.float32]) -> npt.NDArray[np.float64]:
        sides = boxes[:, 2:].astype(np.float64) - boxes[:, :2]
        return np.asarray(sides / self.grid.cell)


def _grid(document: Mapping[str, Any]) -> RegionGrid:
    """Raises KeyError, TypeError or ValueError."""
    rows, columns = (int(count) for count in document["cells"])
    side = document["image_size"]
    size = (side, side) if isinstance(side, int) else (int(side[0]), int(side[1]))
    return RegionGrid(read_anchor_rows(document["anchors"]), rows, columns, size, len(document["classes"]))

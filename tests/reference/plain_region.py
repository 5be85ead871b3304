"""YOLOv2's region loss and decoding in plain loops and float64: slow and obvious, one cell at a time.

Imports nothing from the package.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np

Box = tuple[float, float, float, float]  # centre x, centre y, width, height


def sigmoid(x: float) -> float:
    return 1 / (1 + math.exp(-x))


def overlap(a: Box, b: Box) -> float:
    """IoU of two boxes given by centre and size."""
    shared = 1.0
    for axis in (0, 1):
        low = max(a[axis] - a[axis + 2] / 2, b[axis] - b[axis + 2] / 2)
        high = min(a[axis] + a[axis + 2] / 2, b[axis] + b[axis + 2] / 2)
        if high <= low:
            return 0.0
        shared *= high - low
    return shared / (a[2] * a[3] + b[2] * b[3] - shared)


def predicted_box(
    numbers: np.ndarray, i: int, j: int, anchor: Sequence[float], columns: int, rows: int
) -> Box:
    """As shares of the image."""
    x, y = (i + sigmoid(numbers[0])) / columns, (j + sigmoid(numbers[1])) / rows
    return x, y, math.exp(numbers[2]) * anchor[0] / columns, math.exp(numbers[3]) * anchor[1] / rows


def class_shares(numbers: np.ndarray) -> list[float]:
    powers = [math.exp(value) for value in numbers[5:]]
    return [power / sum(powers) for power in powers]


def plain_region_loss(
    predictions: np.ndarray,
    truths: Sequence[Sequence[tuple[int, Box]]],
    anchors: Sequence[Sequence[float]],
    *,
    warm: bool,
    by_size: bool = True,
) -> dict[str, float]:
    """predictions: (B, A * (5 + C), H, W) float64. truths: of each image (label, box as shares of it)."""
    batch, channels, rows, columns = predictions.shape
    each = channels // len(anchors)
    sums = dict.fromkeys(("box", "object", "empty", "class", "prior"), 0.0)
    for image, objects in enumerate(truths):
        numbers = {
            (a, j, i): predictions[image, a * each : (a + 1) * each, j, i]
            for a in range(len(anchors))
            for j in range(rows)
            for i in range(columns)
        }
        owners: dict[tuple[int, int, int], tuple[int, Box]] = {}
        for label, box in objects:
            i, j = min(int(box[0] * columns), columns - 1), min(int(box[1] * rows), rows - 1)
            fits = [
                overlap((0, 0, box[2] * columns, box[3] * rows), (0, 0, anchor[0], anchor[1]))
                for anchor in anchors
            ]
            owners[fits.index(max(fits)), j, i] = (label, box)
        for (a, j, i), values in numbers.items():
            shape = predicted_box(values, i, j, anchors[a], columns, rows)
            if (a, j, i) not in owners:
                if all(overlap(shape, box) <= 0.6 for _, box in objects):
                    sums["empty"] += 0.5 * sigmoid(values[4]) ** 2
                if warm:
                    middle = (sigmoid(values[0]) - 0.5) ** 2 + (sigmoid(values[1]) - 0.5) ** 2
                    sums["prior"] += 0.5 * 0.01 * (middle + values[2] ** 2 + values[3] ** 2)
                continue
            label, box = owners[a, j, i]
            distance = (sigmoid(values[0]) - (box[0] * columns - i)) ** 2
            distance += (sigmoid(values[1]) - (box[1] * rows - j)) ** 2
            distance += (values[2] - math.log(box[2] * columns / anchors[a][0])) ** 2
            distance += (values[3] - math.log(box[3] * rows / anchors[a][1])) ** 2
            sums["box"] += 0.5 * (2 - box[2] * box[3] if by_size else 1) * distance
            sums["object"] += 0.5 * 5 * (sigmoid(values[4]) - overlap(shape, box)) ** 2
            sums["class"] -= math.log(class_shares(values)[label])
    terms = {f"loss_{name}": value / batch for name, value in sums.items()}
    return {"loss": sum(terms.values()), **terms}


def plain_detections(
    predictions: np.ndarray,
    anchors: Sequence[Sequence[float]],
    size: tuple[int, int],
    score: float,
    nms: float,
) -> list[tuple[int, float, Box]]:
    """(label, score, xyxy in pixels of the input) of one image (A * (5 + C), H, W), best first."""
    channels, rows, columns = predictions.shape
    each = channels // len(anchors)
    found: list[tuple[int, float, Box]] = []
    for a, anchor in enumerate(anchors):
        for j in range(rows):
            for i in range(columns):
                values = predictions[a * each : (a + 1) * each, j, i].astype(float)
                box = predicted_box(values, i, j, anchor, columns, rows)
                for label, share in enumerate(class_shares(values)):
                    if sigmoid(values[4]) * share > score:
                        found.append((label, sigmoid(values[4]) * share, box))
    found.sort(key=lambda one: -one[1])
    kept: list[tuple[int, float, Box]] = []
    for one in found:
        if all(one[0] != other[0] or overlap(one[2], other[2]) <= nms for other in kept):
            kept.append(one)
    width, height = size
    return [
        (
            label,
            value,
            (
                (x - w / 2) * width,
                (y - h / 2) * height,
                (x + w / 2) * width,
                (y + h / 2) * height,
            ),
        )
        for label, value, (x, y, w, h) in kept
    ]

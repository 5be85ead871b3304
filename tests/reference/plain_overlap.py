"""GIoU, CIoU and the focal losses one number after the other, as their papers state them."""

from __future__ import annotations

import math
from collections.abc import Sequence

from plain import plain_iou

Box = Sequence[float]


def plain_giou_loss(a: Box, b: Box) -> float:
    """Rezatofighi et al. 2019, Algorithm 1."""
    overlap = plain_iou(a, b)
    width, height = max(0.0, min(a[2], b[2]) - max(a[0], b[0])), max(0.0, min(a[3], b[3]) - max(a[1], b[1]))
    union = (a[2] - a[0]) * (a[3] - a[1]) + (b[2] - b[0]) * (b[3] - b[1]) - width * height
    hull = (max(a[2], b[2]) - min(a[0], b[0])) * (max(a[3], b[3]) - min(a[1], b[1]))
    return 1 - (overlap - (hull - union) / hull)


def plain_ciou_weight(predicted: Box, truth: Box) -> float:
    """The trade-off alpha of Zheng et al. 2020, eq. 11; a constant for the gradient."""
    v = plain_aspect(predicted, truth)
    return v / (1 - plain_iou(predicted, truth) + v) if v else 0.0


def plain_aspect(predicted: Box, truth: Box) -> float:
    """v of Zheng et al. 2020, eq. 9."""
    angles = [math.atan((box[2] - box[0]) / (box[3] - box[1])) for box in (truth, predicted)]
    return 4 / math.pi**2 * (angles[0] - angles[1]) ** 2


def plain_ciou_loss(predicted: Box, truth: Box, weight: float | None = None) -> float:
    """Zheng et al. 2020, eq. 10. weight: alpha, if it is not that of these boxes."""
    a, b = predicted, truth
    apart = ((a[0] + a[2] - b[0] - b[2]) / 2) ** 2 + ((a[1] + a[3] - b[1] - b[3]) / 2) ** 2
    diagonal = (max(a[2], b[2]) - min(a[0], b[0])) ** 2 + (max(a[3], b[3]) - min(a[1], b[1])) ** 2
    weight = plain_ciou_weight(a, b) if weight is None else weight
    return 1 - plain_iou(a, b) + apart / diagonal + weight * plain_aspect(a, b)


def sigmoid(x: float) -> float:
    return 1 / (1 + math.exp(-x)) if x >= 0 else math.exp(x) / (1 + math.exp(x))


def plain_focal_loss(logit: float, present: bool) -> float:
    """Lin et al. 2017, eq. 5, with gamma 2 and alpha 0.25."""
    p = sigmoid(logit)
    share, weight = (p, 0.25) if present else (1 - p, 0.75)
    return -weight * (1 - share) ** 2 * math.log(share)


def plain_quality_focal_loss(logit: float, quality: float) -> float:
    """Li et al. 2020, eq. 4, with beta 2."""
    p = sigmoid(logit)
    return -((quality - p) ** 2) * ((1 - quality) * math.log(1 - p) + quality * math.log(p))

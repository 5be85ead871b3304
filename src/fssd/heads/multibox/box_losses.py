"""Losses on pairs of boxes that follow their overlap: generalised IoU and complete IoU.

Sources: Rezatofighi et al. 2019 (GIoU, Algorithm 1), Zheng et al. 2020 (CIoU, eq. 8 to 11).
"""

from __future__ import annotations

import math
from typing import NamedTuple

import torch
from torch import Tensor

from fssd.boxes import area

LEAST = 1e-7  # pixels, or square pixels: no division by less


class Pairs(NamedTuple):
    """What two boxes of a pair have in common.

    overlap: (...) IoU. union: (...) area. hull: (..., 2) width and height of the smallest box around both.
    """

    overlap: Tensor
    union: Tensor
    hull: Tensor


def compare_pairs(a: Tensor, b: Tensor) -> Pairs:
    """Boxes (..., 4) xyxy against the boxes (..., 4) of the same index; two boxes without area have IoU 0."""
    low, high = torch.maximum(a[..., :2], b[..., :2]), torch.minimum(a[..., 2:], b[..., 2:])
    shared = (high - low).clamp(min=0).prod(dim=-1)
    union = area(a) + area(b) - shared
    hull = torch.maximum(a[..., 2:], b[..., 2:]) - torch.minimum(a[..., :2], b[..., :2])
    return Pairs(shared / union.clamp(min=LEAST), union, hull)


def giou_loss(predicted: Tensor, truth: Tensor) -> Tensor:
    """1 - GIoU of each pair of boxes (..., 4) xyxy pixels: (...), 0 for equal boxes, below 2."""
    pairs = compare_pairs(predicted, truth)
    hull = pairs.hull.prod(dim=-1)
    return 1 - pairs.overlap + (hull - pairs.union) / hull.clamp(min=LEAST)


def ciou_loss(predicted: Tensor, truth: Tensor) -> Tensor:
    """1 - CIoU of each pair of boxes (..., 4) xyxy pixels: (...), 0 for equal boxes.

    The distance of the centres as a share of the hull's diagonal, and the difference of the aspect ratios,
    are added to 1 - IoU. The weight of the latter is a constant for the gradient, as in the authors' code.
    """
    pairs = compare_pairs(predicted, truth)
    apart = ((_centre(predicted) - _centre(truth)) ** 2).sum(dim=-1)
    diagonal = pairs.hull.square().sum(dim=-1)
    difference = (_aspect(truth) - _aspect(predicted)).square() * (4 / math.pi**2)
    with torch.no_grad():
        weight = difference / (1 - pairs.overlap + difference).clamp(min=LEAST)
    return 1 - pairs.overlap + apart / diagonal.clamp(min=LEAST) + weight * difference


def _centre(boxes: Tensor) -> Tensor:
    return (boxes[..., :2] + boxes[..., 2:]) / 2


def _aspect(boxes: Tensor) -> Tensor:
    """(...) arctangent of width / height."""
    width, height = (boxes[..., 2:] - boxes[..., :2]).unbind(dim=-1)
    return torch.atan2(width, height.clamp(min=LEAST))  # at (0, 0) its gradient would be nan

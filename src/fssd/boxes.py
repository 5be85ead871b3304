"""Box mathematics on tensors: conversion, IoU, clipping, the centre-size coder, and greedy NMS.

A box is (x1, y1, x2, y2) in pixels. Normalised or centre-size forms exist only inside the functions
that say so in their names. No function here knows about models, data sets or configuration.
"""

from __future__ import annotations

import torch
from torch import Tensor

VARIANCES = (0.1, 0.1, 0.2, 0.2)
"""Scale of (cx, cy, w, h) offsets in the coder, as in Caffe SSD's prior boxes."""


def to_center_size(boxes: Tensor) -> Tensor:
    """(..., 4) corners (x1, y1, x2, y2) to (..., 4) centre-size (cx, cy, w, h), same unit."""
    low, high = boxes[..., :2], boxes[..., 2:]
    return torch.cat(((low + high) / 2, high - low), dim=-1)


def to_corners(boxes: Tensor) -> Tensor:
    """(..., 4) centre-size (cx, cy, w, h) to (..., 4) corners (x1, y1, x2, y2), same unit."""
    center, half = boxes[..., :2], boxes[..., 2:] / 2
    return torch.cat((center - half, center + half), dim=-1)


def area(boxes: Tensor) -> Tensor:
    """(..., 4) corners to (...) areas; an inverted box has area 0."""
    return (boxes[..., 2] - boxes[..., 0]).clamp(min=0) * (boxes[..., 3] - boxes[..., 1]).clamp(min=0)


def iou(a: Tensor, b: Tensor) -> Tensor:
    """Intersection over union of every box of `a` (..., N, 4) with every box of `b` (..., M, 4): (..., N, M).

    A pair whose union is empty has IoU 0.
    """
    low = torch.maximum(a[..., :, None, :2], b[..., None, :, :2])
    high = torch.minimum(a[..., :, None, 2:], b[..., None, :, 2:])
    side = (high - low).clamp(min=0)
    shared = side[..., 0] * side[..., 1]
    union = area(a)[..., :, None] + area(b)[..., None, :] - shared
    return torch.where(union > 0, shared / union.clamp(min=torch.finfo(union.dtype).tiny), 0.0)


def clip(boxes: Tensor, width: float, height: float) -> Tensor:
    """(..., 4) corners, cut to the image 0..width, 0..height."""
    x = boxes[..., 0::2].clamp(0, width)
    y = boxes[..., 1::2].clamp(0, height)
    return torch.stack((x[..., 0], y[..., 0], x[..., 1], y[..., 1]), dim=-1)


def encode(boxes: Tensor, priors: Tensor, variances: tuple[float, float, float, float] = VARIANCES) -> Tensor:
    """Offsets (..., 4) that turn `priors` into `boxes`, both (..., 4) corners in one unit.

    ((cx - cx_p) / w_p, (cy - cy_p) / h_p, log(w / w_p), log(h / h_p)) / variances, SSD eq. 2.
    The result does not depend on the unit. Boxes need positive width and height.
    """
    box, prior = to_center_size(boxes), to_center_size(priors)
    shift = (box[..., :2] - prior[..., :2]) / prior[..., 2:]
    scale = torch.log(box[..., 2:] / prior[..., 2:])
    return torch.cat((shift, scale), dim=-1) / boxes.new_tensor(variances)


def decode(
    offsets: Tensor, priors: Tensor, variances: tuple[float, float, float, float] = VARIANCES
) -> Tensor:
    """Boxes (..., 4) corners that `offsets` (..., 4) make of `priors` (P, 4): the inverse of `encode`."""
    prior = to_center_size(priors)
    scaled = offsets * offsets.new_tensor(variances)
    center = prior[..., :2] + scaled[..., :2] * prior[..., 2:]
    size = prior[..., 2:] * torch.exp(scaled[..., 2:])
    return to_corners(torch.cat((center, size), dim=-1))


def suppress(boxes: Tensor, threshold: float) -> Tensor:
    """Greedy non-maximum suppression of boxes sorted by falling score: (..., K, 4) to (..., K) bool keep.

    A box is dropped if an earlier *kept* box overlaps it by IoU > `threshold` (Caffe keeps equality).
    Leading dimensions (classes, images) are independent. Padding boxes of area 0 suppress nothing.

    Greedy NMS is the unique fixed point of keep[i] = no kept j < i overlaps i; the right answer for the
    first n boxes is final after n rounds, so repeating until nothing changes gives exactly its result,
    in a handful of whole-tensor steps instead of K small ones.
    """
    overlaps = torch.triu(iou(boxes, boxes) > threshold, diagonal=1)  # (..., K, K): [j, i], j before i
    rivals = overlaps.to(torch.float32)
    keep = torch.ones(boxes.shape[:-1], dtype=torch.float32, device=boxes.device)
    while True:
        next_keep = (torch.matmul(keep[..., None, :], rivals)[..., 0, :] == 0).to(torch.float32)
        if torch.equal(next_keep, keep):
            return keep.bool()
        keep = next_keep

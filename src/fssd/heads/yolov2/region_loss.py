"""The region loss of YOLOv2 (YOLO9000, 2; pjreddie/darknet, region_layer.c) as an explicit objective.

Darknet has gradients and no loss; this is the function that they belong to. It is dense and masked, so that
nothing in it waits for the device: no size depends on how many objects there are.
"""

from __future__ import annotations

from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor

from fssd.boxes import iou
from fssd.data.batch import Targets

OBJECT, EMPTY = 5.0, 1.0  # weights of the objectness of anchors with and without an object
UNDECIDED = 0.6  # IoU with an object above which an anchor that is not the object's own may have one too
PRIOR = 0.01  # weight of the pull towards the anchors at the beginning


class Assigned(NamedTuple):
    """Which prediction learns which object.

    anchor: (B, T) the anchor of each. cell: (B, T) of its prediction, anchor by anchor, row by row. offset:
    (B, T, 2) from the corner of its cell, cells. kept: (B, T) whether it is learned: not where there is no
    object or a later one takes the same prediction. own: (B, A * H * W) the predictions that learn one.
    """

    anchor: Tensor
    cell: Tensor
    offset: Tensor
    kept: Tensor
    own: Tensor


def region_loss(
    predictions: Tensor,
    targets: Targets,
    anchors: Tensor,
    *,
    warm: Tensor,
    by_size: bool = True,
    images: Tensor | None = None,
    class_weights: Tensor | None = None,
) -> dict[str, Tensor]:
    """The training objective of one batch: sums over an image, mean over the batch.

    predictions: (B, A * (5 + C), H, W), of each anchor x, y, width, height, objectness, classes, before any
    function. targets: see `RegionTargets`. anchors: (A, 2), cells. warm: bool scalar, whether the network has
    seen few images: then predictions without an object are pulled towards their anchors. by_size: weight the
    box of an object by 2 - its share of the image. images: of the larger batch that this one is a part of,
    and over which the mean is taken. class_weights: (C,) of the loss of classes.

    Returns "loss", its parts, "objects", the number that is learned, and "overlap", their mean IoU.
    """
    raw = _by_anchor(_exact(predictions), len(anchors))  # (B, A, H, W, 5 + C)
    rows, columns = raw.shape[2:4]
    truths = _in_cells(targets["boxes"], rows, columns)
    valid = targets["labels"] >= 0
    assigned = _assign(truths, valid, anchors, (rows, columns))
    flat = raw.flatten(1, 3)  # (B, N, 5 + C)
    shift, growth, object_ = flat[..., :2].sigmoid(), flat[..., 2:4], flat[..., 4].sigmoid()
    with torch.no_grad():
        overlaps = iou(_corners(_boxes(raw, anchors).flatten(1, 3)), _corners(truths)) * valid[:, None]
        own_overlap = overlaps.gather(1, assigned.cell[:, None])[:, 0]  # (B, T)
        empty = (overlaps.amax(dim=-1) <= UNDECIDED) & ~assigned.own
    own = flat.gather(1, assigned.cell[..., None].expand(-1, -1, flat.shape[-1]))  # (B, T, 5 + C)
    distance = _distance(own, truths, assigned.offset, anchors[assigned.anchor])
    weight = 2 - targets["boxes"][..., 2:].prod(dim=-1) if by_size else 1.0
    classes = _class_loss(own[..., 5:], targets["labels"].clamp(min=0), class_weights)
    pull = (shift - 0.5).square().sum(dim=-1) + growth.square().sum(dim=-1)

    def mean(values: Tensor, where: Tensor) -> Tensor:
        return torch.where(where, values, 0.0).sum() / (len(predictions) if images is None else images)

    terms = {
        "loss_box": mean(0.5 * weight * distance, assigned.kept),
        "loss_object": mean(0.5 * OBJECT * (own[..., 4].sigmoid() - own_overlap).square(), assigned.kept),
        "loss_empty": mean(0.5 * EMPTY * object_.square(), empty),
        "loss_class": mean(classes, assigned.kept),
        "loss_prior": mean(0.5 * PRIOR * pull, ~assigned.own & warm),
    }
    objects = assigned.kept.sum()
    overlap = torch.where(assigned.kept, own_overlap, 0.0).sum() / objects.clamp(min=1)
    return {"loss": torch.stack(list(terms.values())).sum(), **terms, "objects": objects, "overlap": overlap}


def _exact(predictions: Tensor) -> Tensor:
    """In float32 at least."""
    return predictions.to(torch.promote_types(predictions.dtype, torch.float32))


def _in_cells(boxes: Tensor, rows: int, columns: int) -> Tensor:
    """Boxes (B, T, 4) in shares of the image to cells."""
    sides = (columns, rows, columns, rows)
    return torch.stack([boxes[..., i] * side for i, side in enumerate(sides)], dim=-1)


def _distance(own: Tensor, truths: Tensor, offset: Tensor, anchors: Tensor) -> Tensor:
    """(B, T) squared distance of the predictions own (B, T, 5 + C) from truths (B, T, 4), cells.

    offset: (B, T, 2) of the centre in its cell. anchors: (B, T, 2), cells.
    """
    wanted = (truths[..., 2:].clamp(min=1e-9) / anchors).log()
    distance = (own[..., :2].sigmoid() - offset).square() + (own[..., 2:4] - wanted).square()
    return distance.sum(dim=-1)


def _class_loss(logits: Tensor, labels: Tensor, weights: Tensor | None) -> Tensor:
    """(B, T) the cross entropy of logits (B, T, C) with labels (B, T). weights: (C,) of the classes."""
    return F.cross_entropy(logits.mT, labels, weights, reduction="none")


def _assign(truths: Tensor, valid: Tensor, anchors: Tensor, grid: tuple[int, int]) -> Assigned:
    """Each object to its cell and the anchor of the most similar shape. truths: (B, T, 4), cells."""
    rows, columns = grid
    x, y = truths[..., 0].floor().clamp(max=columns - 1), truths[..., 1].floor().clamp(max=rows - 1)
    shared = torch.minimum(truths[..., None, 2:], anchors).prod(dim=-1)  # (B, T, A)
    union = truths[..., 2:].prod(dim=-1, keepdim=True) + anchors.prod(dim=-1) - shared
    anchor = (shared / union).argmax(dim=-1)
    index = (anchor * rows + y.long()) * columns + x.long()
    later = torch.ones(len(index[0]), len(index[0]), dtype=torch.bool, device=index.device).triu(1)
    taken = (index[:, :, None] == index[:, None]) & valid[:, None] & later
    kept = valid & ~taken.any(dim=-1)
    total = len(anchors) * rows * columns
    own = torch.zeros(len(index), total + 1, dtype=torch.bool, device=index.device)
    own.scatter_(1, torch.where(kept, index, total), True)  # the one too many takes what is not kept
    return Assigned(anchor, index, truths[..., :2] - torch.stack((x, y), dim=-1), kept, own[:, :total])


def _by_anchor(predictions: Tensor, anchors: int) -> Tensor:
    batch, channels, rows, columns = predictions.shape
    shaped = predictions.reshape(batch, anchors, channels // anchors, rows, columns)
    return shaped.permute(0, 1, 3, 4, 2)


def _boxes(raw: Tensor, anchors: Tensor) -> Tensor:
    """(B, A, H, W, 5 + C) to (B, A, H, W, 4) centre, width and height, cells."""
    rows, columns = raw.shape[2:4]
    y, x = torch.meshgrid(
        torch.arange(rows, device=raw.device), torch.arange(columns, device=raw.device), indexing="ij"
    )
    centre = raw[..., :2].sigmoid() + torch.stack((x, y), dim=-1)
    return torch.cat((centre, raw[..., 2:4].exp() * anchors[:, None, None]), dim=-1)


def _corners(boxes: Tensor) -> Tensor:
    """(..., 4) centre, width and height to xyxy."""
    half = boxes[..., 2:] / 2
    return torch.cat((boxes[..., :2] - half, boxes[..., :2] + half), dim=-1)

"""The multibox loss: of boxes and of classes (SSD 2.2), with the losses that later work puts in their place.

Dense and masked, so that nothing in it waits for the device: no size depends on how many priors are positive.
"""

from __future__ import annotations

import math
from collections.abc import Iterator

import torch
import torch.nn.functional as F
from torch import Tensor

from fssd.boxes import VARIANCES, decode
from fssd.data.batch import Targets
from fssd.heads.multibox.box_losses import ciou_loss, compare_pairs, giou_loss
from fssd.heads.multibox.focal import class_targets, focal_loss, quality_focal_loss
from fssd.heads.multibox.objective import SSD_OBJECTIVE, Objective
from fssd.heads.multibox.raw import Raw

BACKGROUND = 0
# The most that a predicted side is longer or shorter than its prior's, as Faster R-CNN's code has it: exp of
# more would overflow in a bad start.
MOST_GROWTH = math.log(1000 / 16)


def multibox_loss(
    raw: Raw,
    targets: Targets,
    priors: Tensor,
    objective: Objective = SSD_OBJECTIVE,
    *,
    negatives: float = 3.0,
    counts: Tensor | None = None,
    class_weights: Tensor | None = None,
) -> dict[str, Tensor]:
    """The training objective for one batch.

    raw: offsets (B, P, 4), logits (B, P, C + 1), or (B, P, C) for a sigmoid of each class. targets: "classes"
    (B, P) and "offsets" (B, P, 4), see `MultiboxTargets`. priors: (P, 4) xyxy pixels. negatives: background
    priors that the softmax mines per positive, those with the largest background loss. Returns "loss", its
    parts "loss_loc" and "loss_conf", and "positives", the number of matched priors.

    Sums run over positives, for boxes, and for classes over positives and mined negatives, or over all priors
    where nothing is mined. They are divided by the number of positives in the batch, as in Caffe: images with
    objects have exactly the released loss. Views without an object, which Caffe ignores, add the loss of
    their `negatives` hardest priors to the same sum; a batch of such views alone is divided by the number of
    its images. counts: (2,) positives and images of a larger batch that this one is a part of, and whose
    numbers are to be divided by. class_weights: (C,) multiply the confidence loss of positives, by class.
    """
    exact = torch.promote_types(raw.offsets.dtype, torch.float32)
    offsets, logits = raw.offsets.to(exact), raw.logits.to(exact)
    classes = targets["classes"].long()
    positive = classes != BACKGROUND
    count = positive.sum(dim=1)  # (B,)
    if objective.by_overlap:
        boxes = _boxes(offsets, targets, priors, positive)
    if objective.localisation == "smooth_l1":
        distance = F.smooth_l1_loss(offsets, targets["offsets"], reduction="none").sum(dim=-1)
    else:
        distance = (giou_loss if objective.localisation == "giou" else ciou_loss)(*boxes)
    localisation = torch.where(positive, distance, 0.0).sum() * objective.localisation_weight
    if objective.confidence == "softmax":
        confidence = _softmax_loss(logits, classes, count, negatives, objective.mining, class_weights)
    else:
        quality = positive.to(exact) if objective.confidence == "focal" else _quality(*boxes, positive)
        confidence = _sigmoid_loss(logits, classes, quality, objective.confidence, class_weights)
    positives = count.sum()
    localisation, confidence = _shared_out((localisation, confidence), count, counts)
    return {
        "loss": localisation + confidence,
        "loss_loc": localisation,
        "loss_conf": confidence,
        "positives": positives,
    }


def count_positives(targets: Targets) -> Tensor:
    """(2,) int64 numbers of positives and of images in a batch."""
    classes = targets["classes"]
    images = torch.full((), len(classes), device=classes.device)
    return torch.stack(((classes != BACKGROUND).sum(), images))


def _boxes(offsets: Tensor, targets: Targets, priors: Tensor, positive: Tensor) -> tuple[Tensor, Tensor]:
    """Predicted and true boxes of all priors (B, P, 4), xyxy pixels; for background both are the prior."""
    # Masked before decoding: masked after it, boxes that overflow would still have the gradient nan.
    own = torch.where(positive[..., None], offsets, 0.0)
    most = MOST_GROWTH / VARIANCES[2]
    own = torch.cat((own[..., :2], own[..., 2:].clamp(-most, most)), dim=-1)
    priors = priors.to(own.dtype)
    return decode(own, priors), decode(targets["offsets"].to(own.dtype), priors)


def _quality(predicted: Tensor, truth: Tensor, positive: Tensor) -> Tensor:
    """(B, P) IoU of the predicted boxes with the true ones, 0 for background; a constant for the gradient."""
    with torch.no_grad():
        return torch.where(positive, compare_pairs(predicted, truth).overlap, 0.0)


def _shared_out(sums: tuple[Tensor, ...], count: Tensor, counts: Tensor | None) -> Iterator[Tensor]:
    """The sums over a batch divided by its positives, or by its images if it has none. count: (B,) positives.

    counts: (2,) positives and images of the larger batch, see `multibox_loss`.
    """
    matched, images = (count.sum(), len(count)) if counts is None else counts
    divisor = torch.where(matched > 0, matched, images)
    return (part / divisor for part in sums)


def _of_priors(class_weights: Tensor, classes: Tensor) -> Tensor:
    """(B, P) the weight of each prior's class, 1 for background. class_weights: (C,). classes: (B, P)."""
    return F.pad(class_weights, (1, 0), value=1.0)[classes]


def _sigmoid_loss(
    logits: Tensor, classes: Tensor, quality: Tensor, kind: str, class_weights: Tensor | None
) -> Tensor:
    """The focal loss of all priors. quality: (B, P) what the score of an object's class is to be."""
    columns = logits.shape[-1]
    losses = focal_loss if kind == "focal" else quality_focal_loss
    each = losses(logits, class_targets(classes, columns, quality))
    if class_weights is not None:
        extra = _of_priors(class_weights, classes) - 1  # 0 for background
        each = each * (1 + class_targets(classes, columns, extra))
    return each.sum()


def _softmax_loss(
    logits: Tensor,
    classes: Tensor,
    count: Tensor,
    negatives: float,
    mining: str,
    class_weights: Tensor | None,
) -> Tensor:
    """The cross entropy of positives and mined negatives. count: (B,) positives of each image."""
    positive = classes != BACKGROUND
    entropy = -F.log_softmax(logits, dim=-1)  # (B, P, C + 1)
    quota = count.clamp(min=1) * negatives
    difficulty = entropy[..., BACKGROUND].detach()
    if mining == "batch":
        together = mine_negatives(difficulty.reshape(1, -1), positive.reshape(1, -1), quota.sum()[None])
        mined = together.reshape(positive.shape)
    else:
        mined = mine_negatives(difficulty, positive, quota)
    own = entropy.gather(-1, classes[..., None])[..., 0]  # (B, P)
    if class_weights is not None:
        own = own * _of_priors(class_weights, classes)
    return torch.where(positive | mined, own, 0.0).sum()


def mine_negatives(background_loss: Tensor, positive: Tensor, count: Tensor) -> Tensor:
    """The `count` (B,) unmatched priors of each image with most `background_loss` (B, P), as (B, P) bool."""
    ranked = background_loss.masked_fill(positive, -1.0)  # cross entropy is never below 0
    order = ranked.argsort(dim=1, descending=True, stable=True)
    rank = torch.empty_like(order).scatter_(
        1, order, torch.arange(order.shape[1], device=order.device).expand_as(order)
    )
    return (rank < count[:, None]) & ~positive

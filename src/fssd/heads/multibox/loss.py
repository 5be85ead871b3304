"""The multibox loss: smooth L1 on offsets, cross entropy with hard negative mining on classes (SSD 2.2)."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor

from fssd.boxes import encode
from fssd.heads.multibox.match import match
from fssd.model.network import Raw

BACKGROUND = 0


class Target(NamedTuple):
    """The objects of an image. boxes: (G, 4) xyxy pixels of the input. labels: (G,) int64, 0-based."""

    boxes: Tensor
    labels: Tensor


class Losses(NamedTuple):
    """total = (localisation + confidence), each a scalar already divided by the normaliser.

    positives: number of matched priors in the batch.
    """

    total: Tensor
    localisation: Tensor
    confidence: Tensor
    positives: Tensor


def multibox_loss(
    raw: Raw,
    priors: Tensor,
    targets: Sequence[Target],
    *,
    threshold: float = 0.5,
    negatives: float = 3.0,
    localisation_weight: float = 1.0,
) -> Losses:
    """The training objective of SSD and FSSD for one batch.

    raw: offsets (B, P, 4), logits (B, P, C + 1). priors: (P, 4) xyxy pixels. targets: B of them.
    threshold: IoU from which a prior is positive. negatives: background priors mined per positive,
    those with the largest background loss.

    Sums run over positives (and mined negatives) and are divided by the number of positives in the
    batch. An image without a match counts as one positive, both in the mining and in the divisor:
    it trains its `negatives` hardest priors at the weight an image with one object gives them.
    (Caffe ignores such images; images with objects are treated exactly as there.)
    """
    owners = torch.stack([match(target.boxes, priors, threshold) for target in targets])  # (B, P)
    positive = owners >= 0
    classes = _classes(owners, targets)
    logits = raw.logits.float()
    entropy = -F.log_softmax(logits, dim=-1)  # (B, P, C + 1)
    quota = positive.sum(dim=1).clamp(min=1)  # (B,)
    mined = mine_negatives(entropy[..., BACKGROUND].detach(), positive, quota * negatives)
    chosen = positive | mined
    confidence = entropy[chosen].gather(1, classes[chosen][:, None]).sum()
    localisation = F.smooth_l1_loss(
        raw.offsets.float()[positive], _offsets(owners, priors, targets), reduction="sum"
    )
    normaliser = quota.sum()
    localisation = localisation * localisation_weight / normaliser
    confidence = confidence / normaliser
    return Losses(localisation + confidence, localisation, confidence, positive.sum())


def mine_negatives(background_loss: Tensor, positive: Tensor, count: Tensor) -> Tensor:
    """The `count` (B,) unmatched priors of each image with most `background_loss` (B, P), as (B, P) bool."""
    ranked = background_loss.masked_fill(positive, -1.0)  # cross entropy is never below 0
    order = ranked.argsort(dim=1, descending=True, stable=True)
    rank = torch.empty_like(order).scatter_(
        1, order, torch.arange(order.shape[1], device=order.device).expand_as(order)
    )
    return (rank < count[:, None]) & ~positive


def _classes(owners: Tensor, targets: Sequence[Target]) -> Tensor:
    """(B, P) class of each prior, background 0."""
    rows = []
    for owner, target in zip(owners, targets, strict=True):
        # One extra entry in front makes owner -1 read background.
        table = torch.cat((target.labels.new_zeros(1), target.labels + 1))
        rows.append(table[owner + 1])
    return torch.stack(rows)


def _offsets(owners: Tensor, priors: Tensor, targets: Sequence[Target]) -> Tensor:
    """(positives, 4) target offsets, image by image in the order of the priors."""
    rows = []
    for owner, target in zip(owners, targets, strict=True):
        positive = owner >= 0
        rows.append(encode(target.boxes[owner[positive]], priors[positive]))
    return torch.cat(rows)

"""The loss of version 0.1, which matched in the training step: the reference for the one that does not.

As it was, but for one thing: it matches boxes and priors as shares of the image, as the released code does.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor

from fssd.boxes import encode, iou
from fssd.heads.multibox.raw import Raw

LEAST_OVERLAP = 1e-6


class ReferenceTarget(NamedTuple):
    boxes: Tensor
    labels: Tensor


class ReferenceLosses(NamedTuple):
    total: Tensor
    localisation: Tensor
    confidence: Tensor
    positives: Tensor


def reference_loss(
    raw: Raw,
    priors: Tensor,
    targets: Sequence[ReferenceTarget],
    side: float,
    shares: Tensor,
    *,
    threshold: float = 0.5,
    negatives: float = 3.0,
    localisation_weight: float = 1.0,
) -> ReferenceLosses:
    owners = torch.stack([match(target.boxes / side, shares, threshold) for target in targets])  # (B, P)
    positive = owners >= 0
    classes = _classes(owners, targets)
    logits = raw.logits.float()
    entropy = -F.log_softmax(logits, dim=-1)  # (B, P, C + 1)
    quota = positive.sum(dim=1).clamp(min=1)  # (B,)
    mined = mine_negatives(entropy[..., 0].detach(), positive, quota * negatives)
    chosen = positive | mined
    confidence = entropy[chosen].gather(1, classes[chosen][:, None]).sum()
    localisation = F.smooth_l1_loss(
        raw.offsets.float()[positive], _offsets(owners, priors, targets), reduction="sum"
    )
    normaliser = quota.sum()
    localisation = localisation * localisation_weight / normaliser
    confidence = confidence / normaliser
    return ReferenceLosses(localisation + confidence, localisation, confidence, positive.sum())


def mine_negatives(background_loss: Tensor, positive: Tensor, count: Tensor) -> Tensor:
    """The `count` (B,) unmatched priors of each image with most `background_loss` (B, P), as (B, P) bool."""
    ranked = background_loss.masked_fill(positive, -1.0)  # cross entropy is never below 0
    order = ranked.argsort(dim=1, descending=True, stable=True)
    rank = torch.empty_like(order).scatter_(
        1, order, torch.arange(order.shape[1], device=order.device).expand_as(order)
    )
    return (rank < count[:, None]) & ~positive


def _classes(owners: Tensor, targets: Sequence[ReferenceTarget]) -> Tensor:
    """(B, P) class of each prior, background 0."""
    rows = []
    for owner, target in zip(owners, targets, strict=True):
        # One extra entry in front makes owner -1 read background.
        table = torch.cat((target.labels.new_zeros(1), target.labels + 1))
        rows.append(table[owner + 1])
    return torch.stack(rows)


def _offsets(owners: Tensor, priors: Tensor, targets: Sequence[ReferenceTarget]) -> Tensor:
    """(positives, 4) target offsets, image by image in the order of the priors."""
    rows = []
    for owner, target in zip(owners, targets, strict=True):
        positive = owner >= 0
        rows.append(encode(target.boxes[owner[positive]], priors[positive]))
    return torch.cat(rows)


def match(boxes: Tensor, priors: Tensor, threshold: float = 0.5) -> Tensor:
    matches = torch.full((len(priors),), -1, dtype=torch.int64, device=priors.device)
    if len(boxes) == 0:
        return matches
    overlaps = iou(boxes, priors)  # (G, P)
    best, owner = overlaps.max(dim=0)
    matches = torch.where(best >= threshold, owner, matches)
    # On the CPU, because it goes object by object: each look at a GPU would wait for it.
    for g, p in _bipartite(overlaps.cpu()):
        matches[p] = g
    return matches


def _bipartite(overlaps: Tensor) -> list[tuple[int, int]]:
    """One-to-one (object, prior) pairs by repeatedly taking the largest remaining overlap of (G, P)."""
    free = overlaps.clone()
    best, prior = free.max(dim=1)  # per object; only rows whose prior is taken need a second look
    pairs: list[tuple[int, int]] = []
    for _ in range(len(overlaps)):
        g = int(best.argmax())
        if best[g] <= LEAST_OVERLAP:
            break
        p = int(prior[g])
        pairs.append((g, p))
        free[:, p] = -1
        free[g] = -1
        best[g] = -1
        stale = (prior == p) & (best >= 0)
        if stale.any():
            best[stale], prior[stale] = free[stale].max(dim=1)
    return pairs

"""The multibox loss: smooth L1 on offsets, cross entropy with hard negative mining on classes (SSD 2.2).

Dense and masked, so that nothing in it waits for the device: no size depends on how many priors are positive.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

from fssd.data.batch import Targets
from fssd.heads.multibox.raw import Raw

BACKGROUND = 0
MININGS = ("image", "batch")


def multibox_loss(
    raw: Raw,
    targets: Targets,
    *,
    negatives: float = 3.0,
    localisation_weight: float = 1.0,
    mining: str = "image",
) -> dict[str, Tensor]:
    """The training objective of SSD and FSSD for one batch.

    raw: offsets (B, P, 4), logits (B, P, C + 1). targets: "classes" (B, P) and "offsets" (B, P, 4), see
    `MultiboxTargets`. negatives: background priors mined per positive, those with the largest background
    loss. mining: whether among those of the same "image", or, as in BlitzNet, of the "batch". Returns
    "loss", its parts "loss_loc" and "loss_conf", and "positives", the number of matched priors.

    Sums run over positives and mined negatives and are divided by the number of positives in the batch, as in
    Caffe: images with objects have exactly the released loss. Views without an object, which Caffe ignores,
    add the loss of their `negatives` hardest priors to the same sum; a batch of such views alone is divided
    by the number of its images.
    """
    offsets, logits = raw
    classes = targets["classes"].long()
    positive = classes != BACKGROUND
    count = positive.sum(dim=1)  # (B,)
    entropy = -F.log_softmax(logits.float(), dim=-1)  # (B, P, C + 1)
    quota = count.clamp(min=1) * negatives
    difficulty = entropy[..., BACKGROUND].detach()
    if mining == "batch":
        together = mine_negatives(difficulty.reshape(1, -1), positive.reshape(1, -1), quota.sum()[None])
        mined = together.reshape(positive.shape)
    else:
        mined = mine_negatives(difficulty, positive, quota)
    own = entropy.gather(-1, classes[..., None])[..., 0]  # (B, P)
    confidence = torch.where(positive | mined, own, 0.0).sum()
    distance = F.smooth_l1_loss(offsets.float(), targets["offsets"], reduction="none").sum(dim=-1)
    localisation = torch.where(positive, distance, 0.0).sum() * localisation_weight
    positives = count.sum()
    divisor = torch.where(positives > 0, positives, len(count))
    localisation, confidence = localisation / divisor, confidence / divisor
    return {
        "loss": localisation + confidence,
        "loss_loc": localisation,
        "loss_conf": confidence,
        "positives": positives,
    }


def mine_negatives(background_loss: Tensor, positive: Tensor, count: Tensor) -> Tensor:
    """The `count` (B,) unmatched priors of each image with most `background_loss` (B, P), as (B, P) bool."""
    ranked = background_loss.masked_fill(positive, -1.0)  # cross entropy is never below 0
    order = ranked.argsort(dim=1, descending=True, stable=True)
    rank = torch.empty_like(order).scatter_(
        1, order, torch.arange(order.shape[1], device=order.device).expand_as(order)
    )
    return (rank < count[:, None]) & ~positive

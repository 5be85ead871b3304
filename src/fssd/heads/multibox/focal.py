"""Losses on class scores that need no mining, because easy priors weigh little: one sigmoid for each class.

Sources: Lin et al. 2017 (focal loss, eq. 5), Li et al. 2020 (quality focal loss, eq. 4).
"""

from __future__ import annotations

import math

import torch
import torch.nn.functional as F
from torch import Tensor

GAMMA, ALPHA = 2.0, 0.25  # of the focal loss
BETA = 2.0  # of the quality focal loss
START = -math.log(99)  # bias of class scores at the beginning: every score starts near 0.01 (Lin 2017, 4.1)


def focal_loss(logits: Tensor, truth: Tensor) -> Tensor:
    """-a (1 - p)^gamma log p, where p is the probability given to what is true: (...).

    logits: (...) before the sigmoid. truth: (...) 1 where the class is present, else 0; a is `ALPHA` there
    and 1 - `ALPHA` elsewhere.
    """
    entropy = F.binary_cross_entropy_with_logits(logits, truth, reduction="none")
    wrong = truth * (1 - 2 * logits.sigmoid()) + logits.sigmoid()  # 1 - p
    weight = truth * (2 * ALPHA - 1) + (1 - ALPHA)
    return weight * wrong.pow(GAMMA) * entropy


def quality_focal_loss(logits: Tensor, quality: Tensor) -> Tensor:
    """|y - s|^beta times the binary cross entropy of the score s with y: (...).

    logits: (...) of s. quality: (...) y, the IoU of the prior's box with its object for the object's class,
    else 0.
    """
    entropy = F.binary_cross_entropy_with_logits(logits, quality, reduction="none")
    return (quality - logits.sigmoid()).abs().pow(BETA) * entropy


def class_targets(classes: Tensor, count: int, values: Tensor) -> Tensor:
    """(B, P, count) with `values` (B, P) at each prior's class and 0 elsewhere.

    classes: (B, P) int64, 0 for background, else the class + 1.
    """
    rows = torch.zeros(*classes.shape, count + 1, dtype=values.dtype, device=values.device)
    return rows.scatter_(-1, classes[..., None], values[..., None])[..., 1:]

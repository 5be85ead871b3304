"""Which prior is trained on which object: bipartite matching, then per-prior matching (SSD 2.2)."""

from __future__ import annotations

import torch
from torch import Tensor

from fssd.boxes import iou

LEAST_OVERLAP = 1e-6  # Caffe's bipartite step takes no pair below this


def match(boxes: Tensor, priors: Tensor, threshold: float = 0.5) -> Tensor:
    """Match objects to priors of one image.

    boxes: (G, 4) xyxy. priors: (P, 4) xyxy in the same unit. Returns (P,) int64: the object of each
    prior, or -1 for background. G = 0 gives all -1.

    First every object gets a prior of its own: repeatedly the best remaining pair (bipartite, so that
    two objects which share a best prior both keep one). Then every prior still free takes the object
    it overlaps most, if their IoU is at least `threshold`.
    """
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

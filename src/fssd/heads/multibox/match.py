"""Which prior is trained on which object: bipartite matching, then per-prior matching (SSD 2.2)."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

Floats = npt.NDArray[np.float32]
Owners = npt.NDArray[np.int64]

MATCHED = 0.5  # IoU from which training takes a prior for an object (SSD 2.2)
LEAST_OVERLAP = 1e-6  # Caffe's bipartite step takes no pair below this


def match(boxes: Floats, priors: Floats, threshold: float = MATCHED) -> Owners:
    """Match objects to priors of one image.

    boxes: (G, 4) xyxy. priors: (P, 4) xyxy in the same unit; the released code uses shares of the image.
    The unit affects rounding, and so the choice among equally good priors. Returns (P,) int64: the object of
    each prior, or -1 for background. G = 0 gives all -1.

    First every object gets a prior of its own: repeatedly the best remaining pair (bipartite, so that
    two objects which share a best prior both keep one). Then every prior still free takes the object
    it overlaps most, if their IoU is at least `threshold`.
    """
    if len(boxes) == 0:
        return np.full(len(priors), -1, np.int64)
    overlaps = overlap(boxes, priors)  # (G, P)
    owner = overlaps.argmax(axis=0)
    best = overlaps[owner, np.arange(len(priors))]
    matches = np.where(best >= np.float32(threshold), owner, -1)
    for g, p in bipartite_pairs(overlaps):
        matches[p] = g
    return matches


def overlap(boxes: Floats, priors: Floats) -> Floats:
    """(G, 4) and (P, 4) xyxy to (G, P) IoU in float32; 0 where there is no union."""
    x1, y1, x2, y2 = np.ascontiguousarray(priors.T)  # (P,) each
    a1, b1, a2, b2 = boxes.T[:, :, None]  # (G, 1) each
    width = np.minimum(x2, a2) - np.maximum(x1, a1)  # (G, P)
    height = np.minimum(y2, b2) - np.maximum(y1, b1)
    shared = width.clip(0) * height.clip(0)
    union = (x2 - x1) * (y2 - y1) + (a2 - a1) * (b2 - b1) - shared
    shares: Floats = np.divide(shared, union, out=np.zeros_like(shared), where=union > 0)
    return shares


def bipartite_pairs(overlaps: Floats) -> list[tuple[int, int]]:
    """One-to-one (object, prior) pairs by repeatedly taking the largest remaining overlap of (G, P)."""
    free = overlaps.copy()
    prior = free.argmax(axis=1)  # per object; only rows whose prior is taken need a second look
    best = free[np.arange(len(free)), prior]
    pairs: list[tuple[int, int]] = []
    for _ in range(len(free)):
        g = int(best.argmax())
        if best[g] <= LEAST_OVERLAP:
            break
        p = int(prior[g])
        pairs.append((g, p))
        free[:, p] = -1
        free[g] = -1
        best[g] = -1
        for row in np.flatnonzero((prior == p) & (best >= 0)):
            prior[row] = free[row].argmax()
            best[row] = free[row, prior[row]]
    return pairs

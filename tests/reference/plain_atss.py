"""Adaptive training sample selection one number after the other (Zhang et al. 2020, Algorithm 1)."""

from __future__ import annotations

import statistics
from collections.abc import Sequence

from plain import plain_iou

Box = Sequence[float]


def centre(box: Box) -> tuple[float, float]:
    return (box[0] + box[2]) / 2, (box[1] + box[3]) / 2


def plain_atss(boxes: Sequence[Box], priors: Sequence[Box], groups: Sequence[tuple[int, int]]) -> list[int]:
    """The object of each prior, -1 for none. groups: (cells, shapes in each) of each level.

    Beyond the paper: an object without a prior takes the free one that overlaps it most, the largest overlap
    of all such objects first.
    """
    owner, share = [-1] * len(priors), [0.0] * len(priors)
    for g, box in enumerate(boxes):
        candidates = []
        first = 0
        for cells, shapes in groups:
            for shape in range(shapes):
                own = [first + cell * shapes + shape for cell in range(cells)]
                own.sort(
                    key=lambda p, b=box: sum(
                        (a - c) ** 2 for a, c in zip(centre(priors[p]), centre(b), strict=True)
                    )
                )
                candidates += own[:9]
            first += cells * shapes
        shares = {p: plain_iou(box, priors[p]) for p in candidates}
        values = list(shares.values())
        threshold = statistics.mean(values) + (statistics.stdev(values) if len(values) > 1 else 0.0)
        for p in candidates:
            x, y = centre(priors[p])
            inside = box[0] < x < box[2] and box[1] < y < box[3]
            if inside and shares[p] >= threshold and shares[p] > share[p]:
                owner[p], share[p] = g, shares[p]
    lost = [g for g in range(len(boxes)) if g not in owner]
    while lost:
        pairs = [
            (plain_iou(boxes[g], priors[p]), -g, -p) for g in lost for p in range(len(priors)) if owner[p] < 0
        ]
        overlap, g, p = max(pairs, default=(0.0, 0, 0))
        if overlap <= 1e-6:
            break
        owner[-p] = -g
        lost.remove(-g)
    return owner

"""Detections of one image at several input sizes, merged (FSSD paper, Fig. 1 a)."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import numpy as np
import torch

from fssd.boxes import suppress
from fssd.heads.head import Thresholds
from fssd.inference.detections import Detections


def merge(parts: Sequence[Detections], thresholds: Thresholds) -> Detections:
    """All detections of one image, best first, after NMS within each class over all sizes.

    parts: of each size, of the same classes; a single one is returned as it is. Of equal scores the earlier
    part comes first.
    """
    if len(parts) == 1:
        return parts[0]
    boxes, scores, labels = (
        np.concatenate([getattr(part, name) for part in parts]) for name in ("boxes", "scores", "labels")
    )
    order = np.argsort(-scores, kind="stable")
    kept = np.zeros(len(scores), bool)
    for label in np.unique(labels):
        rows = order[labels[order] == label]
        kept[rows] = suppress(torch.from_numpy(boxes[rows]), thresholds.nms).numpy()
    best = order[kept[order]][: thresholds.keep]
    return replace(parts[0], boxes=boxes[best], scores=scores[best], labels=labels[best])

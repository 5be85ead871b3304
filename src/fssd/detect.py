"""From raw predictions to detections: softmax, decoding, per-class NMS (Caffe's DetectionOutput)."""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor

from fssd.boxes import decode, suppress
from fssd.model.network import Raw


class Found(NamedTuple):
    """Detections of one image, best first.

    boxes: (N, 4) xyxy pixels of the network input, not clipped. scores: (N,). labels: (N,) int64, 0-based.
    """

    boxes: Tensor
    scores: Tensor
    labels: Tensor


def detect(
    raw: Raw, priors: Tensor, *, score: float = 0.01, nms: float = 0.45, top_k: int = 400, keep: int = 200
) -> list[Found]:
    """Detections of each image of a batch.

    raw: offsets (B, P, 4), logits (B, P, C + 1). priors: (P, 4) xyxy pixels. score: candidates score
    more than this. nms: IoU above which the lower score of one class is dropped. top_k: candidates kept
    in each class before NMS. keep: detections kept in an image over all classes.
    """
    boxes = decode(raw.offsets.float(), priors)
    scores = raw.logits.float().softmax(dim=-1)[..., 1:]
    return [_detect_one(b, s, score, nms, top_k, keep) for b, s in zip(boxes, scores, strict=True)]


def _detect_one(boxes: Tensor, scores: Tensor, least: float, nms: float, top_k: int, keep: int) -> Found:
    by_class = scores.T  # (C, P)
    counts = (by_class > least).sum(dim=1)
    active = counts.nonzero()[:, 0]
    if len(active) == 0:
        return Found(boxes[:0], scores[:0, 0], active)
    k = min(top_k, int(counts.max()))
    best, prior = by_class[active].topk(k, dim=1)  # (A, K), sorted
    candidate = best > least
    # Places beyond a class's candidates are boxes without area, which overlap nothing.
    stacked = torch.where(candidate[..., None], boxes[prior], 0.0)  # (A, K, 4)
    kept = suppress(stacked, nms) & candidate
    row, column = kept.nonzero(as_tuple=True)
    final, order = best[row, column].sort(descending=True, stable=True)
    order = order[:keep]
    row, column = row[order], column[order]
    return Found(boxes[prior[row, column]], final[:keep], active[row])

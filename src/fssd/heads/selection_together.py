"""`fssd.heads.selection.select` for a whole batch on a GPU, which then waits once a batch and not per image.

Every class of every image is treated alike, with `top_k` candidates, empty or not: no size depends on the
scores, so nothing has to come back before the end.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor

from fssd.boxes import suppress_together
from fssd.heads.head import Found


def select_together(
    scores: Tensor, boxes: Tensor, *, least: float, nms: float, top_k: int, keep: int
) -> list[Found]:
    """Detections of each image, on the CPU.

    scores: (B, C, P). boxes: (B, P, 4), xyxy pixels of the input. The others and the order: see `select`.
    """
    images, classes, _ = scores.shape
    ranked = torch.where(scores > least, scores, -math.inf)
    best, column = ranked.sort(dim=-1, descending=True, stable=True)
    best, column = best[..., :top_k], column[..., :top_k]  # (B, C, K)
    candidates = boxes.gather(1, column.reshape(images, -1, 1).expand(-1, -1, 4))  # (B, C * K, 4)
    # Candidates below the threshold become boxes without area, which suppress nothing.
    valid = torch.where(best.reshape(images, -1, 1) > least, candidates, 0.0)
    kept = suppress_together(valid.reshape(images, classes, -1, 4), nms)
    surviving = torch.where(kept, best, -math.inf).reshape(images, -1)
    score, place = surviving.sort(dim=-1, descending=True, stable=True)
    score, place = score[:, :keep], place[:, :keep]
    label = place // best.shape[-1]
    chosen = candidates.gather(1, place[..., None].expand(-1, -1, 4))
    # In one copy; a label is a whole number that float32 holds exactly.
    rows = torch.cat((chosen.float(), score.float()[..., None], label.float()[..., None]), dim=-1).cpu()
    found = [one[one[:, 4] > -math.inf] for one in rows]
    return [Found(one[:, :4].contiguous(), one[:, 4].contiguous(), one[:, 5].long()) for one in found]

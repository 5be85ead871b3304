"""From the scores of an image's candidates to its detections: the best of each class, NMS, the best of all.

Images are processed one by one in numpy. Torch has four times the overhead in each of these many small steps,
and splits large ones among threads, which then busy-wait on cores that the network needs.
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import numpy.typing as npt
import torch

from fssd.boxes import suppress
from fssd.heads.head import Found

Floats = npt.NDArray[np.float32]
Places = npt.NDArray[np.intp]


def select(
    scores: Floats,
    boxes_of: Callable[[Places], Floats],
    *,
    least: float,
    nms: float,
    top_k: int,
    keep: int,
) -> Found:
    """Detections of one image.

    scores: (C, R) of each class and candidate. boxes_of: indices (K,) of candidates to boxes (K, 4), xyxy
    pixels of the input. The others: see `Thresholds`. Of equal scores the earlier class comes first, then the
    earlier candidate.
    """
    active = np.flatnonzero(scores.max(axis=1, initial=0) > least)
    columns = [_best_first(scores[label], least, top_k) for label in active]
    label = np.repeat(active, np.array([len(column) for column in columns], dtype=np.intp))
    column = np.concatenate([np.empty(0, np.intp), *columns])
    best = scores[label, column]
    # A box is suppressed only by better ones, and only the best `keep` survivors are needed. Three times as
    # many candidates nearly always leave enough, even in a crowd.
    for most in (3 * keep, len(best)):
        chosen = _best_first(best, least, most)
        boxes = boxes_of(column[chosen])
        kept = np.flatnonzero(_suppress_within(label[chosen], boxes, nms))[:keep]
        if len(kept) == keep or len(chosen) == len(best):
            break
    found = chosen[kept]
    return Found(*(torch.from_numpy(part) for part in (boxes[kept], best[found], label[found])))


def _suppress_within(labels: Places, boxes: Floats, nms: float) -> npt.NDArray[np.bool_]:
    """Which boxes, best first, NMS within their classes keeps: (N,), (N, 4) to (N,)."""
    by_class = np.argsort(labels, kind="stable")
    counts = np.bincount(labels)
    counts = counts[counts > 0]
    row = np.repeat(np.arange(len(counts)), counts)
    rank = np.arange(len(labels)) - np.repeat(counts.cumsum() - counts, counts)
    # Rows beyond the boxes of a class stay boxes without area, which overlap nothing.
    stacked = np.zeros((len(counts), counts.max(initial=0), 4), np.float32)
    stacked[row, rank] = boxes.take(by_class, axis=0)
    kept = np.empty(len(labels), dtype=bool)
    kept[by_class] = suppress(torch.from_numpy(stacked), nms).numpy()[row, rank]
    return kept


def _best_first(scores: Floats, least: float, most: int) -> Places:
    """Indices of the best scores above `least`, at most `most`, descending; equal scores keep their order."""
    candidate = scores > least
    if np.count_nonzero(candidate) > most:
        candidate = scores >= np.partition(scores, -most)[-most]
    places = np.flatnonzero(candidate)
    order = np.argsort(-scores[places], kind="stable")
    return places[order[:most]]

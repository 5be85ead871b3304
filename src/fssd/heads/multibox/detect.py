"""From raw predictions to detections: softmax, decoding, per-class NMS (Caffe's DetectionOutput).

Images are processed one by one in numpy. Torch has four times the overhead in each of these many small steps,
and splits large ones among threads, which then busy-wait on cores that the network needs.
"""

from __future__ import annotations

import math

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from fssd.boxes import decode, suppress
from fssd.heads.head import Found
from fssd.heads.multibox.raw import Raw

Floats = npt.NDArray[np.float32]
Places = npt.NDArray[np.intp]


def detect(
    raw: Raw, priors: Tensor, *, score: float = 0.01, nms: float = 0.45, top_k: int = 400, keep: int = 200
) -> list[Found]:
    """Detections of each image of a batch.

    raw: offsets (B, P, 4), logits (B, P, C + 1). priors: (P, 4) xyxy pixels. score: candidates score
    more than this. nms: IoU above which the lower score of one class is dropped. top_k: candidates kept
    in each class before NMS. keep: detections kept in an image over all classes. Of equal scores the earlier
    class comes first, then the earlier prior.
    """
    if raw.logits.device.type == "cpu":
        rows = [(offsets, logits, priors) for offsets, logits in zip(*raw, strict=True)]
    else:
        rows = fetch(raw, priors, score)
    arrays = [[part.detach().float().numpy() for part in row] for row in rows]
    return [_detect_one(*row, least=score, nms=nms, top_k=top_k, keep=keep) for row in arrays]


def fetch(raw: Raw, priors: Tensor, score: float) -> list[tuple[Tensor, Tensor, Tensor]]:
    """Offsets, logits and priors of each image on the CPU, without most of the priors that have no candidate.

    This waits for a GPU per batch, not per image, and copies only a small part of the predictions.
    """
    logits = raw.logits.detach().float()
    image, prior = (logits[..., 1:].amax(dim=-1) - logits[..., 0] > least_lead(score)).nonzero(as_tuple=True)
    counts = image.bincount(minlength=len(logits)).cpu().tolist()
    parts = (raw.offsets[image, prior], logits[image, prior], priors[prior])
    return list(zip(*(torch.split(part.cpu(), counts) for part in parts), strict=True))


def least_lead(score: float) -> float:
    """The least lead of a class's logit over the background's if the class scores more than `score`.

    Softmax over these two alone gives no less than over all classes. A margin is left for rounding.
    """
    if score <= 0:
        return -math.inf
    return math.inf if score >= 1 else math.log(score / (1 - score)) - 1e-3


def _detect_one(
    offsets: Floats, logits: Floats, priors: Floats, *, least: float, nms: float, top_k: int, keep: int
) -> Found:
    """`detect` of one image: (P, 4), (P, C + 1), (P, 4)."""
    scores, prior = _class_scores(logits, least)
    active = np.flatnonzero(scores.max(axis=1, initial=0) > least)
    columns = [_best_first(scores[label], least, top_k) for label in active]
    label = np.repeat(active, np.array([len(column) for column in columns], dtype=np.intp))
    column = np.concatenate([np.empty(0, np.intp), *columns])
    best = scores[label, column]
    # A box is suppressed only by better ones, and only the best `keep` survivors are needed. Three times as
    # many candidates nearly always leave enough, even in a crowd.
    for most in (3 * keep, len(best)):
        chosen = _best_first(best, least, most)
        place = prior[column[chosen]]
        # take, here and below, copies whole rows; indexing with brackets copies number by number
        own_offsets, own_priors = (torch.from_numpy(part.take(place, axis=0)) for part in (offsets, priors))
        boxes = decode(own_offsets, own_priors).numpy()
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


def _class_scores(logits: Floats, least: float) -> tuple[Floats, Places]:
    """Scores (C, R) of all classes at the R priors where one may exceed `least`, and those priors, (R,).

    One row per class, because numpy reduces over the first axis fastest.
    """
    by_class = np.ascontiguousarray(logits.T)  # (C + 1, P)
    prior = np.flatnonzero(by_class[1:].max(axis=0) - by_class[0] > least_lead(least))
    powers = by_class.take(prior, axis=1)  # indexing with brackets would transpose the memory
    powers -= powers.max(axis=0)
    np.exp(powers, out=powers)
    powers /= powers.sum(axis=0)
    return powers[1:], prior


def _best_first(scores: Floats, least: float, most: int) -> Places:
    """Indices of the best scores above `least`, at most `most`, descending; equal scores keep their order."""
    candidate = scores > least
    if np.count_nonzero(candidate) > most:
        candidate = scores >= np.partition(scores, -most)[-most]
    places = np.flatnonzero(candidate)
    order = np.argsort(-scores[places], kind="stable")
    return places[order[:most]]

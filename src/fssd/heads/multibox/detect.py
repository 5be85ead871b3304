"""From raw predictions to detections: scores, decoding, per-class NMS (Caffe's DetectionOutput)."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from fssd.boxes import decode
from fssd.heads.head import Found
from fssd.heads.multibox.raw import Raw
from fssd.heads.selection import Places, select
from fssd.heads.selection_together import select_together

Floats = npt.NDArray[np.float32]


def detect(
    raw: Raw,
    priors: Tensor,
    *,
    sigmoid: bool = False,
    score: float = 0.01,
    nms: float = 0.45,
    top_k: int = 400,
    keep: int = 200,
) -> list[Found]:
    """Detections of each image of a batch.

    raw: offsets (B, P, 4), logits (B, P, C + 1). priors: (P, 4) xyxy pixels. sigmoid: whether each class has
    a score of its own, without a background: logits (B, P, C). score: candidates score more than this. nms:
    IoU above which the lower score of one class is dropped. top_k: candidates kept in each class before NMS.
    keep: detections kept in an image over all classes. Of equal scores the earlier class comes first, then
    the earlier prior.
    """
    if raw.logits.device.type != "cpu":
        return detect_together(raw, priors, sigmoid, least=score, nms=nms, top_k=top_k, keep=keep)
    rows = [(offsets, logits, priors) for offsets, logits in zip(*raw, strict=True)]
    arrays = [[part.detach().float().numpy() for part in row] for row in rows]
    scores_of = _sigmoid_scores if sigmoid else _softmax_scores
    return [_detect_one(scores_of, *row, least=score, nms=nms, top_k=top_k, keep=keep) for row in arrays]


def detect_together(raw: Raw, priors: Tensor, sigmoid: bool = False, **thresholds: Any) -> list[Found]:
    """`detect` on the device of the predictions, all images at once. thresholds: see `select_together`."""
    boxes = decode(raw.offsets.detach().float(), priors)
    return select_together(class_scores(raw, sigmoid).mT, boxes, **thresholds)


def class_scores(raw: Raw, sigmoid: bool) -> Tensor:
    """(B, P, C) float32, without background."""
    logits = raw.logits.detach().float()
    return logits.sigmoid() if sigmoid else logits.softmax(dim=-1)[..., 1:]


def least_lead(score: float) -> float:
    """The least lead of a class's logit over the background's if the class scores more than `score`.

    Softmax over these two alone gives no less than over all classes; the sigmoid is a softmax beside a logit
    of 0. A margin is left for rounding.
    """
    if score <= 0:
        return -math.inf
    return math.inf if score >= 1 else math.log(score / (1 - score)) - 1e-3


def _detect_one(
    scores_of: Callable[[Floats, float], tuple[Floats, Places]],
    offsets: Floats,
    logits: Floats,
    priors: Floats,
    *,
    least: float,
    nms: float,
    top_k: int,
    keep: int,
) -> Found:
    """`detect` of one image: (P, 4), (P, C + 1) or (P, C), (P, 4)."""
    scores, prior = scores_of(logits, least)

    def boxes_of(column: Places) -> Floats:
        place = prior[column]
        # take copies whole rows; indexing with brackets copies number by number
        own_offsets, own_priors = (torch.from_numpy(part.take(place, axis=0)) for part in (offsets, priors))
        return decode(own_offsets, own_priors).numpy()

    return select(scores, boxes_of, least=least, nms=nms, top_k=top_k, keep=keep)


def _softmax_scores(logits: Floats, least: float) -> tuple[Floats, Places]:
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


def _sigmoid_scores(logits: Floats, least: float) -> tuple[Floats, Places]:
    """`_softmax_scores` of logits (P, C) without background."""
    by_class = np.ascontiguousarray(logits.T)  # (C, P)
    prior = np.flatnonzero(by_class.max(axis=0) > least_lead(least))
    powers = by_class.take(prior, axis=1)
    with np.errstate(over="ignore"):  # then the score is 0
        np.exp(np.negative(powers, out=powers), out=powers)
    powers += 1
    return np.reciprocal(powers, out=powers), prior

"""Whether two runs of a model found the same: which detections were kept, their boxes and their scores."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import NamedTuple

import torch
from torch import Tensor

from fssd.boxes import iou
from fssd.errors import ExportError
from fssd.heads.head import Candidates, Found, Thresholds


class Tolerance(NamedTuple):
    """How far apart two runs may be and still agree.

    box: of a coordinate, pixels of the network's input. score: of a score. overlap: how near the NMS
    threshold a pair's IoU may lie on one side here and on the other there. tie: scores nearer than this may
    change places.
    """

    box: float
    score: float
    overlap: float
    tie: float


ROUNDING = Tolerance(box=0.1, score=1e-4, overlap=1e-3, tie=1e-5)  # float32 on both sides


@dataclass
class Parity:
    """How near an exported model is.

    images, detections: how many were compared. box: largest difference of a coordinate, pixels of the
    network's input. score: largest difference of a score. borderline: detections that one side alone kept,
    each because a score or an overlap lay on a threshold, give or take rounding.
    """

    images: int = 0
    detections: int = 0
    box: float = 0.0
    score: float = 0.0
    borderline: int = 0

    def __str__(self) -> str:
        text = (
            f"{self.detections} detections in {self.images} images agree: boxes within {self.box:.1g} px,"
            f" scores within {self.score:.1g}"
        )
        return f"{text}; {self.borderline} on a threshold left out" if self.borderline else text


@dataclass
class _Pairs:
    """Detections of one image: which of the two sides' have a partner, and what set them apart."""

    expected: Tensor  # (N,) bool
    found: Tensor  # (M,) bool
    box: float = field(default=0.0)
    score: float = field(default=0.0)


def compare(
    expected: Iterable[Found],
    candidates: Iterable[Candidates],
    found: Iterable[Found],
    thresholds: Thresholds,
    tolerance: Tolerance = ROUNDING,
) -> Parity:
    """Compare the detections of each image, made with `thresholds`, with PyTorch's and its candidates.

    Raises ExportError if a side kept a detection that the other has not within `tolerance`, unless rounding
    at a threshold explains it; or if there was nothing to compare.
    """
    parity = Parity()
    for one, every, other in zip(expected, candidates, found, strict=True):
        parity.images += 1
        pairs = _pair(one, other, tolerance)
        wrong = _foreign(every, other, ~pairs.found, tolerance)
        wrong = wrong or _unexplained(
            one, other, pairs, _entry_scores(every, thresholds), thresholds, tolerance
        )
        if wrong:
            raise ExportError(
                f"the exported model differs from the PyTorch model: {wrong} detections in image"
                f" {parity.images} have no partner within {tolerance.box:g} px and {tolerance.score:g} of"
                " score; nothing was written, please report it with the versions of torch and of the runtime"
            )
        parity.detections += int(pairs.expected.sum())
        parity.borderline += int((~pairs.expected).sum() + (~pairs.found).sum())
        parity.box, parity.score = max(parity.box, pairs.box), max(parity.score, pairs.score)
    if not parity.detections:
        raise ExportError(
            f"the model finds nothing in the {parity.images} images of the check, which therefore proves"
            " nothing; name pictures with objects with --images"
        )
    return parity


def _foreign(every: Candidates, other: Found, lone: Tensor, tolerance: Tolerance) -> int:
    """How many of the lone detections are not even candidates in PyTorch."""
    count = 0
    for i in lone.nonzero()[:, 0].tolist():
        near = (every.boxes - other.boxes[i]).abs().amax(dim=-1) <= tolerance.box
        near &= (every.scores[:, int(other.labels[i])] - other.scores[i]).abs() <= tolerance.score
        count += not bool(near.any())
    return count


def _pair(one: Found, other: Found, tolerance: Tolerance) -> _Pairs:
    """Partner each detection of `one` with the nearest box of its class in `other` that is near enough."""
    pairs = _Pairs(
        torch.zeros(len(one.scores), dtype=torch.bool), torch.zeros(len(other.scores), dtype=torch.bool)
    )
    if not len(one.scores) or not len(other.scores):
        return pairs
    box = (one.boxes[:, None] - other.boxes[None]).abs().amax(dim=-1)  # (N, M)
    score = (one.scores[:, None] - other.scores[None]).abs()
    near = (one.labels[:, None] == other.labels[None]) & (box <= tolerance.box) & (score <= tolerance.score)
    for i in range(len(one.scores)):
        free = torch.where(near[i] & ~pairs.found, box[i], torch.inf)
        j = int(free.argmin())
        if free[j] < torch.inf:
            pairs.expected[i] = pairs.found[j] = True
            pairs.box, pairs.score = max(pairs.box, float(box[i, j])), max(pairs.score, float(score[i, j]))
    return pairs


def _unexplained(
    one: Found,
    other: Found,
    pairs: _Pairs,
    entry: Tensor,
    thresholds: Thresholds,
    tolerance: Tolerance,
) -> int:
    """How many lone detections no threshold explains. entry: (C,), see `_entry_scores`.

    A score at the least score, at the last place of a full list, or at the last of its class that NMS looked
    at, explains itself. Otherwise something of
    its class on the other side suppressed it there: with an overlap on the threshold, or a lone one of the
    same score, or one that is explained itself.
    """
    lone = [~pairs.expected, ~pairs.found]
    sides = [one, other]
    fine = []
    for s in (0, 1):
        scores = sides[s].scores
        at_entry = (scores - entry[sides[s].labels]).abs() <= tolerance.score
        fine.append(lone[s] & (at_entry | (scores <= _cutoff(sides[1 - s], thresholds) + tolerance.score)))
    while True:
        before = int(fine[0].sum() + fine[1].sum())
        for s in (0, 1):
            mine, theirs = sides[s], sides[1 - s]
            overlap = iou(mine.boxes, theirs.boxes)
            same = mine.labels[:, None] == theirs.labels[None]
            on_edge = (overlap - thresholds.nms).abs() <= tolerance.overlap
            tie = (mine.scores[:, None] - theirs.scores[None]).abs() <= tolerance.tie
            by_lone = (overlap > thresholds.nms) & (fine[1 - s][None] | (tie & lone[1 - s][None]))
            fine[s] = fine[s] | (lone[s] & (same & (on_edge | by_lone)).any(dim=1))
        if int(fine[0].sum() + fine[1].sum()) == before:
            return int((lone[0] & ~fine[0]).sum() + (lone[1] & ~fine[1]).sum())


def _entry_scores(every: Candidates, thresholds: Thresholds) -> Tensor:
    """(C,): the score of the last candidate of each class that NMS looks at, 0 if it looks at all of them."""
    scores = every.scores
    if len(scores) <= thresholds.top_k:
        return scores.new_zeros(scores.shape[1])
    return scores.topk(thresholds.top_k, dim=0).values[-1]


def _cutoff(side: Found, thresholds: Thresholds) -> float:
    """The score that a detection had to exceed to be kept on this side."""
    full = len(side.scores) >= thresholds.keep
    return max(thresholds.score, float(side.scores[-1])) if full else thresholds.score

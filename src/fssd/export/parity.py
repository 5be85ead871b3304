"""Whether two ways to run a model find the same objects in the same images."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import NamedTuple

import torch
from torch import Tensor

from fssd.boxes import iou
from fssd.counted import counted
from fssd.errors import ExportError
from fssd.export.images import fill_up
from fssd.heads.head import Candidates, Found, Raw, Thresholds
from fssd.model.network import Network
from fssd.runtimes.runner import Runner

BATCH = 8
LARGEST = 1024.0  # pixels; the difference in a box with a longer side is told in proportion to that


class Tolerance(NamedTuple):
    """How much two runs may differ and still agree.

    box: difference of a coordinate, pixels of the network's input. share: of a box's longer side, where that
    is more: sides are exponentials, so rounding changes them by a share. score: difference of a score.
    overlap: an IoU this near to the NMS threshold may be above it in one run and below it in the other. tie:
    scores that differ by less may be sorted differently. strays: share of the detections that may differ by
    more.
    """

    box: float
    share: float
    score: float
    overlap: float
    tie: float
    strays: float = 0.0

    def are_near(self, one: Tensor, other: Tensor) -> Tensor:
        """Whether boxes (N, 4) and (M, 4), xyxy pixels, differ by no more: (N, M) bool."""
        difference = (one[:, None] - other[None]).abs().amax(dim=-1)
        return difference <= (self.share * longest_side(one)).clamp(min=self.box)[:, None]


# float32 on both sides. A side of 1,024 px is longer than any input.
ROUNDING = Tolerance(box=0.1, share=0.1 / LARGEST, score=1e-4, overlap=1e-3, tie=1e-5)
# A halved weight keeps 11 bits. In trained models that moves scores by up to 0.007 and boxes by up to 0.4 px
# on photographs; on generated images, which are unlike those, a few boxes in a thousand, with scores of some
# hundredths, move further. Moving a side of a box by 2.5 % changes an IoU by as much, two sides by twice.
HALVED = Tolerance(box=0.5, share=0.025, score=0.01, overlap=0.05, tie=0.01, strays=0.01)


@dataclass
class Parity:
    """How closely two runs agree.

    images, detections: numbers compared. box: largest difference of a coordinate, pixels of the network's
    input. score: largest difference of a score. borderline: detections of only one run, because a score or an
    overlap lies on a threshold up to rounding. strays: others of only one run, which the tolerance allows.
    """

    images: int = 0
    detections: int = 0
    box: float = 0.0
    score: float = 0.0
    borderline: int = 0
    strays: int = 0

    def __str__(self) -> str:
        text = (
            f"{counted(self.detections, 'detection')} in {counted(self.images, 'image')} agree: boxes within"
            f" {self.box:.1g} px, scores within {self.score:.1g}"
        )
        text += f"; {self.borderline} on a threshold left out" if self.borderline else ""
        return f"{text}; {self.strays} further off" if self.strays else text


def check(
    network: Network,
    runner: Runner,
    nms: Thresholds | None,
    images: Tensor | None,
    tolerance: Tolerance = ROUNDING,
) -> Parity:
    """Compare the detections of `runner` with those of `network`. Raises ExportError if they differ.

    nms: thresholds built into the runner; None if it takes any, and then the score threshold is lowered until
    there are detections. images: (N, 3, H, W) uint8 RGB; synthetic ones are added to a small number.
    """
    images = fill_up(images, network.image_size)
    with torch.inference_mode():
        raws: list[Raw] = [network(batch.float()) for batch in _batches(images)]
    heads, thresholds = network.heads, nms or Thresholds()
    expected = [found for raw in raws for found in heads.detect(raw, thresholds)]
    while nms is None and thresholds.score > 1e-6 and not any(len(found.scores) for found in expected):
        thresholds = Thresholds(score=thresholds.score / 10)
        expected = [found for raw in raws for found in heads.detect(raw, thresholds)]
    candidates = (one for raw in raws for one in heads.candidates(raw))
    predicted = (runner.predict(batch) for batch in _batches(images))
    found = (one for batch in predicted for one in runner.finish(batch, **vars(thresholds)))
    return compare(expected, candidates, found, thresholds, tolerance)


def _batches(images: Tensor) -> Iterator[Tensor]:
    """The first image alone, the others in batches, to test more than one batch size."""
    yield images[:1]
    yield from torch.split(images[1:], BATCH)


def compare(
    expected: Iterable[Found],
    candidates: Iterable[Candidates],
    found: Iterable[Found],
    thresholds: Thresholds,
    tolerance: Tolerance = ROUNDING,
) -> Parity:
    """Compare detections made with `thresholds`, image by image, with PyTorch's detections and candidates.

    Raises ExportError if one side has more detections than allowed without a partner within `tolerance` that
    rounding at a threshold does not explain, or if there is nothing to compare.
    """
    parity = Parity()
    first = 0  # image with a stray
    for one, every, other in zip(expected, candidates, found, strict=True):
        parity.images += 1
        partners = _pair(one, other, tolerance)
        paired = partners >= 0
        matched = partners[paired]
        lone = [~paired, torch.ones(len(other.scores), dtype=torch.bool).index_fill(0, matched, False)]
        wrong = _foreign(every, other, lone[1], tolerance)
        wrong = max(wrong, _unexplained([one, other], lone, every, thresholds, tolerance))
        first = first or (parity.images if wrong else 0)
        parity.strays += wrong
        parity.detections += len(matched)
        parity.borderline += int(lone[0].sum() + lone[1].sum()) - wrong
        if len(matched):
            box = box_distance(one.boxes[paired], other.boxes[matched]).diagonal()
            parity.box = max(parity.box, float(box.max()))
            parity.score = max(parity.score, float((one.scores[paired] - other.scores[matched]).abs().max()))
    if parity.strays > tolerance.strays * parity.detections:
        raise ExportError(
            f"the exported model differs from the PyTorch model: {counted(parity.strays, 'detection')}, the"
            f" first in image {first}, without a partner within {tolerance.box:g} px and {tolerance.score:g}"
            " of score; nothing was written, name real images with --images, and if those differ too, please"
            " report it with the versions of torch and of the runtime"
        )
    if not parity.detections:
        raise ExportError(
            f"the model finds nothing in the {parity.images} images of the check, which therefore proves"
            " nothing; name images with objects with --images"
        )
    return parity


def box_distance(one: Tensor, other: Tensor) -> Tensor:
    """Boxes (N, 4) and (M, 4) xyxy pixels to (N, M) the largest difference of a coordinate, in pixels.

    For a box with a side over 1,024 px in proportion to that: on an image unlike any that it learned, a
    network can predict boxes of millions of pixels.
    """
    difference = (one[:, None] - other[None]).abs().amax(dim=-1)
    return difference / (longest_side(one) / LARGEST).clamp(min=1)[:, None]


def longest_side(boxes: Tensor) -> Tensor:
    """(N, 4) xyxy to (N,), in pixels."""
    return (boxes[:, 2:] - boxes[:, :2]).abs().amax(dim=-1)


def _pair(one: Found, other: Found, tolerance: Tolerance) -> Tensor:
    """(N,): for each detection of `one` the index of the nearest free one of its class in `other`, or -1."""
    partners = torch.full((len(one.scores),), -1)
    if not len(other.scores):
        return partners
    box = box_distance(one.boxes, other.boxes)  # (N, M)
    score = (one.scores[:, None] - other.scores[None]).abs()
    near = tolerance.are_near(one.boxes, other.boxes)
    near &= (one.labels[:, None] == other.labels[None]) & (score <= tolerance.score)
    distance = torch.where(near, box, torch.inf)
    for i in range(len(partners)):
        j = int(distance[i].argmin())
        if distance[i, j] < torch.inf:
            partners[i] = j
            distance[:, j] = torch.inf
    return partners


def _foreign(every: Candidates, other: Found, lone: Tensor, tolerance: Tolerance) -> int:
    """How many of the lone detections of `other` (a mask) are not even candidates in PyTorch."""
    boxes, scores = other.boxes[lone], other.scores[lone]  # (L, 4), (L,)
    near = tolerance.are_near(every.boxes, boxes)  # (P, L)
    near &= (every.scores[:, other.labels[lone]] - scores).abs() <= tolerance.score
    return int((~near.any(dim=0)).sum())


def _unexplained(
    sides: list[Found], lone: list[Tensor], every: Candidates, thresholds: Thresholds, tolerance: Tolerance
) -> int:
    """How many lone detections (a mask for each side) no threshold explains.

    A detection is explained by its score: if it lies at the score threshold, at the last score of a full
    list, or at the last score of its class that enters NMS. Otherwise a detection of its class on the other
    side must have suppressed it there: one whose overlap lies at the NMS threshold, or a lone one with the
    same score or an explanation.
    """
    entry = _entry_scores(every, thresholds)
    fine = []
    for mine, theirs, mask in zip(sides, reversed(sides), lone, strict=True):
        at_entry = (mine.scores - entry[mine.labels]).abs() <= tolerance.score
        fine.append(mask & (at_entry | (mine.scores <= _cutoff(theirs, thresholds) + tolerance.score)))
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
    """(C,): the score of the last candidate of each class that enters NMS, 0 if all of them do."""
    scores = every.scores
    if len(scores) <= thresholds.top_k:
        return scores.new_zeros(scores.shape[1])
    return scores.topk(thresholds.top_k, dim=0).values[-1]


def _cutoff(side: Found, thresholds: Thresholds) -> float:
    """The score that a detection had to exceed to be kept on this side."""
    full = len(side.scores) >= thresholds.keep
    return max(thresholds.score, float(side.scores[-1])) if full else thresholds.score

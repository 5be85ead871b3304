"""What becomes of every candidate between scores and detections, and which step took it.

The same rules as `select`, step by step and slowly, to explain a result rather than to compute it.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Literal, NamedTuple

import numpy as np
import numpy.typing as npt

from fssd.boxes import overlaps
from fssd.heads.head import Thresholds

Floats = npt.NDArray[np.float32]
Outcome = Literal["kept", "score", "top_k", "nms", "keep"]


class Claim(NamedTuple):
    """One class at one candidate: what a detection is made of. candidate: its index. label: 0-based."""

    candidate: int
    label: int


@dataclass(frozen=True)
class Fate:
    """What became of a claim.

    outcome: "kept", or the threshold that took it: "score" (it scores too little), "top_k" (too many of its
    class score more), "nms" (a better detection overlaps it), "keep" (too many detections score more).
    rank: among the detections for "kept"; among the candidates of its class for "top_k"; among all that
    survived NMS for "keep"; 0 is the best. None for the others. by: for "nms" the claim that suppressed it,
    and iou: how much they overlap.
    """

    outcome: Outcome
    rank: int | None = None
    by: Claim | None = None
    iou: float | None = None


@dataclass(frozen=True)
class Fates:
    """Of all claims of an image. kept: the detections, best first. other: what befell the other claims that
    scored enough."""

    kept: tuple[Claim, ...]
    other: dict[Claim, Fate]

    def of(self, claim: Claim) -> Fate:
        """What became of a claim."""
        if claim in self.kept:
            return Fate("kept", self.kept.index(claim))
        return self.other.get(claim, Fate("score"))

    def suppressed_by(self, claim: Claim) -> int:
        """How many claims of its class a detection suppressed."""
        return sum(fate.by == claim for fate in self.other.values())


def trace_selection(
    boxes: Floats, scores: Floats, thresholds: Thresholds, least: Sequence[float] | None = None
) -> Fates:
    """What becomes of every claim of one image.

    boxes: (P, 4) xyxy pixels of the input. scores: (P, C). least: (C,), what the scores of each class must
    exceed; None for the score of `thresholds`. Of equal scores the earlier class comes first,
    then the earlier candidate, as in `select`.
    """
    other: dict[Claim, Fate] = {}
    survivors: list[tuple[float, Claim]] = []
    for label in range(scores.shape[1]):
        ranked = _ranked(scores[:, label], thresholds.score if least is None else least[label])
        for rank, candidate in enumerate(ranked[thresholds.top_k :], start=thresholds.top_k):
            other[Claim(int(candidate), label)] = Fate("top_k", rank)
        for candidate, fate in _suppression(boxes, ranked[: thresholds.top_k], label, thresholds.nms):
            if fate is None:
                survivors.append((float(scores[candidate, label]), Claim(candidate, label)))
            else:
                other[Claim(candidate, label)] = fate
    survivors.sort(key=lambda row: -row[0])  # stable: by class, then by candidate
    for rank, (_, claim) in enumerate(survivors[thresholds.keep :], start=thresholds.keep):
        other[claim] = Fate("keep", rank)
    return Fates(tuple(claim for _, claim in survivors[: thresholds.keep]), other)


def _ranked(scores: Floats, least: float) -> npt.NDArray[np.intp]:
    """Indices of the scores above `least`, descending; equal scores keep their order."""
    above = np.flatnonzero(scores > least)
    return above[np.argsort(-scores[above], kind="stable")]


def _suppression(
    boxes: Floats, ranked: npt.NDArray[np.intp], label: int, nms: float
) -> Iterator[tuple[int, Fate | None]]:
    """Each candidate of a class, best first, with what suppressed it; None for those that NMS keeps."""
    kept: list[int] = []
    for candidate in map(int, ranked):
        with np.errstate(all="ignore"):  # boxes of untrained networks may be infinite
            shared = overlaps(boxes[candidate][None], boxes[kept])[0] if kept else np.empty(0)
        rivals = np.flatnonzero(shared > nms)
        if len(rivals):
            first = int(rivals[0])  # the best of those that overlap it
            yield candidate, Fate("nms", by=Claim(kept[first], label), iou=float(shared[first]))
        else:
            kept.append(candidate)
            yield candidate, None

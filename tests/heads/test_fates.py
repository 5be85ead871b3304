"""What becomes of candidates: each step by hand, and all of them against a plain loop and `select`."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt
import pytest

from fssd.heads.fates import Claim, Fate, trace_selection
from fssd.heads.head import Thresholds
from fssd.heads.selection import select

Floats = npt.NDArray[np.float32]

# Two of width 10 that share 8 of 12 columns (IoU 2/3), one apart, one that shares 5 of 15 with the first.
BOXES = np.array([[0, 0, 10, 10], [2, 0, 12, 10], [50, 50, 60, 60], [5, 0, 15, 10]], np.float32)


def scores(*rows: tuple[float, ...]) -> Floats:
    return np.array(rows, np.float32)


def test_every_step_by_hand() -> None:
    table = scores((0.9, 0.0), (0.8, 0.7), (0.3, 0.0), (0.6, 0.0))
    fates = trace_selection(BOXES, table, Thresholds(score=0.4, nms=0.5, top_k=4, keep=4))
    # Candidate 1 loses to 0 in class 0 but not in class 1; candidate 3 overlaps 0 by 1/3 and 1 by 7/13, but 1
    # is gone.
    assert fates.kept == (Claim(0, 0), Claim(1, 1), Claim(3, 0))
    assert fates.of(Claim(0, 0)) == Fate("kept", 0)
    lost = fates.of(Claim(1, 0))
    assert (lost.outcome, lost.by) == ("nms", Claim(0, 0))
    assert lost.iou == pytest.approx(2 / 3)
    assert fates.of(Claim(2, 0)) == Fate("score")
    assert fates.suppressed_by(Claim(0, 0)) == 1
    assert fates.suppressed_by(Claim(3, 0)) == 0


def test_of_two_rivals_the_better_one_is_told() -> None:
    boxes = np.array([[6, 0, 16, 10], [0, 0, 10, 10], [3, 0, 13, 10]], np.float32)  # IoU 7/13 with either
    fates = trace_selection(boxes, scores((0.8,), (0.9,), (0.7,)), Thresholds(0.1, 0.5, 9, 9))
    assert fates.kept == (Claim(1, 0), Claim(0, 0))
    assert fates.of(Claim(2, 0)).by == Claim(1, 0)


def test_limits_by_hand() -> None:
    table = scores((0.9,), (0.8,), (0.7,), (0.6,))
    few = trace_selection(BOXES, table, Thresholds(score=0.1, nms=1.0, top_k=2, keep=4))
    assert few.kept == (Claim(0, 0), Claim(1, 0))
    assert few.of(Claim(2, 0)) == Fate("top_k", 2)
    one = trace_selection(BOXES, table, Thresholds(score=0.1, nms=0.5, top_k=4, keep=1))
    assert one.kept == (Claim(0, 0),)
    assert one.of(Claim(2, 0)) == Fate("keep", 1)  # candidate 1 was suppressed before
    assert one.of(Claim(3, 0)) == Fate("keep", 2)


def test_score_must_exceed_the_threshold_and_ties_keep_their_order() -> None:
    table = scores((0.5, 0.75), (0.0, 0.0), (0.75, 0.5), (0.0, 0.0))
    fates = trace_selection(BOXES, table, Thresholds(score=0.5, nms=0.5, top_k=4, keep=4))
    assert fates.kept == (Claim(2, 0), Claim(0, 1)), "of equal scores the earlier class"
    assert fates.of(Claim(0, 0)) == Fate("score")


def plain_iou(a: Floats, b: Floats) -> float:
    width = min(a[2], b[2]) - max(a[0], b[0])
    height = min(a[3], b[3]) - max(a[1], b[1])
    if width <= 0 or height <= 0:
        return 0.0
    shared = float(width) * float(height)
    return shared / (float((a[2] - a[0]) * (a[3] - a[1])) + float((b[2] - b[0]) * (b[3] - b[1])) - shared)


@pytest.mark.parametrize("seed", range(6))
def test_against_a_plain_loop_and_the_real_selection(seed: int) -> None:
    rng = np.random.default_rng(seed)
    corner = rng.uniform(0, 80, (60, 2))
    boxes = np.concatenate((corner, corner + rng.uniform(10, 40, (60, 2))), axis=1).astype(np.float32)
    table = rng.uniform(0, 1, (60, 3)).astype(np.float32)
    limits = Thresholds(score=0.3, nms=0.3, top_k=25, keep=12)
    fates = trace_selection(boxes, table, limits)

    survivors = []
    for label in range(3):
        order = sorted(range(60), key=lambda i, label=label: -table[i, label])
        order = [i for i in order if table[i, label] > 0.3][:25]
        kept: list[int] = []
        for index in order:
            if all(plain_iou(boxes[index], boxes[better]) <= 0.3 for better in kept):
                kept.append(index)
        survivors += [(table[index, label], index, label) for index in kept]
    survivors.sort(key=lambda row: -row[0])
    assert [(claim.candidate, claim.label) for claim in fates.kept] == [row[1:] for row in survivors[:12]]
    for claim, fate in fates.other.items():
        if fate.outcome == "nms":
            assert fate.by is not None and fate.by.label == claim.label
            assert table[fate.by] >= table[claim]
            assert fate.iou == pytest.approx(plain_iou(boxes[claim.candidate], boxes[fate.by.candidate]))
            assert fate.iou > 0.3

    found = select(np.ascontiguousarray(table.T), boxes.__getitem__, least=0.3, nms=0.3, top_k=25, keep=12)
    assert found.labels.tolist() == [claim.label for claim in fates.kept]
    np.testing.assert_array_equal(found.boxes.numpy(), boxes[[claim.candidate for claim in fates.kept]])

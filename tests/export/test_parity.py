"""The comparison that an export has to pass: what it forgives and what it does not."""

from __future__ import annotations

import pytest
import torch

from fssd.errors import ExportError
from fssd.export.parity import HALVED, Candidates, Parity
from fssd.export.parity import compare as compare_with
from fssd.heads.head import Found, Thresholds

WIDE = Thresholds(score=0.1, nms=0.5, top_k=400, keep=400)
SETTINGS = Thresholds(score=0.1, nms=0.5, top_k=400, keep=4)


def found(*rows: tuple[float, float, float, float, float, int]) -> list[Found]:
    """One image's detections: x1, y1, x2, y2, score, label."""
    table = torch.tensor([row[:5] for row in rows]).reshape(-1, 5)
    return [Found(table[:, :4], table[:, 4], torch.tensor([row[5] for row in rows], dtype=torch.int64))]


def compare(one: list[Found], other: list[Found], *suppressed: Found) -> Parity:
    """With PyTorch's candidates: its own detections and those it suppressed."""
    every = [one[0], *suppressed]
    scores = torch.zeros(sum(len(part.scores) for part in every), 3)
    labels = torch.cat([part.labels for part in every])
    scores[torch.arange(len(labels)), labels] = torch.cat([part.scores for part in every])
    return compare_with(one, [Candidates(torch.cat([part.boxes for part in every]), scores)], other, SETTINGS)


A = (10.0, 10.0, 50.0, 50.0, 0.9, 0)
B = (100.0, 10.0, 150.0, 50.0, 0.6, 1)
C = (200.0, 10.0, 250.0, 50.0, 0.3, 0)


def test_what_differs_by_rounding_agrees() -> None:
    moved = (10.05, 10, 50, 50, 0.90005, 0)
    parity = compare(found(A, B), found(moved, B))
    assert (parity.images, parity.detections, parity.borderline) == (1, 2, 0)
    assert parity.box == pytest.approx(0.05, abs=1e-5)
    assert parity.score == pytest.approx(5e-5, abs=1e-6)


def test_a_box_beyond_any_input_may_differ_by_a_share_of_its_side() -> None:
    huge = (-1e6, 10.0, 1048000.0, 50.0, 0.9, 0)  # 2,000 times 1,024 px wide, so 0.1 px are 200
    parity = compare(found(huge), found((huge[0] - 190, *huge[1:])))
    assert parity.box == pytest.approx(0.095, abs=1e-3)
    with pytest.raises(ExportError, match="1 detection, the first in image 1, without a partner"):
        compare(found(huge), found((huge[0] - 210, *huge[1:])))


def test_half_precision_may_move_a_box_by_a_share_of_its_side() -> None:
    large = (0.0, 0.0, 200.0, 100.0, 0.9, 0)  # 2.5 % of 200 px are 5
    every = [Candidates(torch.tensor([large[:4]]), torch.tensor([[0.9, 0.0, 0.0]]))]
    parity = compare_with(found(large), every, found((4.8, *large[1:])), SETTINGS, HALVED)
    assert (parity.detections, parity.strays) == (1, 0) and parity.box == pytest.approx(4.8, abs=1e-4)
    with pytest.raises(ExportError, match=r"first in image 1, without a partner within 0\.5 px"):
        compare_with(found(large), every, found((5.2, *large[1:])), SETTINGS, HALVED)


@pytest.mark.parametrize(("agreeing", "is_refused"), [(199, True), (200, False)])
def test_of_a_hundred_detections_half_precision_may_move_one_further(agreeing: int, is_refused: bool) -> None:
    rows = [(20.0 * i, 0.0, 20.0 * i + 10, 10.0, 0.9, 1) for i in range(agreeing + 1)]
    moved = [*rows[:-1], (rows[-1][0] + 6, *rows[-1][1:])]  # a stray on each side
    boxes, scores = torch.tensor([row[:4] for row in rows]), torch.zeros(len(rows), 3)
    scores[:, 1] = 0.9
    sides = found(*rows), [Candidates(boxes, scores)], found(*moved)
    if is_refused:
        with pytest.raises(ExportError, match="2 detections, the first in image 1"):
            compare_with(*sides, WIDE, HALVED)
        return
    parity = compare_with(*sides, WIDE, HALVED)
    assert (parity.detections, parity.strays, parity.borderline) == (agreeing, 2, 0)
    assert str(parity).endswith("; 2 further off")


def test_order_of_equal_scores_does_not_matter() -> None:
    twin = (*B[:4], 0.9, 1)
    assert compare(found(A, twin), found(twin, A)).detections == 2


@pytest.mark.parametrize(
    "other",
    [
        [(10.2, 10, 50, 50, 0.9, 0), B],  # a box 0.2 px off
        [(10, 10, 50, 50, 0.8997, 0), B],  # a score 3e-4 off
        [(10, 10, 50, 50, 0.9, 2), B],  # another class
        [A],  # one missing
        [A, B, C],  # one too many
        [A, A, B],  # one twice
        [],
    ],
    ids=["box", "score", "class", "missing", "extra", "twice", "nothing"],
)
def test_what_is_refused(other: list[tuple[float, float, float, float, float, int]]) -> None:
    with pytest.raises(ExportError, match="in image 1,"):
        compare(found(A, B), found(*other))


def test_a_score_on_the_threshold_is_forgiven() -> None:
    on_it = (200.0, 10.0, 250.0, 50.0, 0.10004, 0)
    assert compare(found(A, on_it), found(A)).borderline == 1
    above = (200.0, 10.0, 250.0, 50.0, 0.1003, 0)
    with pytest.raises(ExportError):
        compare(found(A, above), found(A))


def test_the_last_place_of_a_full_list_is_forgiven() -> None:
    full = [A, B, C]
    one = (300.0, 10.0, 350.0, 50.0, 0.20001, 1)
    other = (400.0, 10.0, 450.0, 50.0, 0.2, 1)
    assert compare(found(*full, one), found(*full, other), *found(other)).borderline == 2
    with pytest.raises(ExportError):  # three places of more than four: neither had to give way
        compare(found(A, B, one), found(A, B, other), *found(other))


def test_the_last_candidate_of_a_class_is_forgiven() -> None:
    # Twins of one score far apart: which of them is the 400th candidate of the class is a matter of rounding.
    crowd = found(*((0.0, 0.0, 50.0, 50.0, 0.8, 1) for _ in range(398)))[0]
    one = (300.0, 10.0, 350.0, 50.0, 0.50001, 1)
    other = (400.0, 10.0, 450.0, 50.0, 0.5, 1)
    weaker = (400.0, 10.0, 450.0, 50.0, 0.4, 1)
    first = (0.0, 0.0, 50.0, 50.0, 0.8, 1)
    assert compare(found(first, one), found(first, other), *found(other), crowd).borderline == 2
    with pytest.raises(ExportError):  # there was room for both
        compare(found(first, one), found(first, other), *found(other))
    with pytest.raises(ExportError):  # PyTorch would not have looked at it
        compare(found(first, one), found(first, one, weaker), *found(weaker), crowd)


def test_an_overlap_on_the_threshold_is_forgiven_and_what_follows_from_it() -> None:
    # 100 px against 100 px shifted by 33.3: IoU 66.7 / 133.3 = 0.5 within 1e-3.
    first = (0.0, 0.0, 100.0, 10.0, 0.9, 0)
    second = (33.3333, 0.0, 133.3333, 10.0, 0.8, 0)
    third = (53.0, 0.0, 153.0, 10.0, 0.7, 0)  # IoU with the second 80.3 / 119.7 = 0.67, with the first 0.31
    parity = compare(found(first, second), found(first, third), *found(third))
    assert (parity.detections, parity.borderline) == (1, 2)
    apart = (*third[:5], 1)  # of another class, so the second cannot have suppressed it
    with pytest.raises(ExportError):
        compare(found(first, second), found(first, apart), *found(apart))


def test_equal_scores_may_suppress_one_another_either_way() -> None:
    here = (0.0, 0.0, 100.0, 10.0, 0.800002, 0)
    there = (20.0, 0.0, 120.0, 10.0, 0.800001, 0)  # IoU 80 / 120
    assert compare(found(A, here), found(A, there), *found(there)).borderline == 2
    with pytest.raises(ExportError):  # PyTorch knows of no such box
        compare(found(A, here), found(A, there))
    weaker = (*there[:4], 0.79, 0)
    with pytest.raises(ExportError):  # PyTorch was right to prefer the other
        compare(found(A, here), found(A, weaker), *found(weaker))


def test_nothing_to_compare_proves_nothing() -> None:
    with pytest.raises(ExportError, match="--images"):
        compare(found(), found())

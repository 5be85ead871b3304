"""Box mathematics against hand calculations, exact fractions, and greedy suppression as a plain loop."""

from __future__ import annotations

import math
from fractions import Fraction
from unittest.mock import patch

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from fssd import boxes as box_maths
from fssd.boxes import (
    VARIANCES,
    area,
    decode,
    encode,
    iou,
    overlaps,
    suppress,
    to_center_size,
)

# --- Plain loops on whole-pixel boxes, exact ----------------------------------------------------------------

Box = tuple[int, int, int, int]


def exact_iou(a: Box, b: Box) -> Fraction:
    width = max(0, min(a[2], b[2]) - max(a[0], b[0]))
    height = max(0, min(a[3], b[3]) - max(a[1], b[1]))
    union = (a[2] - a[0]) * (a[3] - a[1]) + (b[2] - b[0]) * (b[3] - b[1]) - width * height
    return Fraction(width * height, union) if union else Fraction(0)


def plain_suppress(boxes: list[Box], threshold: Fraction) -> list[bool]:
    """Greedy: take the best box left, drop what overlaps it by more than `threshold`."""
    kept: list[int] = []
    for i, box in enumerate(boxes):
        if all(exact_iou(boxes[j], box) <= threshold for j in kept):
            kept.append(i)
    return [i in kept for i in range(len(boxes))]


@st.composite
def whole_boxes(draw: st.DrawFn, least: int = 1, most: int = 40) -> Box:
    x, y = draw(st.integers(-20, most)), draw(st.integers(-20, most))
    return x, y, x + draw(st.integers(least, most)), y + draw(st.integers(least, most))


# --- IoU, area, conversion ----------------------------------------------------------------------------------

HAND_IOUS = [
    # (0,0)-(2,2) has 4; the other (1,1)-(3,3) has 4; they share 1: 1 / (4 + 4 - 1).
    ((0, 0, 2, 2), (1, 1, 3, 3), 1 / 7),
    ((0, 0, 10, 10), (0, 0, 10, 10), 1.0),
    ((0, 0, 10, 10), (0, 0, 10, 5), 0.5),  # 50 / (100 + 50 - 50)
    ((0, 0, 4, 4), (4, 0, 8, 4), 0.0),  # they touch
    ((0, 0, 4, 4), (5, 5, 8, 8), 0.0),  # apart on both axes: a product of two negatives is no overlap
    ((0, 0, 4, 4), (0, 0, 0, 4), 0.0),  # no width
    ((3, 3, 3, 3), (3, 3, 3, 3), 0.0),  # an empty union
    ((0, 0, 4, 4), (4, 4, 0, 0), 0.0),  # inverted
]


@pytest.mark.parametrize(("a", "b", "wanted"), HAND_IOUS)
def test_iou_by_hand(a: Box, b: Box, wanted: float) -> None:
    both = iou(torch.tensor([a]).float(), torch.tensor([b]).float())
    assert both.shape == (1, 1)
    assert both.item() == pytest.approx(wanted, abs=1e-7)


@settings(max_examples=60, deadline=None)
@given(st.lists(whole_boxes(0), min_size=1, max_size=6), st.lists(whole_boxes(0), min_size=1, max_size=6))
def test_iou_equals_exact_fractions(a: list[Box], b: list[Box]) -> None:
    found = iou(torch.tensor(a).float(), torch.tensor(b).float())
    assert found.shape == (len(a), len(b))
    for i, x in enumerate(a):
        for j, y in enumerate(b):
            assert found[i, j].item() == pytest.approx(float(exact_iou(x, y)), abs=1e-6)


@settings(max_examples=60, deadline=None)
@given(whole_boxes(), whole_boxes(), st.integers(-50, 50), st.sampled_from([0.25, 0.5, 2.0, 8.0]))
def test_iou_properties(a: Box, b: Box, shift: int, scale: float) -> None:
    x, y = torch.tensor([a]).float(), torch.tensor([b]).float()
    value = iou(x, y).item()
    assert 0 <= value <= 1
    assert iou(y, x).item() == value
    assert iou(x, x).item() == 1
    assert iou(x + shift, y + shift).item() == pytest.approx(value, abs=1e-6)
    assert iou(x * scale, y * scale).item() == pytest.approx(value, abs=1e-6)


def test_iou_keeps_leading_dimensions_apart() -> None:
    a = torch.tensor([[[0.0, 0, 2, 2]], [[0, 0, 4, 4]]])  # (2, 1, 4)
    b = torch.tensor([[[0.0, 0, 2, 2], [0, 0, 2, 4]], [[0, 0, 2, 2], [8, 8, 9, 9]]])  # (2, 2, 4)
    # 4/4, 4/8 | 4/16, 0
    torch.testing.assert_close(iou(a, b), torch.tensor([[[1.0, 0.5]], [[0.25, 0.0]]]))


def test_iou_of_nothing() -> None:
    assert iou(torch.zeros(0, 4), torch.zeros(3, 4)).shape == (0, 3)
    assert iou(torch.zeros(2, 4), torch.zeros(0, 4)).shape == (2, 0)


def test_iou_gradient_of_empty_boxes_is_finite() -> None:
    boxes = torch.zeros(1, 4, requires_grad=True)
    iou(boxes, torch.zeros(1, 4)).sum().backward()
    assert boxes.grad is not None
    assert boxes.grad.isfinite().all()


def test_area_by_hand() -> None:
    boxes = torch.tensor([[1.0, 2, 4, 8], [5, 5, 5, 9], [4, 2, 1, 8], [4, 8, 1, 2], [-2, -3, 1, 1]])
    # 3 * 6, no width, inverted on one axis, on both (not 18), 3 * 4
    assert area(boxes).tolist() == [18, 0, 0, 0, 12]


def test_conversion_by_hand() -> None:
    corners = torch.tensor([[10.0, 20, 30, 80]])
    center_size = torch.tensor([[20.0, 50, 20, 60]])
    assert torch.equal(to_center_size(corners), center_size)


# --- The coder ----------------------------------------------------------------------------------------------


def test_variances_are_those_of_the_released_networks() -> None:
    assert VARIANCES == (0.1, 0.1, 0.2, 0.2)


def test_encode_by_hand() -> None:
    # Prior: centre (50, 60), 20 x 40. Box: centre (54, 50), 40 x 20.
    prior = torch.tensor([[40.0, 40, 60, 80]])
    box = torch.tensor([[34.0, 40, 74, 60]])
    # (4/20)/0.1 = 2; (-10/40)/0.1 = -2.5; ln(40/20)/0.2 = 5 ln 2; ln(20/40)/0.2 = -5 ln 2
    wanted = [2.0, -2.5, 5 * math.log(2), -5 * math.log(2)]
    assert encode(box, prior)[0].tolist() == pytest.approx(wanted, abs=1e-5)
    assert decode(torch.tensor([wanted]), prior)[0].tolist() == pytest.approx([34, 40, 74, 60], abs=1e-4)


def test_zero_offsets_decode_to_the_priors() -> None:
    priors = torch.tensor([[0.0, 0, 30, 30], [-12, 4, 8, 90]])
    torch.testing.assert_close(decode(torch.zeros(3, 2, 4), priors), priors.expand(3, 2, 4))


@settings(max_examples=60, deadline=None)
@given(st.lists(st.tuples(whole_boxes(), whole_boxes()), min_size=1, max_size=6))
def test_coder_round_trip(pairs: list[tuple[Box, Box]]) -> None:
    boxes = torch.tensor([a for a, _ in pairs]).double()
    priors = torch.tensor([b for _, b in pairs]).double()
    offsets = encode(boxes, priors)
    torch.testing.assert_close(decode(offsets, priors), boxes, rtol=0, atol=1e-9)
    # The offsets do not depend on the unit: pixels or shares of a 300 px image.
    torch.testing.assert_close(encode(boxes / 300, priors / 300), offsets)


def test_decode_of_a_batch_equals_each_image() -> None:
    torch.manual_seed(0)
    corner = torch.rand(7, 2) * 20
    priors = torch.cat((corner, corner + torch.rand(7, 2) * 20 + 5), dim=1)
    offsets = torch.randn(3, 7, 4)
    together = decode(offsets, priors)
    for i in range(3):
        assert torch.equal(together[i], decode(offsets[i], priors))


# --- Suppression --------------------------------------------------------------------------------------------

THRESHOLDS = [Fraction(1, 4), Fraction(9, 20), Fraction(1, 2), Fraction(3, 4), Fraction(0)]


def random_set(seed: int) -> list[Box]:
    """Boxes on a coarse grid: many duplicates, chains of overlaps, and IoUs exactly at a threshold."""
    generator = torch.Generator().manual_seed(seed)

    def draw(low: int, high: int) -> int:
        return int(torch.randint(low, high, (), generator=generator))

    boxes: list[Box] = []
    for _ in range(draw(0, 45)):
        if boxes and draw(0, 6) == 0:
            boxes.append(boxes[draw(0, len(boxes))])
        else:
            x, y = draw(0, 12) * 2, draw(0, 4) * 2
            boxes.append((x, y, x + draw(2, 7) * 2, y + draw(2, 6) * 2))
    return boxes


def as_tensor(boxes: list[Box]) -> Tensor:
    return torch.tensor(boxes, dtype=torch.float32).reshape(-1, 4)


@pytest.mark.parametrize("seed", range(60))
def test_suppress_equals_greedy_loop(seed: int) -> None:
    boxes = random_set(seed)
    for threshold in THRESHOLDS:
        assert suppress(as_tensor(boxes), float(threshold)).tolist() == plain_suppress(boxes, threshold)


def test_random_sets_hold_what_they_promise() -> None:
    sets = [random_set(seed) for seed in range(60)]
    assert any(len(set(boxes)) < len(boxes) for boxes in sets)
    ious = {exact_iou(a, b) for boxes in sets for i, a in enumerate(boxes) for b in boxes[:i]}
    assert set(THRESHOLDS) <= ious
    rescued = 0  # boxes that only a dropped box overlaps: what tells greedy NMS from "drop all rivals"
    for boxes in sets:
        keep = plain_suppress(boxes, Fraction(1, 2))
        for i, box in enumerate(boxes):
            rescued += keep[i] and any(exact_iou(box, other) > Fraction(1, 2) for other in boxes[:i])
    assert rescued > 20


def test_suppress_follows_long_chains() -> None:
    # Each box overlaps its neighbours alone (IoU 8/12 = 2/3; two apart 6/14 < 1/2): every second survives.
    boxes = torch.tensor([[2.0 * i, 0, 2 * i + 10, 1] for i in range(101)])
    assert suppress(boxes, 0.5).tolist() == [i % 2 == 0 for i in range(101)]


def test_suppress_at_the_threshold_keeps() -> None:
    boxes = torch.tensor([[0.0, 0, 10, 10], [0, 0, 10, 5]])  # IoU exactly 0.5
    assert suppress(boxes, 0.5).tolist() == [True, True]
    assert suppress(boxes, 0.4999).tolist() == [True, False]


def test_suppress_treats_leading_dimensions_apart() -> None:
    size = 20
    sets = [[*random_set(seed), *([(0, 0, 0, 0)] * size)][:size] for seed in range(100, 106)]
    stacked = torch.stack([as_tensor(boxes) for boxes in sets]).reshape(2, 3, size, 4)
    keep = suppress(stacked, 0.45).reshape(6, size)
    for row, boxes in zip(keep, sets, strict=True):
        assert row.tolist() == plain_suppress(boxes, Fraction(9, 20))


def test_padding_suppresses_nothing() -> None:
    boxes = torch.tensor([[0.0, 0, 0, 0], [0, 0, 8, 8], [0, 0, 0, 0], [0, 0, 8, 8], [5, 5, 5, 9]])
    assert suppress(boxes, 0.5).tolist() == [True, True, True, False, True]


def test_suppress_of_nothing() -> None:
    assert suppress(torch.zeros(0, 4), 0.5).shape == (0,)
    assert suppress(torch.zeros(3, 0, 4), 0.5).shape == (3, 0)


# --- Suppression in single precision ------------------------------------------------------------------------


def plain_single_suppress(boxes: Tensor, threshold: float) -> list[bool]:
    """Greedy NMS one box at a time, each step of IoU rounded to single precision as SSD's code has it."""
    array = boxes.numpy()
    x1, y1, x2, y2 = array.T
    zero = np.float32(0)
    areas = np.maximum(x2 - x1, zero) * np.maximum(y2 - y1, zero)
    keep = np.zeros(len(array), bool)
    for i in range(len(array)):
        width = np.maximum(np.minimum(x2[keep], x2[i]) - np.maximum(x1[keep], x1[i]), zero)
        height = np.maximum(np.minimum(y2[keep], y2[i]) - np.maximum(y1[keep], y1[i]), zero)
        shared = width * height
        union = areas[keep] + areas[i] - shared
        overlaps = np.divide(shared, union, out=np.zeros_like(shared), where=union > 0)
        keep[i] = not (overlaps > np.float32(threshold)).any()
    return keep.tolist()


pixels = st.integers(-3000, 3000).map(lambda n: n / 7)  # of which few are exact in single precision


@st.composite
def single_boxes(draw: st.DrawFn) -> tuple[float, float, float, float]:
    """Now and then inverted or without area."""
    x, y = draw(pixels), draw(pixels)
    return x, y, x + draw(st.integers(-5, 3000)) / 7, y + draw(st.integers(-5, 3000)) / 7


@settings(max_examples=150, deadline=None)
@given(st.lists(single_boxes(), max_size=40), st.data())
def test_suppress_rounds_as_a_plain_loop_does(
    rows: list[tuple[float, float, float, float]], data: st.DataObject
) -> None:
    boxes = torch.tensor(rows, dtype=torch.float32).reshape(-1, 4)
    threshold = data.draw(st.sampled_from([0.0, 0.3, 0.45, 0.5, 0.999]))
    if len(rows) > 1:  # or the IoU of a pair, to the last bit, or the number before
        pair = iou(boxes[:1], boxes[1:2]).item()
        threshold = data.draw(st.sampled_from([threshold, pair, float(np.nextafter(np.float32(pair), 0.0))]))
    few = data.draw(st.sampled_from([0, box_maths.FEW]))  # the way of large sets, or that of small ones
    with patch.object(box_maths, "FEW", few):
        assert suppress(boxes, threshold).tolist() == plain_single_suppress(boxes, threshold)


def spread(count: int, kind: str) -> Tensor:
    """A set of so many boxes of one kind, in random order but for the chain, which follows itself."""
    generator = torch.Generator().manual_seed(count)
    place = torch.arange(count)
    if kind == "chain":  # a box overlaps its neighbours alone: (12 - 2)^2 of 2 * 144 - 100, IoU 0.53
        corner = torch.stack((2 * place, 2 * place), dim=1).float()
        return torch.cat((corner, corner + 12), dim=1)
    if kind == "apart":
        corner = torch.stack((place % 20 * 15, place // 20 * 15), dim=1).float()
        return torch.cat((corner, corner + 14), dim=1)[torch.randperm(count, generator=generator)]
    if kind == "piled":
        corner = torch.rand(count, 2, generator=generator) * 20
        return torch.cat((corner, corner + 200), dim=1)
    corner = torch.rand(count, 2, generator=generator) * 250
    return torch.cat((corner, corner + 5 + torch.rand(count, 2, generator=generator) * 120), dim=1)


@pytest.mark.parametrize("kind", ["chain", "apart", "piled", "mixed"])
@pytest.mark.parametrize("count", [181, 182, 400, 1000])  # 181 squared is the last that fits at once
def test_suppress_of_large_sets(count: int, kind: str) -> None:
    boxes = spread(count, kind)
    keep = suppress(boxes, 0.45)
    assert keep.tolist() == plain_single_suppress(boxes, 0.45)
    wanted = {"chain": (count + 1) // 2, "apart": count, "piled": 1}
    assert int(keep.sum()) == wanted.get(kind, int(keep.sum()))


def test_suppress_of_more_boxes_than_are_compared_at_once() -> None:
    boxes = spread(33_000, "piled")
    assert suppress(boxes, 0.45).tolist() == [True] + [False] * 32_999


def test_suppress_of_large_sets_side_by_side() -> None:
    kinds = ["chain", "apart", "piled", "mixed"]
    keep = suppress(torch.stack([spread(400, kind) for kind in kinds]), 0.3)
    assert keep.tolist() == [plain_single_suppress(spread(400, kind), 0.3) for kind in kinds]


@pytest.mark.parametrize("threshold", [0.5, 1.0, 2.0])
def test_suppress_ends_whatever_the_boxes(threshold: float) -> None:
    inf, nan = math.inf, math.nan
    rows = [
        [-inf, -inf, inf, inf],
        [-inf, -inf, inf, inf],
        [nan, 0, 4, 4],
        [0, 0, 3e38, 3e38],
        [-3e19, -3e19, 3e19, 3e19],
        [0, 0, 1e19, 1e19],
        [0, 0, 1e19, 1e19],
        [0, 0, 8, 8],
        [0, 0, 8, 8],
    ]
    # No number says how far the first five overlap; of the pairs after them, the second goes if it may.
    equal = threshold >= 1
    assert suppress(torch.tensor(rows), threshold).tolist() == [True] * 6 + [equal, True, equal]


@pytest.mark.parametrize("dtype", [torch.float64, torch.float16, torch.bfloat16, torch.int64], ids=str)
def test_suppress_in_other_precisions(dtype: torch.dtype) -> None:
    boxes = spread(60, "mixed").to(dtype)
    keep = suppress(boxes, 0.45)
    assert keep.tolist() == plain_single_suppress(boxes.float(), 0.45)
    assert 0 < int(keep.sum()) < 60


def test_suppress_of_boxes_with_a_gradient() -> None:
    boxes = spread(20, "mixed")
    assert torch.equal(suppress(boxes.clone().requires_grad_(), 0.45), suppress(boxes, 0.45))


def test_overlaps_of_arrays() -> None:
    boxes = np.array([[0, 0, 10, 10], [0, 0, 0, 0]], float)
    others = np.array([[0, 0, 10, 10], [5, 0, 15, 10], [20, 0, 30, 10], [0, 0, 0, 0]], float)
    assert overlaps(boxes, others) == pytest.approx(np.array([[1, 1 / 3, 0, 0], [0, 0, 0, 0]]))

"""Matching against a plain loop after Caffe's MatchBBox, and cases worked by hand."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from plain import plain_iou
from torch import Tensor

from fssd.heads.multibox import match as module
from fssd.model.build import build_model


def match(boxes: Tensor, priors: Tensor, threshold: float = 0.5) -> Tensor:
    return torch.from_numpy(module.match(boxes.numpy(), priors.numpy(), threshold))


# --- Caffe's two steps, one pair after the other ------------------------------------------------------------


def plain_match(boxes: list[list[float]], priors: list[list[float]], threshold: float) -> list[int]:
    overlaps = [[plain_iou(box, prior) for box in boxes] for prior in priors]  # [prior][object]
    owner = [-1] * len(priors)
    pool = list(range(len(boxes)))  # objects without a prior of their own
    while pool:
        best, best_prior, best_object = 1e-6, -1, -1
        for p in range(len(priors)):
            if owner[p] >= 0:
                continue
            for g in pool:
                if overlaps[p][g] > best:
                    best, best_prior, best_object = overlaps[p][g], p, g
        if best_prior < 0:
            break
        owner[best_prior] = best_object
        pool.remove(best_object)
    for p in range(len(priors)):
        if owner[p] >= 0:
            continue
        best, best_object = -1.0, -1
        for g in range(len(boxes)):
            if overlaps[p][g] >= threshold and overlaps[p][g] > best:
                best, best_object = overlaps[p][g], g
        owner[p] = best_object
    return owner


# --- Random sets --------------------------------------------------------------------------------------------


def random_boxes(count: int, generator: torch.Generator, grid: bool) -> Tensor:
    """Boxes in a 32 px image. On a grid, equal boxes and tied overlaps are common."""
    if grid:
        corner = torch.randint(0, 5, (count, 2), generator=generator) * 4
        side = torch.randint(1, 4, (count, 2), generator=generator) * 4
    else:
        corner = torch.rand((count, 2), generator=generator) * 20
        side = torch.rand((count, 2), generator=generator) * 14 + 1
    return torch.cat((corner, corner + side), dim=1).float()


def random_case(seed: int) -> tuple[Tensor, Tensor]:
    """(objects, priors); every third case has more objects than priors, two thirds have tied overlaps."""
    generator = torch.Generator().manual_seed(seed)
    few, many = int(torch.randint(1, 6, (), generator=generator)), 24
    objects, priors = (many, few) if seed % 3 == 0 else (few * 2, many)
    return random_boxes(objects, generator, seed % 3 != 1), random_boxes(priors, generator, seed % 3 != 1)


@pytest.mark.parametrize("seed", range(120))
def test_equals_plain_loop(seed: int) -> None:
    boxes, priors = random_case(seed)
    for threshold in (0.5, 0.3, 1.0):
        found = match(boxes, priors, threshold)
        assert found.dtype == torch.int64
        assert found.tolist() == plain_match(boxes.tolist(), priors.tolist(), threshold)


def test_random_sets_hold_what_they_promise() -> None:
    contested = exact = crowded = lonely = 0
    for seed in range(120):
        boxes, priors = (t.tolist() for t in random_case(seed))
        best = [max(range(len(priors)), key=lambda p, b=box: plain_iou(b, priors[p])) for box in boxes]
        overlaps = [plain_iou(box, prior) for box in boxes for prior in priors]
        contested += len(set(best)) < len(best)
        exact += 0.5 in overlaps
        crowded += len(boxes) > len(priors)
        lonely += any(max(plain_iou(box, prior) for prior in priors) == 0 for box in boxes)
    assert min(contested, exact, crowded, lonely) >= 10


@pytest.mark.parametrize("seed", range(30))
def test_invariants(seed: int) -> None:
    boxes, priors = random_case(seed)
    found = match(boxes, priors)
    owners = set(found.tolist()) - {-1}
    assert len(owners) <= min(len(boxes), len(priors))
    # Matching is maximal: an object without a prior touches none that it could still have had.
    for g in set(range(len(boxes))) - owners:
        touched = [p for p, prior in enumerate(priors.tolist()) if plain_iou(boxes[g].tolist(), prior) > 1e-6]
        assert all(found[p] >= 0 for p in touched)
    for p, g in enumerate(found.tolist()):
        assert g < 0 or plain_iou(boxes[g].tolist(), priors[p].tolist()) > 0
    # Pixels or shares of the image: the same.
    assert torch.equal(match(boxes / 32, priors / 32), found)


# --- By hand ------------------------------------------------------------------------------------------------


def test_two_objects_with_one_best_prior_both_keep_one() -> None:
    priors = torch.tensor([[0.0, 0, 10, 10], [0, 0, 10, 30]])
    boxes = torch.tensor([[0.0, 0, 10, 9], [0, 0, 10, 8]])
    # IoU object 0: 0.9 and 9/30 = 0.3. Object 1: 0.8 and 8/30 = 0.27. Both like prior 0 best;
    # object 0 takes it, object 1 takes prior 1 although 0.27 is below the threshold.
    assert match(boxes, priors).tolist() == [0, 1]
    assert match(boxes.flip(0), priors).tolist() == [1, 0]


def test_the_best_pair_goes_first_not_the_first_object() -> None:
    priors = torch.tensor([[0.0, 0, 10, 10], [0, 0, 10, 20]])
    boxes = torch.tensor([[0.0, 0, 10, 12], [0, 0, 10, 10]])
    # Object 0: 10/12 = 0.83 and 12/20 = 0.6. Object 1: 1.0 and 0.5. Pair (1, 0) is best, so object 0
    # gets prior 1 with 0.6.
    assert match(boxes, priors).tolist() == [1, 0]


def test_own_prior_outranks_a_better_overlap() -> None:
    priors = torch.tensor([[0.0, 0, 10, 10]])
    boxes = torch.tensor([[0.0, 0, 10, 10], [0, 0, 10, 9]])
    assert match(boxes, priors).tolist() == [0]  # one prior, two objects: the best pair alone
    # Object 1's only touching prior is prior 1, which overlaps object 0 more (0.6 against 2/10 = 0.2).
    priors = torch.tensor([[0.0, 0, 10, 10], [0, 0, 10, 6]])
    boxes = torch.tensor([[0.0, 0, 10, 10], [0, 0, 5, 2]])
    # Object 0: 1.0, 0.6. Object 1: 10/100 = 0.1, 10/60 = 0.17: bipartite (0, 0), then (1, 1).
    assert match(boxes, priors).tolist() == [0, 1]


def test_threshold_is_inclusive() -> None:
    priors = torch.tensor([[0.0, 0, 10, 10], [0, 0, 10, 20], [0, 0, 10, 21]])
    boxes = torch.tensor([[0.0, 0, 10, 10]])
    # 1.0, exactly 0.5, 10/21 = 0.476
    assert match(boxes, priors, 0.5).tolist() == [0, 0, -1]
    assert match(boxes, priors, 0.47).tolist() == [0, 0, 0]
    assert match(boxes, priors, 0.51).tolist() == [0, -1, -1]


def test_a_free_prior_takes_its_best_object() -> None:
    priors = torch.tensor([[0.0, 0, 10, 10], [0, 0, 10, 6], [0, 0, 10, 8]])
    boxes = torch.tensor([[0.0, 0, 10, 6], [0, 0, 10, 10]])
    # Own priors: object 1 takes prior 0, object 0 prior 1. Prior 2: 6/8 = 0.75 or 8/10 = 0.8: object 1.
    assert match(boxes, priors).tolist() == [1, 0, 1]


def test_no_objects_no_priors_no_overlap() -> None:
    priors = torch.tensor([[0.0, 0, 10, 10], [5, 5, 15, 15]])
    assert match(torch.zeros(0, 4), priors).tolist() == [-1, -1]
    assert match(torch.tensor([[50.0, 50, 60, 60]]), priors).tolist() == [-1, -1]
    # An object without area overlaps nothing; it gets no prior, and its log size never arises.
    assert match(torch.tensor([[2.0, 2, 2, 8]]), priors).tolist() == [-1, -1]


def test_overlap_of_a_millionth_is_no_match() -> None:
    priors = torch.tensor([[0.0, 0, 2000, 2000]])
    assert match(torch.tensor([[0.0, 0, 1, 1]]), priors).tolist() == [-1]  # IoU 1 / 4e6
    assert match(torch.tensor([[0.0, 0, 4, 4]]), priors).tolist() == [0]  # IoU 16 / 4e6


# --- Which of several priors that overlap an object equally -------------------------------------------------

F = np.float32


def caffe_priors(side: int, cells: int, step: np.float32, least: int, most: int) -> np.ndarray:
    """A level with ratio 2 as prior_box_layer.cpp computes it: floats, halved and divided in double."""
    shapes = [(F(least), F(least)), (F(math.sqrt(least * most)),) * 2]
    shapes += [(F(least) * np.sqrt(ratio), F(least) / np.sqrt(ratio)) for ratio in (F(2), F(0.5))]
    rows = []
    for row in range(cells):
        for column in range(cells):
            x, y = (F(column) + F(0.5)) * step, (F(row) + F(0.5)) * step
            for width, height in shapes:
                halves = (float(width) / 2, float(height) / 2)
                low, high = [(float(x) + s * halves[0], float(y) + s * halves[1]) for s in (-1, 1)]
                rows.append([F(value / side) for value in (*low, *high)])
    return np.array(rows)


def caffe_best(box: np.ndarray, priors: np.ndarray) -> int:
    """The first prior of the largest JaccardOverlap, in float."""
    width = np.minimum(priors[:, 2], box[2]) - np.maximum(priors[:, 0], box[0])
    height = np.minimum(priors[:, 3], box[3]) - np.maximum(priors[:, 1], box[1])
    shared = np.where((width > 0) & (height > 0), width * height, F(0))
    areas = (priors[:, 2] - priors[:, 0]) * (priors[:, 3] - priors[:, 1])
    return int((shared / (areas + (box[2] - box[0]) * (box[3] - box[1]) - shared)).argmax())


@pytest.mark.parametrize(
    ("name", "step", "sizes"),
    [
        ("ssd300-vgg16", F(8), (30, 60)),
        ("fssd300-vgg16", F(300) / F(38), (30, 60)),
        ("fssd300-lite", F(300) / F(38), (21, 45)),
    ],
)
def test_small_objects_get_the_prior_that_caffe_gives_them(
    name: str, step: np.float32, sizes: tuple[int, int]
) -> None:
    # Objects of 8 px lie wholly in several priors of one area, which then overlap them equally but for
    # rounding.
    with torch.device("meta"):
        targets = build_model(name, 1).heads.targets
    priors = caffe_priors(300, 38, step, *sizes)
    corners = np.random.default_rng(0).integers(20, 270, (60, 2))
    for left, top in [(101, 52), *corners.tolist()]:
        box = np.array([[left, top, left + 8, top + 8]], F)
        found = targets(box, np.zeros(1, np.int64))["classes"].nonzero().flatten().tolist()
        assert found == [caffe_best(box[0] / F(300), priors)], (left, top)


def test_the_released_code_was_seen_to_choose_prior_958() -> None:
    with torch.device("meta"):
        targets = build_model("fssd300-vgg16", 1).heads.targets
    found = targets(np.array([[101, 52, 109, 60]], F), np.zeros(1, np.int64))
    assert found["classes"].nonzero().flatten().tolist() == [958]

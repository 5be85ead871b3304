"""The region loss against plain loops, its gradient against finite differences, and its targets."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from plain_region import Box, plain_region_loss
from torch import Tensor

from fssd.heads.yolov2.region_loss import region_loss
from fssd.heads.yolov2.region_targets import MOST, RegionTargets

ANCHORS = ((0.6, 0.8), (1.5, 1.2), (2.5, 3.0))
CLASSES, ROWS, COLUMNS = 4, 3, 5
TERMS = ("loss", "loss_box", "loss_object", "loss_empty", "loss_class", "loss_prior")

Truths = list[list[tuple[int, Box]]]


def random_case(seed: int) -> tuple[np.ndarray, Truths]:
    """Two images, one with up to nine objects of which some share a cell and an anchor, one maybe empty."""
    rng = np.random.default_rng(seed)
    predictions = rng.normal(0, 1, (2, len(ANCHORS) * (5 + CLASSES), ROWS, COLUMNS))
    truths: Truths = []
    for count in (9, seed % 3):
        rows = []
        for _ in range(count):
            w, h = rng.uniform(0.05, 0.9, 2)
            x, y = rng.uniform(w / 2, 1 - w / 2), rng.uniform(h / 2, 1 - h / 2)
            rows.append((int(rng.integers(CLASSES)), (float(x), float(y), float(w), float(h))))
        truths.append(rows)
    truths[0].append((0, truths[0][-1][1]))  # the same place and anchor: the later one is learned
    return predictions, truths


def targets_of(truths: Truths, dtype: torch.dtype = torch.float64) -> dict[str, Tensor]:
    boxes = torch.zeros(len(truths), MOST, 4, dtype=dtype)
    labels = torch.full((len(truths), MOST), -1)
    for image, rows in enumerate(truths):
        for index, (label, box) in enumerate(rows):
            boxes[image, index] = torch.tensor(box, dtype=dtype)
            labels[image, index] = label
    return {"boxes": boxes, "labels": labels}


def loss_of(predictions: Tensor, truths: Truths, warm: bool, by_size: bool = True) -> dict[str, Tensor]:
    anchors = torch.tensor(ANCHORS, dtype=predictions.dtype)
    targets = targets_of(truths, predictions.dtype)
    return region_loss(predictions, targets, anchors, warm=torch.tensor(warm), by_size=by_size)


@pytest.mark.parametrize("seed", range(6))
@pytest.mark.parametrize(("warm", "by_size"), [(True, True), (False, True), (False, False)])
def test_every_term_is_that_of_plain_loops(seed: int, warm: bool, by_size: bool) -> None:
    predictions, truths = random_case(seed)
    found = loss_of(torch.from_numpy(predictions).float(), truths, warm, by_size)
    expected = plain_region_loss(predictions, truths, ANCHORS, warm=warm, by_size=by_size)
    for name in TERMS:
        assert float(found[name]) == pytest.approx(expected[name], rel=2e-5, abs=1e-6), name
    assert (expected["loss_prior"] > 0) == warm


def test_some_predictions_are_neither_full_nor_empty() -> None:
    """A prediction on top of an object that another one learns has no objectness to learn."""
    predictions = np.full((1, len(ANCHORS) * (5 + CLASSES), ROWS, COLUMNS), -9.0)
    truth = (
        1,
        (0.5, 0.5, ANCHORS[1][0] / COLUMNS, ANCHORS[1][1] / ROWS),
    )  # learned by the anchor of its shape
    # The first anchor predicts the same box.
    predictions[0, :4, 1, 2] = (
        0,
        0,
        math.log(ANCHORS[1][0] / ANCHORS[0][0]),
        math.log(ANCHORS[1][1] / ANCHORS[0][1]),
    )
    predictions[0, 4, 1, 2] = 2.0
    predictions[0, 9:13, 1, 2] = 0  # and so does the second, whose object it is
    tensor = torch.from_numpy(predictions).float().requires_grad_()
    loss_of(tensor, [[truth]], warm=False)["loss"].backward()
    assert tensor.grad is not None
    assert float(tensor.grad[0, 4, 1, 2]) == 0
    assert float(tensor.grad[0, 9 + 4, 1, 2]) < 0  # the object's own is to rise to its IoU


@pytest.mark.parametrize("seed", [0, 1])
def test_gradient_is_that_of_the_plain_loss_with_fixed_overlaps(seed: int) -> None:
    """By central differences. The IoU that objectness is to reach is a constant, so the objectness term is
    compared in the direction of objectness alone."""
    predictions, truths = random_case(seed)
    tensor = torch.from_numpy(predictions).requires_grad_()
    double = _double_loss(tensor, truths)
    (gradient,) = torch.autograd.grad(double["loss"] - double["loss_object"], tensor)
    (objectness,) = torch.autograd.grad(_double_loss(tensor, truths)["loss_object"], tensor)
    rng = np.random.default_rng(seed)
    step = 1e-5
    for _ in range(150):
        place = tuple(int(rng.integers(side)) for side in predictions.shape)
        sides = []
        for sign in (1, -1):
            moved = predictions.copy()
            moved[place] += sign * step
            sides.append(plain_region_loss(moved, truths, ANCHORS, warm=True))
        both = [side["loss"] - side["loss_object"] for side in sides]
        assert float(gradient[place]) == pytest.approx((both[0] - both[1]) / (2 * step), abs=1e-6)
        entry = place[1] % (5 + CLASSES)
        if entry == 4:
            change = (sides[0]["loss_object"] - sides[1]["loss_object"]) / (2 * step)
            assert float(objectness[place]) == pytest.approx(change, abs=1e-6)
        else:
            assert float(objectness[place]) == 0


def _double_loss(tensor: Tensor, truths: Truths) -> dict[str, Tensor]:
    return loss_of(tensor, truths, warm=True)


def test_targets_are_shares_in_a_random_order_that_repeats() -> None:
    make = RegionTargets((200, 100))
    boxes = np.array([[0, 0, 100, 50], [20, 10, 60, 90], [150, 50, 200, 100]], np.float32)
    labels = np.array([3, 1, 2], np.int64)
    targets = make(boxes, labels)
    rows = {
        int(label): box.tolist()
        for label, box in zip(targets["labels"], targets["boxes"], strict=True)
        if label >= 0
    }
    assert rows[3] == [0.25, 0.25, 0.5, 0.5]
    assert rows[1] == pytest.approx([0.2, 0.5, 0.2, 0.8])
    assert rows[2] == pytest.approx([0.875, 0.75, 0.25, 0.5])
    assert targets["boxes"].shape == (MOST, 4) and targets["labels"].shape == (MOST,)
    assert (targets["labels"][3:] == -1).all() and not targets["boxes"][3:].any()
    assert all(torch.equal(targets[key], make(boxes, labels)[key]) for key in targets)
    orders = {tuple(make(boxes + shift, labels)["labels"][:3].tolist()) for shift in range(40)}
    assert len(orders) == 6


def test_targets_leave_out_slivers_and_what_is_over_30() -> None:
    make = RegionTargets((1000, 1000))
    thin = np.array([[10, 10, 10.9, 500], [-50, 5, 20, 50], [990, 5, 1090, 50]], np.float32)
    targets = make(thin, np.arange(3))
    assert sorted(targets["labels"][:2].tolist()) == [1, 2] and int((targets["labels"] >= 0).sum()) == 2
    inside = targets["boxes"][targets["labels"] == 2][0]
    assert inside.tolist() == pytest.approx([0.995, 0.0275, 0.01, 0.045])
    many = np.array([[i, i, i + 100, i + 100] for i in range(50)], np.float32)
    kept = make(many, np.arange(50))["labels"]
    assert int((kept >= 0).sum()) == 30 == MOST
    assert len(set(kept.tolist())) == 30 and kept.tolist() != list(range(30))

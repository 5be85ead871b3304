"""Selection of a whole batch at once, as on a GPU: what the CPU selects image by image, to the bit."""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt
import pytest
import torch
from plain import plain_iou
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode

from fssd import boxes as box_maths
from fssd.boxes import suppress, suppress_together
from fssd.heads.head import Found, Thresholds
from fssd.heads.multibox.detect import detect, detect_together
from fssd.heads.multibox.raw import Raw
from fssd.heads.selection import select
from fssd.heads.selection_together import select_together
from fssd.heads.yolov2 import region_decode
from fssd.heads.yolov2.region_decode import RegionGrid, detect_regions


def random_boxes(seed: int, *shape: int, tied: bool) -> Tensor:
    """Crowded boxes; tied ones have whole corners of few values, so many are equal or overlap equally."""
    rng = np.random.default_rng(seed)
    if tied:
        low = rng.integers(0, 4, (*shape, 2))
        return torch.from_numpy(np.concatenate((low, low + rng.integers(0, 4, (*shape, 2))), -1)).float()
    low, side = rng.uniform(0, 60, (*shape, 2)), rng.uniform(-2, 50, (*shape, 2))  # some without area
    return torch.from_numpy(np.concatenate((low, low + side), -1)).float()


@pytest.mark.parametrize("tied", [False, True])
@pytest.mark.parametrize("threshold", [0.0, 0.3, 0.45, 0.5, 1.0])
def test_suppression_is_a_plain_loop(tied: bool, threshold: float) -> None:
    boxes = random_boxes(7, 3, 60, tied=tied)
    found = suppress_together(boxes, threshold)
    for rows, kept in zip(boxes.tolist(), found.tolist(), strict=True):
        plain: list[bool] = []
        for i, box in enumerate(rows):
            rivals = [rows[j] for j in range(i) if plain[j]]
            plain.append(all(plain_iou(rival, box) <= threshold for rival in rivals))
        assert kept == plain


@pytest.mark.parametrize("tied", [False, True])
@pytest.mark.parametrize("count", [1, 2, 5, 64, 400])
def test_suppression_has_the_bits_of_the_cpu(tied: bool, count: int) -> None:
    boxes = random_boxes(count, 4, 6, count, tied=tied)
    boxes[0, 0, 0] = torch.tensor([0.0, 0, float("inf"), 9])
    boxes[0, 1, 0] = float("nan")
    boxes[1, :, count // 2 :] = 0  # padding
    for threshold in (0.0, 0.3, 0.5, 0.7):
        assert torch.equal(suppress_together(boxes, threshold), suppress(boxes, threshold))


def test_a_chain_in_which_every_box_frees_the_one_after_the_next() -> None:
    """Boxes of side 10 that lie 4 apart: neighbours overlap by 6 of 14, so every other one is kept."""
    low = torch.arange(300.0)[:, None] * 4
    boxes = torch.cat((low, torch.zeros(300, 1), low + 10, torch.full((300, 1), 10.0)), dim=1)
    assert suppress_together(boxes, 0.4).tolist() == [True, False] * 150


def test_sets_in_several_parts(monkeypatch: pytest.MonkeyPatch) -> None:
    boxes = random_boxes(2, 7, 30, tied=True)
    whole = suppress_together(boxes, 0.4)
    monkeypatch.setattr(box_maths, "DEVICE_PAIRS", 2000)  # two sets at once
    assert torch.equal(suppress_together(boxes, 0.4), whole)


def one_by_one(scores: Tensor, boxes: Tensor, **thresholds: Any) -> list[Found]:
    """`select` image by image."""

    def boxes_of(own: Tensor, places: npt.NDArray[np.intp]) -> npt.NDArray[np.float32]:
        return own.numpy()[places]

    rows = zip(scores.numpy(), boxes, strict=True)
    return [select(one, lambda places, own=own: boxes_of(own, places), **thresholds) for one, own in rows]


def assert_equal(found: list[Found], expected: list[Found]) -> None:
    assert len(found) == len(expected)
    for one, other in zip(found, expected, strict=True):
        for a, b in zip(one, other, strict=True):
            assert a.dtype == b.dtype and a.shape == b.shape
            assert torch.equal(a, b)


@pytest.mark.parametrize("tied", [False, True])
@pytest.mark.parametrize(
    "thresholds",
    [
        {"least": 0.01, "nms": 0.45, "top_k": 400, "keep": 200},
        {"least": 0.3, "nms": 0.2, "top_k": 20, "keep": 7},
        {"least": 0.5, "nms": 1.0, "top_k": 1000, "keep": 1000},
        {"least": 0.999, "nms": 0.5, "top_k": 5, "keep": 5},
    ],
    ids=str,
)
def test_selection_has_the_bits_of_the_cpu(tied: bool, thresholds: dict[str, Any]) -> None:
    rng = np.random.default_rng(1)
    values = rng.random((3, 4, 90))
    scores = torch.from_numpy(np.round(values, 1) if tied else values).float()
    scores[1] = 0  # an image without candidates
    scores[2, 1] = 0  # a class without candidates
    boxes = random_boxes(3, 3, 90, tied=tied)
    found = select_together(scores, boxes, **thresholds)
    assert_equal(found, one_by_one(scores, boxes, **thresholds))
    assert len(found[1].scores) == 0


@pytest.mark.parametrize("sigmoid", [False, True])
def test_a_batch_of_multibox_predictions(sigmoid: bool) -> None:
    generator = torch.Generator().manual_seed(4)
    logits = torch.randn(3, 200, 5, generator=generator) * 3
    logits[0, 5] = torch.nan
    raw = Raw(torch.randn(3, 200, 4, generator=generator) * 0.3, logits)
    priors = random_boxes(5, 200, tied=False).abs()
    priors[:, 2:] = priors[:, :2] + 20
    own = {"nms": 0.45, "top_k": 50, "keep": 30}
    expected = detect(raw, priors, sigmoid=sigmoid, score=0.2, **own)  # type: ignore[arg-type]
    found = detect_together(raw, priors, sigmoid, least=0.2, **own)
    for one, other in zip(found, expected, strict=True):
        assert len(other.scores) > 10
        assert one.labels.tolist() == other.labels.tolist()
        torch.testing.assert_close(one.boxes, other.boxes)
        torch.testing.assert_close(one.scores, other.scores)


def test_a_batch_of_yolo_predictions() -> None:
    grid = RegionGrid(((1.0, 2.0), (3.0, 1.5)), 5, 6, (192, 160), 4)
    generator = torch.Generator().manual_seed(8)
    predictions = torch.randn(2, grid.channels, 5, 6, generator=generator)
    thresholds = Thresholds(score=0.15, nms=0.4, top_k=20, keep=15)
    expected = detect_regions(predictions, grid, thresholds)
    boxes, scores = zip(*region_decode.region_candidates(predictions, grid), strict=True)
    found = select_together(
        torch.stack(scores).mT, torch.stack(boxes), least=0.15, nms=0.4, top_k=20, keep=15
    )
    for one, other in zip(found, expected, strict=True):
        assert len(other.scores) > 3
        assert one.labels.tolist() == other.labels.tolist()
        torch.testing.assert_close(one.boxes, other.boxes, atol=1e-4, rtol=1e-5)
        torch.testing.assert_close(one.scores, other.scores)


class Waits(TorchDispatchMode):
    """Counts what a GPU has to finish before Python goes on, apart from the copy of the result."""

    def __init__(self) -> None:
        super().__init__()
        self.count = 0

    def __torch_dispatch__(
        self, func: Any, types: Any, args: tuple[Any, ...] = (), kwargs: dict[str, Any] | None = None
    ) -> Any:
        self.count += func.name() in ("aten::equal", "aten::nonzero", "aten::_local_scalar_dense")
        return func(*args, **(kwargs or {}))


def test_a_batch_waits_no_more_often_than_an_image() -> None:
    """Scattered boxes are final within one round of questions, for one image or for eight."""
    low = torch.arange(50.0)[:, None] * 40
    boxes = torch.cat((low, low, low + 20, low + 20), dim=1)
    with Waits() as waits:
        suppress_together(boxes.expand(8, 20, 50, 4), 0.45)
    assert waits.count == 1

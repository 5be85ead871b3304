"""From raw predictions to detections, against a plain loop after Caffe's DetectionOutput."""

from __future__ import annotations

import math

import pytest
import torch
from torch import Tensor

from fssd.detect import detect
from fssd.model.network import Raw

# --- Plain loop ---------------------------------------------------------------------------------------------

Box = list[float]
Row = tuple[float, int, Box]  # score, label, box


def plain_iou(a: Box, b: Box) -> float:
    width = max(0.0, min(a[2], b[2]) - max(a[0], b[0]))
    height = max(0.0, min(a[3], b[3]) - max(a[1], b[1]))
    union = (a[2] - a[0]) * (a[3] - a[1]) + (b[2] - b[0]) * (b[3] - b[1]) - width * height
    return width * height / union if union > 0 else 0.0


def plain_decode(offsets: list[float], prior: Box) -> Box:
    w, h = prior[2] - prior[0], prior[3] - prior[1]
    x = (prior[0] + prior[2]) / 2 + 0.1 * offsets[0] * w
    y = (prior[1] + prior[3]) / 2 + 0.1 * offsets[1] * h
    w, h = w * math.exp(0.2 * offsets[2]), h * math.exp(0.2 * offsets[3])
    return [x - w / 2, y - h / 2, x + w / 2, y + h / 2]


def plain_softmax(logits: list[float]) -> list[float]:
    top = max(logits)
    powers = [math.exp(x - top) for x in logits]
    return [x / sum(powers) for x in powers]


def plain_detect(
    offsets: list[list[float]],
    logits: list[list[float]],
    priors: list[Box],
    score: float = 0.01,
    nms: float = 0.45,
    top_k: int = 400,
    keep: int = 200,
) -> list[Row]:
    """Detections of one image."""
    boxes = [plain_decode(o, p) for o, p in zip(offsets, priors, strict=True)]
    scores = [plain_softmax(row) for row in logits]
    found: list[Row] = []
    for label in range(1, len(logits[0])):
        candidates = [p for p in range(len(priors)) if scores[p][label] > score]
        candidates.sort(key=lambda p, c=label: -scores[p][c])
        kept: list[int] = []
        for p in candidates[:top_k]:
            if all(plain_iou(boxes[q], boxes[p]) <= nms for q in kept):
                kept.append(p)
        found += [(scores[p][label], label - 1, boxes[p]) for p in kept]
    found.sort(key=lambda row: -row[0])
    return found[:keep]


# --- Random predictions -------------------------------------------------------------------------------------

PRIORS = torch.tensor(
    [
        [x - s, y - s, x + s, y + s]
        for n, step, s in ((5, 20.0, 32.0), (3, 33.0, 44.0))
        for y in (step * (i + 0.5) for i in range(n))
        for x in (step * (i + 0.5) for i in range(n))
    ]
)
SETTINGS = [
    {},
    {"score": 0.3},
    {"score": 0.05, "nms": 0.2},
    {"nms": 0.7, "top_k": 5},
    {"top_k": 3, "keep": 7},
    {"keep": 1},
]


def random_raw(seed: int, images: int = 3, classes: int = 4) -> Raw:
    generator = torch.Generator().manual_seed(seed)
    logits = torch.randn((images, len(PRIORS), classes + 1), generator=generator) * 2
    logits[..., 0] += 1
    logits[..., classes] -= 3 * (seed % 2)  # a class that is rarely seen
    return Raw(torch.randn((images, len(PRIORS), 4), generator=generator), logits)


def assert_equal(found: tuple[Tensor, Tensor, Tensor], wanted: list[Row]) -> None:
    boxes, scores, labels = found
    assert boxes.shape == (len(wanted), 4)
    assert labels.dtype == torch.int64
    assert scores.tolist() == pytest.approx([row[0] for row in wanted], abs=1e-6)
    assert labels.tolist() == [row[1] for row in wanted]
    for box, row in zip(boxes.tolist(), wanted, strict=True):
        assert box == pytest.approx(row[2], abs=1e-3)


@pytest.mark.parametrize("settings", SETTINGS, ids=str)
@pytest.mark.parametrize("seed", range(8))
def test_equals_plain_loop(seed: int, settings: dict[str, float]) -> None:
    raw = random_raw(seed)
    found = detect(raw, PRIORS, **settings)
    assert len(found) == 3
    for i, image in enumerate(found):
        wanted = plain_detect(raw.offsets[i].tolist(), raw.logits[i].tolist(), PRIORS.tolist(), **settings)
        assert_equal(image, wanted)


def test_random_predictions_reach_every_limit() -> None:
    raw = random_raw(0)
    image = (raw.offsets[0].tolist(), raw.logits[0].tolist(), PRIORS.tolist())
    whole = plain_detect(*image)
    assert len(plain_detect(*image, nms=1.0)) > len(whole)
    assert 0 < len(plain_detect(*image, score=0.3)) < len(whole)
    assert len(plain_detect(*image, top_k=3)) < len(whole)
    assert len(plain_detect(*image, nms=0.7, top_k=5)) != len(plain_detect(*image, nms=0.7))
    # top_k counts before suppression: five candidates a class, not five survivors.
    assert len(plain_detect(*image, top_k=5)) < 5 * 4


# --- By hand ------------------------------------------------------------------------------------------------

SQUARES = torch.tensor([[0.0, 0, 10, 10], [0, 0, 10, 8], [50, 50, 60, 60], [0, 0, 10, 9]])


def raw_of(rows: list[list[float]]) -> Raw:
    """One image whose softmax is as given, background first, and whose boxes are the priors."""
    logits = torch.tensor(rows).log()[None]
    return Raw(torch.zeros(1, len(rows), 4), logits)


def test_by_hand() -> None:
    raw = raw_of([[0.1, 0.6, 0.3], [0.1, 0.7, 0.2], [0.5, 0.005, 0.495], [0.2, 0.5, 0.3]])
    # Class 0: 0.7 (prior 1), 0.6 (prior 0, IoU 0.8: dropped), 0.5 (prior 3, IoU 8/9: dropped); 0.005 is too
    # low. Class 1: 0.495 (prior 2), 0.3 (priors 0 and 3 tie; one goes), 0.2 (dropped).
    found = detect(raw, SQUARES)[0]
    assert found.scores.tolist() == pytest.approx([0.7, 0.495, 0.3], abs=1e-6)
    assert found.labels.tolist() == [0, 1, 1]
    torch.testing.assert_close(found.boxes[:2], SQUARES[[1, 2]])


def test_score_must_be_above_the_threshold() -> None:
    raw = Raw(torch.zeros(1, 2, 4), torch.zeros(1, 2, 2))  # exactly 0.5 each
    priors = SQUARES[[0, 2]]
    assert len(detect(raw, priors, score=0.5)[0].scores) == 0
    assert len(detect(raw, priors, score=0.4999)[0].scores) == 2


def test_score_at_the_threshold_is_no_candidate_beside_better_ones() -> None:
    # Four equal logits are exactly 0.25 each. Class 0 has priors 1 and 2 above it, class 1 has prior 3;
    # prior 0 stays at the threshold in all classes.
    logits = torch.zeros(1, 4, 4)
    logits[0, 1, 1] = logits[0, 2, 1] = logits[0, 3, 2] = 5.0
    priors = torch.tensor([[20.0 * i, 0, 20 * i + 9, 9] for i in range(4)])
    found = detect(Raw(torch.zeros(1, 4, 4), logits), priors, score=0.25)[0]
    assert sorted(found.labels.tolist()) == [0, 0, 1]
    assert sorted(found.boxes[:, 0].tolist()) == [20, 40, 60]


def test_labels_skip_classes_that_are_not_seen() -> None:
    raw = raw_of([[0.097, 0.001, 0.5, 0.002, 0.4]])  # classes 0 and 2 are below the threshold
    assert detect(raw, SQUARES[:1])[0].labels.tolist() == [1, 3]


def test_an_overlap_at_the_threshold_stays() -> None:
    raw = raw_of([[0.1, 0.9], [0.2, 0.8]])
    priors = torch.tensor([[0.0, 0, 16, 16], [0, 0, 16, 8]])  # IoU 0.5, exact in floating point
    assert len(detect(raw, priors, nms=0.5)[0].scores) == 2
    assert len(detect(raw, priors, nms=0.49)[0].scores) == 1


def test_classes_do_not_suppress_each_other() -> None:
    raw = raw_of([[0.1, 0.5, 0.4]])
    found = detect(raw, SQUARES[:1])[0]
    assert found.labels.tolist() == [0, 1]


def test_nothing_found() -> None:
    logits = torch.zeros(2, len(PRIORS), 5)
    logits[..., 0] = 30.0
    for image in detect(Raw(torch.zeros(2, len(PRIORS), 4), logits), PRIORS):
        assert image.boxes.shape == (0, 4)
        assert image.scores.shape == (0,)
        assert image.labels.shape == (0,)
        assert image.labels.dtype == torch.int64


def test_empty_image_beside_a_full_one() -> None:
    full, empty = random_raw(1, images=1), random_raw(2, images=1)
    empty.logits[..., 0] = 60.0
    found = detect(Raw(*(torch.cat(pair) for pair in zip(empty, full, strict=True))), PRIORS)
    assert len(found[0].scores) == 0
    assert_equal(found[1], plain_detect(full.offsets[0].tolist(), full.logits[0].tolist(), PRIORS.tolist()))


def test_limits() -> None:
    # 300 boxes side by side, so that nothing is suppressed, in two classes.
    priors = torch.tensor([[4.0 * i, 0, 4 * i + 3, 3] for i in range(300)])
    logits = torch.zeros(1, 300, 3)
    logits[0, :, 0] = torch.linspace(-1, 1, 300)
    raw = Raw(torch.zeros(1, 300, 4), logits)
    assert len(detect(raw, priors)[0].scores) == 200
    assert len(detect(raw, priors, keep=1000)[0].scores) == 600
    assert len(detect(raw, priors, top_k=30, keep=1000)[0].scores) == 60
    few = detect(raw, priors, keep=10)[0]
    # The five first boxes, where background is least, each in both classes.
    assert sorted(few.boxes[:, 0].tolist()) == sorted([0.0, 4, 8, 12, 16] * 2)
    assert torch.equal(few.scores, few.scores.sort(descending=True).values)


def test_four_hundred_candidates_by_default() -> None:
    priors = torch.tensor([[4.0 * i, 0, 4 * i + 3, 3] for i in range(450)])
    logits = torch.zeros(1, 450, 2)
    logits[0, :, 0] = torch.linspace(-1, 1, 450)
    assert len(detect(Raw(torch.zeros(1, 450, 4), logits), priors, keep=1000)[0].scores) == 400


def test_boxes_are_not_clipped() -> None:
    priors = torch.tensor([[-30.0, -20, 10, 10]])
    found = detect(raw_of([[0.1, 0.9]]), priors)[0]
    torch.testing.assert_close(found.boxes, priors)


@pytest.mark.parametrize("seed", range(4))
def test_an_image_does_not_depend_on_its_batch(seed: int) -> None:
    raw = random_raw(seed, images=4)
    together = detect(raw, PRIORS)
    for i in range(4):
        alone = detect(Raw(raw.offsets[i : i + 1], raw.logits[i : i + 1]), PRIORS)[0]
        for a, b in zip(together[i], alone, strict=True):
            assert torch.equal(a, b)


def test_half_precision_is_decoded_in_single() -> None:
    raw = random_raw(3)
    half = Raw(raw.offsets.half(), raw.logits.half())
    for i, image in enumerate(detect(half, PRIORS)):
        assert image.boxes.dtype == image.scores.dtype == torch.float32
        assert_equal(image, plain_detect(half.offsets[i].tolist(), half.logits[i].tolist(), PRIORS.tolist()))

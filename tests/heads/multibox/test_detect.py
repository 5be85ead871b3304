"""From raw predictions to detections, against a plain loop after Caffe's DetectionOutput."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from plain import plain_iou
from torch import Tensor

from fssd.boxes import decode, encode
from fssd.heads.multibox.detect import detect, detect_together, least_lead
from fssd.heads.multibox.raw import Raw
from fssd.model.build import build_model

# --- Plain loop ---------------------------------------------------------------------------------------------

Box = list[float]
Row = tuple[float, int, Box]  # score, label, box


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


# --- Many candidates ----------------------------------------------------------------------------------------

with torch.device("meta"):  # priors have values there too
    ALL_PRIORS = build_model("fssd300-vgg16", 20).heads.priors  # 8,732


def plain_single_detect(
    raw: Raw, score: float, nms: float, top_k: int, keep: int
) -> list[tuple[float, int, int]]:
    """(score, label, prior) of one image, class by class and box by box, in single precision throughout.

    Of equal scores the earlier prior comes first, of equal priors the earlier class.
    """
    x1, y1, x2, y2 = decode(raw.offsets[0], ALL_PRIORS).numpy().T
    area = (x2 - x1) * (y2 - y1)
    powers = np.exp(raw.logits[0].numpy().T - raw.logits[0].numpy().max(axis=1))
    scores = powers / powers.sum(axis=0)
    found: list[tuple[float, int, int]] = []
    for label in range(1, len(scores)):
        row = scores[label]
        candidates = sorted(np.flatnonzero(row > score), key=lambda p, row=row: (-row[p], p))[:top_k]
        kept: list[int] = []
        for p in candidates:
            width = np.minimum(x2[kept], x2[p]) - np.maximum(x1[kept], x1[p])
            height = np.minimum(y2[kept], y2[p]) - np.maximum(y1[kept], y1[p])
            shared = np.maximum(width, 0) * np.maximum(height, 0)
            if not (shared / (area[kept] + area[p] - shared) > np.float32(nms)).any():
                kept.append(p)
        found += [(float(row[p]), label - 1, int(p)) for p in kept]
    return sorted(found, key=lambda one: (-one[0], one[1]))[:keep]


def crowd(kind: str) -> Raw:
    """400 candidates or more in each of 20 classes."""
    generator = torch.Generator().manual_seed(11)
    if kind == "every prior":
        noise = torch.randn(1, 8732, 25, generator=generator)
        return Raw(noise[..., :4], noise[..., 4:])
    corner = torch.rand(20, 400, 2, generator=generator) * 280
    if kind == "apart":
        place = torch.arange(400)
        corner = torch.stack((place % 20 * 15, place // 20 * 15), dim=1).float().expand(20, 400, 2)
    if kind == "piled":  # few stay, and they are far between
        pile = torch.arange(400) // 80
        corner = torch.stack((pile * 50, pile * 50), dim=1).float() + 4 * torch.rand(
            400, 2, generator=generator
        )
        corner = corner.expand(20, 400, 2)
    side = {"apart": 14.0, "clusters": 60.0, "piled": 40.0}[kind]
    boxes = torch.cat((corner, corner + side), dim=-1)
    prior = torch.randperm(8732, generator=generator)[:8000].reshape(20, 400)
    logits = torch.zeros(1, 8732, 21)
    logits[..., 0] = 9
    offsets = torch.zeros(1, 8732, 4)
    for label in range(20):
        logits[0, prior[label], label + 1] = torch.linspace(16, 7, 400) + label * 1.1e-3  # no two are equal
        offsets[0, prior[label]] = encode(boxes[label], ALL_PRIORS[prior[label]])
    return Raw(offsets, logits)


@pytest.mark.parametrize("kind", ["every prior", "apart", "clusters", "piled"])
def test_the_worst_case_equals_the_plain_loop(kind: str) -> None:
    raw = crowd(kind)
    found = detect(raw, ALL_PRIORS, keep=10_000)[0]
    wanted = plain_single_detect(raw, 0.01, 0.45, 400, 10_000)
    assert len(wanted) == {"apart": 8000, "piled": 100}.get(kind, len(wanted))
    prior = torch.tensor([p for _, _, p in wanted])
    assert found.labels.tolist() == [label for _, label, _ in wanted]
    assert torch.equal(found.boxes, decode(raw.offsets[0, prior], ALL_PRIORS[prior]))
    torch.testing.assert_close(
        found.scores, torch.tensor([score for score, _, _ in wanted]), rtol=1e-6, atol=0
    )
    few = detect(raw, ALL_PRIORS)[0]
    for every, best in zip(found, few, strict=True):
        assert torch.equal(every[:200], best)


def test_equal_scores_keep_the_order_of_priors_and_classes() -> None:
    # All scores are 1/3 to the bit; 600 candidates a class, of which the first 400 count.
    priors = torch.tensor([[4.0 * i, 0, 4 * i + 3, 3] for i in range(600)])
    raw = Raw(torch.zeros(1, 600, 4), torch.zeros(1, 600, 3))
    found = detect(raw, priors, keep=700)[0]
    assert found.labels.tolist() == [0] * 400 + [1] * 300
    assert (found.boxes[:, 0] / 4).tolist() == [*range(400), *range(300)]
    first = detect(raw, priors, top_k=2)[0]
    assert (first.boxes[:, 0] / 4).tolist() == [0, 1, 0, 1]


@pytest.mark.parametrize("seed", range(3))
def test_many_candidates_with_three_scores(seed: int) -> None:
    priors = torch.tensor([[4.0 * i, 0, 4 * i + 3, 3] for i in range(700)])
    level = torch.randint(0, 3, (700,), generator=torch.Generator().manual_seed(seed))
    logits = torch.zeros(1, 700, 5)
    logits[0, :, 1:] = level[:, None].float()  # the four classes of a prior are equal, to the bit
    found = detect(Raw(torch.zeros(1, 700, 4), logits), priors, top_k=300, keep=1000)[0]
    best = sorted(range(700), key=lambda p: (-int(level[p]), p))[:300]
    wanted = sorted(((c, p) for c in range(4) for p in best), key=lambda one: -int(level[one[1]]))[:1000]
    assert found.labels.tolist() == [c for c, _ in wanted]
    assert (found.boxes[:, 0] / 4).tolist() == [p for _, p in wanted]


# --- Priors that are not looked at --------------------------------------------------------------------------


@pytest.mark.parametrize("score", [1e-6, 0.01, 0.3, 0.5, 0.9, 0.999999])
def test_the_least_lead_loses_no_candidate(score: float) -> None:
    # With two classes a score is a function of the lead: just above and just below `score`.
    lead = math.log(score / (1 - score))
    for shift in (0.0, 30.0, -1000.0):
        logits = torch.tensor([[shift, shift + lead + gap] for gap in (-0.01, -1e-4, 1e-4, 0.01)])
        passes = logits[:, 1] - logits[:, 0] > least_lead(score)
        assert passes.tolist() == [False, True, True, True]
    assert (least_lead(0.0), least_lead(-1.0)) == (-math.inf, -math.inf)
    assert (least_lead(1.0), least_lead(2.0)) == (math.inf, math.inf)


@pytest.mark.parametrize("score", [0.0, 0.01, 0.2, 0.6, 1.0])
def test_a_whole_batch_at_once_gives_the_same(score: float) -> None:
    raw = random_raw(5, images=4)
    raw.logits[2, :, 0] += 60  # an image without candidates between others
    found = detect_together(raw, PRIORS, least=score, nms=0.45, top_k=400, keep=200)
    for one, other in zip(found, detect(raw, PRIORS, score=score), strict=True):
        assert one.labels.tolist() == other.labels.tolist()
        torch.testing.assert_close(one.boxes, other.boxes)
        torch.testing.assert_close(one.scores, other.scores)


def test_numbers_that_are_none_are_not_found() -> None:
    raw = random_raw(2, images=1)
    wanted = detect(raw, PRIORS)[0]
    spoilt = Raw(raw.offsets.repeat(1, 2, 1), raw.logits.repeat(1, 2, 1))
    half = len(PRIORS)
    spoilt.logits[0, half:, 1] = torch.nan
    found = detect(spoilt, PRIORS.repeat(2, 1))[0]
    for a, b in zip(found, wanted, strict=True):
        assert torch.equal(a, b)


def test_predictions_with_a_gradient() -> None:
    raw = random_raw(4, images=1)
    graded = Raw(raw.offsets.clone().requires_grad_(), raw.logits.clone().requires_grad_())
    for a, b in zip(detect(graded, PRIORS)[0], detect(raw, PRIORS)[0], strict=True):
        assert torch.equal(a, b)
        assert not a.requires_grad

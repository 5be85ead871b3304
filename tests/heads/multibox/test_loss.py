"""The multibox loss against a plain loop after Caffe's MultiBoxLoss, and cases worked by hand."""

from __future__ import annotations

import math
from typing import NamedTuple

import pytest
import torch
from plain import plain_iou
from torch import Tensor

from fssd.heads.multibox.loss import mine_negatives, multibox_loss
from fssd.heads.multibox.objective import Objective
from fssd.heads.multibox.raw import Raw
from fssd.heads.multibox.targets import MultiboxTargets


class Target(NamedTuple):
    """The objects of an image: (G, 4) xyxy pixels, (G,) labels."""

    boxes: Tensor
    labels: Tensor


class Losses(NamedTuple):
    total: Tensor
    localisation: Tensor
    confidence: Tensor
    positives: Tensor


def losses_of(
    raw: Raw,
    priors: Tensor,
    targets: list[Target],
    threshold: float = 0.5,
    weight: float = 1.0,
    negatives: float = 3.0,
) -> Losses:
    """The loss of targets as the loader makes them."""
    side = 128  # pixels; a power of two, so that shares of it round as pixels do
    make = MultiboxTargets(priors.numpy(), (priors / side).numpy(), (side, side), threshold)
    made = [make(target.boxes.numpy(), target.labels.numpy()) for target in targets]
    stacked = {key: torch.stack([one[key] for one in made]) for key in made[0]}
    terms = multibox_loss(raw, stacked, priors, Objective(localisation_weight=weight), negatives=negatives)
    return Losses(*(terms[name] for name in ("loss", "loss_loc", "loss_conf", "positives")))


# --- Caffe's loss, one number after the other ---------------------------------------------------------------

Box = list[float]


def plain_match(boxes: list[Box], priors: list[Box], threshold: float) -> list[int]:
    owner, pool = [-1] * len(priors), set(range(len(boxes)))
    while pool:
        pairs = [
            (plain_iou(boxes[g], priors[p]), -p, -g) for p in range(len(priors)) if owner[p] < 0 for g in pool
        ]
        best = max(pairs, default=(0.0, 0, 0))
        if best[0] <= 1e-6:
            break
        owner[-best[1]] = -best[2]
        pool.remove(-best[2])
    for p, prior in enumerate(priors):
        if owner[p] < 0 and boxes:
            overlap, g = max((plain_iou(box, prior), -g) for g, box in enumerate(boxes))
            if overlap >= threshold:
                owner[p] = -g
    return owner


def plain_encode(box: Box, prior: Box) -> list[float]:
    w, h = prior[2] - prior[0], prior[3] - prior[1]
    return [
        ((box[0] + box[2]) / 2 - (prior[0] + prior[2]) / 2) / w / 0.1,
        ((box[1] + box[3]) / 2 - (prior[1] + prior[3]) / 2) / h / 0.1,
        math.log((box[2] - box[0]) / w) / 0.2,
        math.log((box[3] - box[1]) / h) / 0.2,
    ]


def cross_entropy(logits: list[float], label: int) -> float:
    top = max(logits)
    return top + math.log(sum(math.exp(x - top) for x in logits)) - logits[label]


def smooth_l1(x: float) -> float:
    return 0.5 * x * x if abs(x) < 1 else abs(x) - 0.5


def plain_loss(
    offsets: list[list[Box]],
    logits: list[list[list[float]]],
    priors: list[Box],
    targets: list[tuple[list[Box], list[int]]],
    weight: float = 1.0,
    threshold: float = 0.5,
    negatives: int = 3,
) -> tuple[float, float, int]:
    """(localisation, confidence, positives); the divisor is that of Caffe wherever an object is matched."""
    localisation = confidence = 0.0
    positives = 0
    for image, (boxes, labels) in enumerate(targets):
        owner = plain_match(boxes, priors, threshold)
        matched = [p for p in range(len(priors)) if owner[p] >= 0]
        for p in matched:
            for t, o in zip(plain_encode(boxes[owner[p]], priors[p]), offsets[image][p], strict=True):
                localisation += smooth_l1(o - t)
            confidence += cross_entropy(logits[image][p], labels[owner[p]] + 1)
        free = [p for p in range(len(priors)) if owner[p] < 0]
        free.sort(key=lambda p, rows=logits[image]: -cross_entropy(rows[p], 0))
        confidence += sum(
            cross_entropy(logits[image][p], 0) for p in free[: negatives * max(1, len(matched))]
        )
        positives += len(matched)
    divisor = positives or len(targets)
    return localisation * weight / divisor, confidence / divisor, positives


# --- Random problems ----------------------------------------------------------------------------------------


def random_case(seed: int) -> tuple[Raw, Tensor, list[Target]]:
    """Up to three images, five classes, 25 priors on two grids; images without objects, crowded images."""
    generator = torch.Generator().manual_seed(seed)
    classes = 4
    priors = [
        [x - s, y - s, x + s, y + s]
        for n, step, s in ((4, 8.0, 5.0), (3, 11.0, 9.0))
        for y in (step * (i + 0.5) for i in range(n))
        for x in (step * (i + 0.5) for i in range(n))
    ]
    targets = []
    for _ in range(1 + seed % 3):
        objects = int(torch.randint(0, 4, (), generator=generator))
        if torch.rand((), generator=generator) < 0.15:
            objects = 30  # more than there are priors
        corner = torch.rand((objects, 2), generator=generator) * 20
        side = torch.rand((objects, 2), generator=generator) * 14 + 3
        labels = torch.randint(0, classes, (objects,), generator=generator)
        targets.append(Target(torch.cat((corner, corner + side), dim=1), labels))
    shape = (len(targets), len(priors))
    raw = Raw(
        torch.randn((*shape, 4), generator=generator) * 2,
        torch.randn((*shape, classes + 1), generator=generator) * 3,
    )
    return raw, torch.tensor(priors), targets


def plain_case(case: tuple[Raw, Tensor, list[Target]]) -> tuple[list, list, list, list]:
    raw, priors, targets = case
    plain = [(t.boxes.tolist(), t.labels.tolist()) for t in targets]
    return raw.offsets.tolist(), raw.logits.tolist(), priors.tolist(), plain


@pytest.mark.parametrize("seed", range(45))
def test_equals_plain_loop(seed: int) -> None:
    case = random_case(seed)
    losses = losses_of(*case)
    localisation, confidence, positives = plain_loss(*plain_case(case))
    assert losses.localisation.item() == pytest.approx(localisation, rel=1e-4, abs=1e-5)
    assert losses.confidence.item() == pytest.approx(confidence, rel=1e-4)
    assert losses.total.item() == pytest.approx(localisation + confidence, rel=1e-4)
    assert losses.positives.item() == positives


@pytest.mark.parametrize("seed", range(6))
def test_other_settings_equal_plain_loop(seed: int) -> None:
    case = random_case(seed)
    losses = losses_of(*case, threshold=0.35, negatives=2, weight=2.5)
    localisation, confidence, positives = plain_loss(*plain_case(case), 2.5, 0.35, 2)
    assert losses.localisation.item() == pytest.approx(localisation, rel=1e-4, abs=1e-5)
    assert losses.confidence.item() == pytest.approx(confidence, rel=1e-4)
    assert losses.positives.item() == positives


def test_random_problems_hold_what_they_promise() -> None:
    counts = [[len(t.boxes) for t in random_case(seed)[2]] for seed in range(45)]
    assert sum(0 in row and max(row) > 0 for row in counts) >= 5  # an empty image beside others
    assert sum(max(row) == 0 for row in counts) >= 1  # nothing but empty images
    assert sum(30 in row for row in counts) >= 3  # every prior positive: no negatives left to mine


def total_of(case: tuple[list, list, list, list]) -> float:
    localisation, confidence, _ = plain_loss(*case)
    return localisation + confidence


@pytest.mark.parametrize("seed", [2, 4, 7])
def test_gradient_equals_differences_of_plain_loop(seed: int) -> None:
    raw, priors, targets = random_case(seed)
    raw = Raw(raw.offsets.requires_grad_(), raw.logits.requires_grad_())
    losses_of(raw, priors, targets).total.backward()
    case = plain_case((raw, priors, targets))
    generator = torch.Generator().manual_seed(seed)
    step, moved = 1e-5, 0
    for values, tensor in ((case[0], raw.offsets), (case[1], raw.logits)):
        assert tensor.grad is not None
        touched = (tensor.grad != 0).any(dim=-1).nonzero()  # where the loss looks, and a few other places
        others = (tensor.grad == 0).all(dim=-1).nonzero()
        for group in (touched, others):
            for b, p in group[torch.randperm(len(group), generator=generator)[:5]].tolist():
                for c in range(tensor.shape[-1]):
                    kept = values[b][p][c]
                    values[b][p][c] = kept + step
                    above = total_of(case)
                    values[b][p][c] = kept - step
                    below = total_of(case)
                    values[b][p][c] = kept
                    slope = (above - below) / (2 * step)
                    assert tensor.grad[b, p, c].item() == pytest.approx(slope, abs=2e-5)
                    moved += abs(slope) > 1e-3
    assert moved >= 20


# --- By hand ------------------------------------------------------------------------------------------------

PRIORS = torch.tensor([[0.0, 0, 10, 10], [20, 0, 30, 10], [40, 0, 50, 10], [60, 0, 70, 10], [80, 0, 90, 10]])
LABELS = torch.tensor([0])


def logits_of(background: list[float]) -> Tensor:
    """(1, P, 2) logits whose softmax probability of background is as given."""
    return torch.tensor([[[math.log(b), math.log(1 - b)] for b in background]])


def test_by_hand() -> None:
    # Prior 0 holds the object, moved by 1 px: (1/10)/0.1 = 1 in x, the rest 0. The network says 0.5 there:
    # 0.5 * 0.5^2 = 0.125; in y it says 2 for 0: 2 - 0.5 = 1.5. Localisation (0.125 + 1.5) / 1.
    offsets = torch.zeros(1, 5, 4)
    offsets[0, 0] = torch.tensor([0.5, 2.0, 0.0, 0.0])
    offsets[0, 1:] = 7.0  # background priors have no offsets to learn
    # p(background): the object's prior 0.2 -> -ln 0.8. Of the four others the three with least: .3 .4 .5.
    logits = logits_of([0.2, 0.9, 0.4, 0.5, 0.3])
    target = Target(torch.tensor([[1.0, 0, 11, 10]]), LABELS)
    losses = losses_of(Raw(offsets, logits), PRIORS, [target])
    confidence = -math.log(0.8) - math.log(0.4) - math.log(0.5) - math.log(0.3)
    assert losses.localisation.item() == pytest.approx(1.625, abs=1e-5)
    assert losses.confidence.item() == pytest.approx(confidence, abs=1e-5)
    assert losses.total.item() == pytest.approx(1.625 + confidence, abs=1e-5)
    assert losses.positives.item() == 1


def test_a_view_without_objects_adds_its_negatives_and_nothing_to_the_divisor() -> None:
    offsets = torch.zeros(2, 5, 4)
    logits = torch.cat((logits_of([0.2, 0.9, 0.4, 0.5, 0.3]), logits_of([0.6, 0.1, 0.8, 0.7, 0.9])))
    targets = [Target(PRIORS[:1], LABELS), Target(torch.zeros(0, 4), torch.zeros(0, dtype=torch.int64))]
    losses = losses_of(Raw(offsets, logits), PRIORS, targets)
    # One positive and three negatives, then the three hardest of the empty image: .1 .6 .7; divided by 1.
    first = -math.log(0.8 * 0.4 * 0.5 * 0.3)
    second = -math.log(0.1 * 0.6 * 0.7)
    assert losses.confidence.item() == pytest.approx(first + second, abs=1e-5)
    assert losses.localisation.item() == 0
    assert losses.positives.item() == 1


def test_images_with_objects_have_the_released_localisation_beside_an_empty_view() -> None:
    # 13 positives, each off by 2 in one coordinate: 1.5 on average, however many views are empty.
    priors = torch.tensor([[20.0 * i, 0, 20.0 * i + 10, 10] for i in range(13)])
    offsets = torch.zeros(2, 13, 4)
    offsets[0, :, 1] = 2.0
    full = Target(priors, torch.zeros(13, dtype=torch.int64))
    empty = Target(torch.zeros(0, 4), torch.zeros(0, dtype=torch.int64))
    losses = losses_of(Raw(offsets, torch.zeros(2, 13, 2)), priors, [full, empty])
    assert losses.localisation.item() == pytest.approx(1.5, abs=1e-6)
    assert losses.positives.item() == 13


def test_mining_is_per_image() -> None:
    # Image 0 has two positives and three free priors, so three negatives; image 1 one positive and three
    # negatives, however much easier they are than those left over elsewhere.
    logits = torch.cat((logits_of([0.5, 0.5, 0.9, 0.9, 0.9]), logits_of([0.5, 0.1, 0.2, 0.3, 0.4])))
    targets = [Target(PRIORS[:2], torch.tensor([0, 0])), Target(PRIORS[:1], LABELS)]
    losses = losses_of(Raw(torch.zeros(2, 5, 4), logits), PRIORS, targets)
    wanted = -math.log(0.5 * 0.5 * 0.9**3) - math.log(0.5 * 0.1 * 0.2 * 0.3)
    assert losses.confidence.item() == pytest.approx(wanted / 3, abs=1e-5)


def test_labels_are_shifted_by_the_background() -> None:
    logits = torch.zeros(1, 5, 4)
    logits[0, :, 0] = 50.0  # background everywhere
    logits[0, 0] = torch.tensor([0.0, 0, 0, 50])  # and class 2, logit 3, at prior 0
    offsets = torch.zeros(1, 5, 4)
    right = losses_of(Raw(offsets, logits), PRIORS, [Target(PRIORS[:1], torch.tensor([2]))])
    wrong = losses_of(Raw(offsets, logits), PRIORS, [Target(PRIORS[:1], torch.tensor([1]))])
    assert right.total.item() == pytest.approx(0, abs=1e-6)
    assert wrong.total.item() == pytest.approx(50, abs=1e-4)


def test_mining_takes_the_largest_and_no_positive() -> None:
    loss = torch.tensor([[5.0, 1, 4, 2, 3], [0, 0, 0, 0, 0]])
    positive = torch.tensor([[True, False, False, False, False], [False, True, True, True, True]])
    mined = mine_negatives(loss, positive, torch.tensor([2, 3]))
    assert mined.tolist() == [[False, False, True, False, True], [True, False, False, False, False]]


# --- What must never happen ---------------------------------------------------------------------------------


def assert_finite(losses: Losses, raw: Raw) -> None:
    losses.total.backward()
    assert losses.total.isfinite()
    for tensor in raw:
        assert tensor.grad is None or tensor.grad.isfinite().all()


def test_batch_of_background_alone_still_teaches() -> None:
    _, priors, _ = random_case(0)
    empty = Target(torch.zeros(0, 4), torch.zeros(0, dtype=torch.int64))
    raw = Raw(
        torch.randn(2, len(priors), 4, requires_grad=True), torch.zeros(2, len(priors), 5, requires_grad=True)
    )
    losses = losses_of(raw, priors, [empty, empty])
    assert_finite(losses, raw)
    # Uniform over five classes: three priors an image at ln 5, divided by two images.
    assert losses.confidence.item() == pytest.approx(3 * math.log(5), abs=1e-5)
    assert losses.positives.item() == 0
    assert raw.logits.grad is not None
    # d/d background = (1/5 - 1) / 2 at six priors.
    pushed = raw.logits.grad[..., 0]
    assert (pushed != 0).sum().item() == 6
    assert pushed.min().item() == pytest.approx(-0.4, abs=1e-6)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float16, torch.bfloat16])
@pytest.mark.parametrize("size", [1e4, 6e4])
def test_extreme_logits_and_offsets_are_finite(dtype: torch.dtype, size: float) -> None:
    case, priors, targets = random_case(7)
    raw = Raw(
        (case.offsets.sign() * size).to(dtype).requires_grad_(),
        (case.logits.sign() * size).to(dtype).requires_grad_(),
    )
    losses = losses_of(raw, priors, targets)
    assert losses.total.dtype == torch.float32
    assert losses.total.item() > size / 10  # the wrong ones among them cost about what they say
    assert_finite(losses, raw)


def test_half_precision_inputs_are_summed_in_single() -> None:
    raw, priors, targets = random_case(8)
    half = Raw(raw.offsets.half(), raw.logits.half())
    rounded = Raw(half.offsets.float(), half.logits.float())
    assert losses_of(half, priors, targets).total.item() == pytest.approx(
        losses_of(rounded, priors, targets).total.item(), rel=1e-6
    )


@pytest.mark.parametrize(
    "box",
    [
        [5.0, 5, 5, 5],  # a point
        [5.0, 2, 5, 12],  # no width
        [12.0, 12, 4, 4],  # inverted
        [5.0, 5, 5.001, 5.001],  # a thousandth of a pixel
        [5.0, 5, 5.02, 30],  # a hair
        [-1e6, -1e6, 1e6, 1e6],
        [1e6, 1e6, 1e6 + 1, 1e6 + 1],  # far outside
    ],
)
def test_degenerate_boxes_give_no_nan(box: Box) -> None:
    case, priors, _ = random_case(0)
    raw = Raw(case.offsets[:1].requires_grad_(), case.logits[:1].requires_grad_())
    good = [4.0, 4, 14, 14]
    target = Target(torch.tensor([box, good, box]), torch.tensor([1, 2, 3]))
    assert_finite(losses_of(raw, priors, [target]), raw)
    alone = Raw(raw.offsets.detach().requires_grad_(), raw.logits.detach().requires_grad_())
    assert_finite(losses_of(alone, priors, [Target(torch.tensor([box]), LABELS)]), alone)


def test_objects_beyond_the_priors_are_left_out() -> None:
    raw = Raw(torch.zeros(1, 5, 4), torch.zeros(1, 5, 2))
    boxes = PRIORS[:1].expand(9, 4).contiguous()
    losses = losses_of(raw, PRIORS, [Target(boxes, torch.zeros(9, dtype=torch.int64))])
    assert losses.positives.item() == 1  # the others touch no prior that is free
    assert losses.total.item() == pytest.approx(4 * math.log(2), abs=1e-5)

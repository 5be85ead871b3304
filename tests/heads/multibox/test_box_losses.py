"""GIoU and CIoU losses: against plain code, by hand, their gradients, and boxes without an area."""

from __future__ import annotations

import math
from collections.abc import Callable

import pytest
import torch
from plain_overlap import plain_ciou_loss, plain_ciou_weight, plain_giou_loss
from torch import Tensor

from fssd.boxes import decode, encode
from fssd.errors import ConfigError
from fssd.heads.multibox.box_losses import ciou_loss, giou_loss
from fssd.heads.multibox.loss import multibox_loss
from fssd.heads.multibox.objective import Objective
from fssd.heads.multibox.raw import Raw
from fssd.model.build import build_model

Loss = Callable[[Tensor, Tensor], Tensor]
BOTH = [(giou_loss, plain_giou_loss), (ciou_loss, plain_ciou_loss)]


def random_boxes(seed: int, count: int = 60) -> tuple[Tensor, Tensor]:
    """Pairs that overlap, touch nothing, or contain each other; float64."""
    generator = torch.Generator().manual_seed(seed)
    corner = torch.rand((2, count, 2), generator=generator, dtype=torch.float64) * 30
    side = torch.rand((2, count, 2), generator=generator, dtype=torch.float64) * 40 + 0.5
    boxes = torch.cat((corner, corner + side), dim=-1)
    return boxes[0], boxes[1]


@pytest.mark.parametrize(("loss", "plain"), BOTH)
def test_values_are_those_of_plain_code(loss: Loss, plain: Callable[..., float]) -> None:
    predicted, truth = random_boxes(0)
    wanted = [plain(a, b) for a, b in zip(predicted.tolist(), truth.tolist(), strict=True)]
    assert loss(predicted, truth).tolist() == pytest.approx(wanted, rel=1e-9)
    assert min(wanted) < 0.7 and max(wanted) > 1.2  # near and far ones


@pytest.mark.parametrize(
    ("one", "other", "giou", "ciou"),
    [
        ([0, 0, 4, 2], [0, 0, 4, 2], 0.0, 0.0),
        # two unit squares two apart: IoU 0, hull 3, union 2; centres 2 apart, diagonal squared 9 + 1
        ([0, 0, 1, 1], [2, 0, 3, 1], 1 + 1 / 3, 1 + 4 / 10),
        # one within the other, at one centre and of one shape: 1 - 4 / 16 is all
        ([1, 1, 3, 3], [0, 0, 4, 4], 0.75, 0.75),
        # 2 x 1 across 1 x 2: IoU 1/3, hull 4, union 3; centres squared 1/2, diagonal squared 8
        ([0, 0, 2, 1], [0, 0, 1, 2], 2 / 3 + 1 / 4, None),
    ],
)
def test_by_hand(one: list[float], other: list[float], giou: float, ciou: float | None) -> None:
    boxes = torch.tensor([one, other], dtype=torch.float64)
    assert giou_loss(boxes[:1], boxes[1:]).tolist() == pytest.approx([giou])
    if ciou is None:
        v = 4 / math.pi**2 * (math.atan(2) - math.atan(0.5)) ** 2
        ciou = 2 / 3 + 0.5 / 8 + v / (2 / 3 + v) * v
    assert ciou_loss(boxes[:1], boxes[1:]).tolist() == pytest.approx([ciou])


def test_gradients_are_those_of_differences() -> None:
    predicted, truth = random_boxes(3, 25)
    step = 1e-6
    for loss in (giou_loss, ciou_loss):
        boxes = predicted.clone().requires_grad_()
        loss(boxes, truth).sum().backward()
        assert boxes.grad is not None
        for row, (a, b) in enumerate(zip(predicted.tolist(), truth.tolist(), strict=True)):
            weight = plain_ciou_weight(a, b)
            for k in range(4):
                ends = []
                for moved in (a[k] - step, a[k] + step):
                    box = [*a[:k], moved, *a[k + 1 :]]
                    ends.append(
                        plain_giou_loss(box, b) if loss is giou_loss else plain_ciou_loss(box, b, weight)
                    )
                slope = (ends[1] - ends[0]) / (2 * step)
                assert boxes.grad[row, k].item() == pytest.approx(slope, abs=1e-7)


@pytest.mark.parametrize("loss", [giou_loss, ciou_loss])
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_boxes_without_an_area_are_finite(loss: Loss, dtype: torch.dtype) -> None:
    rows = [[5, 5, 5, 5], [5, 5, 9, 5], [5, 5, 5, 9], [5, 5, 9, 9], [9, 9, 5, 5], [0, 0, 3e4, 1e-3]]
    every = torch.tensor([[a, b] for a in rows for b in rows], dtype=dtype)
    predicted = every[:, 0].clone().requires_grad_()
    found = loss(predicted, every[:, 1])
    found.sum().backward()
    assert predicted.grad is not None
    assert found.isfinite().all() and predicted.grad.isfinite().all()


# ---- as a part of the loss of a head


PRIORS = torch.tensor(
    [[0, 0, 20, 20], [20, 0, 60, 20], [10, 30, 30, 90], [40, 40, 80, 80]], dtype=torch.float64
)
TRUE = torch.tensor([[2, 1, 18, 25], [20, 0, 60, 20], [12, 20, 36, 80], [0, 0, 1, 1]], dtype=torch.float64)
CLASSES = torch.tensor([[1, 0, 2, 0]])


def case(dtype: torch.dtype = torch.float64) -> tuple[Raw, dict[str, Tensor]]:
    """Four priors; the first and the third have an object."""
    generator = torch.Generator().manual_seed(1)
    offsets = torch.randn((1, 4, 4), generator=generator, dtype=torch.float64)
    logits = torch.randn((1, 4, 3), generator=generator, dtype=torch.float64)
    truth = torch.where(CLASSES[..., None] > 0, encode(TRUE, PRIORS), 0.0)
    raw = Raw(offsets.to(dtype).requires_grad_(), logits.to(dtype).requires_grad_())
    return raw, {"classes": CLASSES, "offsets": truth.float()}


@pytest.mark.parametrize(("name", "plain"), [("giou", plain_giou_loss), ("ciou", plain_ciou_loss)])
def test_the_term_of_a_head_is_the_weighted_mean_over_positives(
    name: str, plain: Callable[..., float]
) -> None:
    raw, targets = case()
    terms = multibox_loss(raw, targets, PRIORS, Objective(localisation=name, localisation_weight=2.5))
    boxes = decode(raw.offsets, PRIORS)[0].tolist()
    own = [plain(boxes[p], TRUE[p].tolist()) for p in (0, 2)]
    assert terms["loss_loc"].item() == pytest.approx(2.5 * sum(own) / 2, rel=1e-5)
    terms["loss_loc"].backward()
    assert raw.offsets.grad is not None
    assert not raw.offsets.grad[0, [1, 3]].any(), "background has no box to learn"
    for p in (0, 2):  # through the decoding
        frozen = plain_ciou_weight(boxes[p], TRUE[p].tolist())
        extra = {} if name == "giou" else {"weight": frozen}
        for k in range(4):
            ends = []
            for step in (-1e-5, 1e-5):
                moved = raw.offsets.detach().clone()
                moved[0, p, k] += step
                ends.append(plain(decode(moved, PRIORS)[0, p].tolist(), TRUE[p].tolist(), **extra))
            slope = (ends[1] - ends[0]) / 2e-5 * 2.5 / 2
            assert raw.offsets.grad[0, p, k].item() == pytest.approx(slope, abs=1e-4)


@pytest.mark.parametrize("name", ["giou", "ciou"])
@pytest.mark.parametrize("dtype", [torch.float32, torch.float16, torch.bfloat16])
@pytest.mark.parametrize("size", [0.0, 300.0, 6e4])
def test_any_offsets_give_a_finite_loss(name: str, dtype: torch.dtype, size: float) -> None:
    raw, targets = case(dtype)
    offsets = (raw.offsets.detach().sign() * size).requires_grad_()
    for truth in (targets, {**targets, "classes": torch.zeros_like(CLASSES)}):
        terms = multibox_loss(Raw(offsets, raw.logits), truth, PRIORS.float(), Objective(localisation=name))
        terms["loss"].backward()
        assert terms["loss"].isfinite() and terms["loss"].dtype == torch.float32
        assert offsets.grad is not None and offsets.grad.isfinite().all()
    assert terms["loss_loc"].item() == 0, "without an object there is no box to learn"


@pytest.mark.parametrize("name", ["giou", "ciou"])
def test_what_background_predicts_does_not_matter(name: str) -> None:
    raw, targets = case(torch.float32)
    losses = []
    for size in (1.0, 1e30):
        offsets = torch.where(CLASSES[..., None] > 0, raw.offsets.detach(), size).requires_grad_()
        terms = multibox_loss(Raw(offsets, raw.logits), targets, PRIORS.float(), Objective(localisation=name))
        terms["loss"].backward()
        assert offsets.grad is not None and offsets.grad.isfinite().all()
        losses.append(terms["loss"].item())
    assert losses[0] == losses[1]


def test_it_is_an_option_of_the_head() -> None:
    with torch.device("meta"):
        assert build_model("ssd300-lite", 1).heads.objective == ("smooth_l1", 1.0, "softmax", "image")
        chosen = build_model("ssd300-lite", 1, loc_loss="ciou", loc_weight=5).heads.objective
        assert (chosen.localisation, chosen.localisation_weight) == ("ciou", 5.0)
        with pytest.raises(ConfigError, match="there is no loc_loss 'iou'; did you mean 'giou'"):
            build_model("ssd300-lite", 1, loc_loss="iou")
        for wrong in (0, -1, "2", True):
            with pytest.raises(ConfigError, match="loc_weight is "):
                build_model("ssd300-lite", 1, loc_weight=wrong)

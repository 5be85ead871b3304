"""Focal and quality focal loss: against plain code, by hand, and what a head without background does."""

from __future__ import annotations

import math
from collections.abc import Callable

import numpy as np
import pytest
import torch
from plain import plain_iou
from plain_overlap import plain_focal_loss, plain_quality_focal_loss
from torch import nn

from fssd.boxes import decode, encode
from fssd.errors import ConfigError
from fssd.heads.head import Thresholds
from fssd.heads.multibox.detect import detect
from fssd.heads.multibox.focal import focal_loss, quality_focal_loss
from fssd.heads.multibox.loss import multibox_loss
from fssd.heads.multibox.multibox_head import MultiboxHead
from fssd.heads.multibox.objective import Objective
from fssd.heads.multibox.raw import Raw
from fssd.model.build import build_model

SIGMOIDS = ("focal", "quality_focal")


def test_focal_loss_by_hand() -> None:
    # p = 1/2: -0.25 (1/2)^2 ln(1/2) where the class is there, 0.75 times the same where it is not
    found = focal_loss(torch.zeros(2), torch.tensor([1.0, 0.0])).tolist()
    assert found == pytest.approx([0.0625 * math.log(2), 0.1875 * math.log(2)])
    # Lin 2017, 3.2: "an example classified with p = 0.9 would have 100 times lower loss compared with CE"
    easy = focal_loss(torch.tensor([math.log(9)]), torch.ones(1)).item()
    assert -0.25 * math.log(0.9) / easy == pytest.approx(100, rel=1e-5)


def test_quality_focal_loss_by_hand() -> None:
    # a score of 1/2 for an IoU of 1/2 costs nothing; for an IoU of 1: (1/2)^2 ln 2
    found = quality_focal_loss(torch.zeros(2), torch.tensor([0.5, 1.0])).tolist()
    assert found == pytest.approx([0, 0.25 * math.log(2)])


def test_values_and_gradients_are_those_of_plain_code() -> None:
    generator = torch.Generator().manual_seed(0)
    logits = torch.randn(50, generator=generator, dtype=torch.float64) * 3
    quality = torch.rand(50, generator=generator, dtype=torch.float64)
    present = (quality > 0.7).double()
    for loss, truth, plain in (
        (focal_loss, present, plain_focal_loss),
        (quality_focal_loss, quality, plain_quality_focal_loss),
    ):
        own = logits.clone().requires_grad_()
        values = loss(own, truth)
        values.sum().backward()
        assert own.grad is not None
        rows = zip(logits.tolist(), truth.tolist(), values.tolist(), own.grad.tolist(), strict=True)
        for x, y, value, slope in rows:
            assert value == pytest.approx(plain(x, y), rel=1e-9)
            difference = (plain(x + 1e-5, y) - plain(x - 1e-5, y)) / 2e-5
            assert slope == pytest.approx(difference, abs=1e-6)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float16, torch.bfloat16])
@pytest.mark.parametrize("name", SIGMOIDS)
@pytest.mark.parametrize("size", [1e4, 6e4])
def test_extreme_scores_are_finite(dtype: torch.dtype, name: str, size: float) -> None:
    priors, raw, targets, _ = random_case(3)
    logits = (raw.logits.sign() * size).to(dtype).requires_grad_()
    terms = multibox_loss(Raw(raw.offsets, logits), targets, priors, Objective(confidence=name))
    terms["loss"].backward()
    assert terms["loss"].isfinite() and logits.grad is not None and logits.grad.isfinite().all()


def random_case(seed: int) -> tuple[torch.Tensor, Raw, dict[str, torch.Tensor], torch.Tensor]:
    """Priors (30, 4), predictions and targets of two images for three classes, and the true boxes."""
    generator = torch.Generator().manual_seed(seed)
    corner = torch.rand((30, 2), generator=generator) * 60
    priors = torch.cat((corner, corner + 8 + torch.rand((30, 2), generator=generator) * 20), dim=1)
    truth = priors + torch.randn((2, 30, 4), generator=generator) * 1.5
    classes = torch.randint(-3, 4, (2, 30), generator=generator).clamp(min=0)
    offsets = torch.where(classes[..., None] > 0, encode(truth, priors), 0.0)
    raw = Raw(torch.randn((2, 30, 4), generator=generator), torch.randn((2, 30, 3), generator=generator) * 2)
    return priors, raw, {"classes": classes.int(), "offsets": offsets}, truth


@pytest.mark.parametrize("seed", range(5))
@pytest.mark.parametrize("name", SIGMOIDS)
def test_the_term_of_a_head_sums_over_all_priors_and_classes(seed: int, name: str) -> None:
    priors, raw, targets, truth = random_case(seed)
    terms = multibox_loss(raw, targets, priors, Objective(confidence=name))
    boxes = decode(raw.offsets, priors).tolist()
    total, positives = 0.0, 0
    for image in range(2):
        for prior in range(30):
            label = int(targets["classes"][image, prior]) - 1
            positives += label >= 0
            for c, logit in enumerate(raw.logits[image, prior].tolist()):
                if name == "focal":
                    total += plain_focal_loss(logit, c == label)
                    continue
                quality = plain_iou(boxes[image][prior], truth[image, prior].tolist()) if c == label else 0.0
                total += plain_quality_focal_loss(logit, quality)
    assert int(terms["positives"]) == positives > 5
    assert terms["loss_conf"].item() == pytest.approx(total / positives, rel=1e-4)


def test_the_quality_is_a_constant_for_the_gradient() -> None:
    priors, raw, targets, _ = random_case(0)
    offsets = raw.offsets.clone().requires_grad_()
    terms = multibox_loss(Raw(offsets, raw.logits), targets, priors, Objective(confidence="quality_focal"))
    assert terms["loss_loc"].requires_grad and not terms["loss_conf"].requires_grad


def test_a_batch_without_objects_is_divided_by_its_images() -> None:
    priors, raw, targets, _ = random_case(1)
    none = {key: torch.zeros_like(value) for key, value in targets.items()}
    terms = multibox_loss(raw, none, priors, Objective(confidence="focal"))
    total = sum(plain_focal_loss(x, False) for x in raw.logits.flatten().tolist())
    assert terms["loss_conf"].item() == pytest.approx(total / 2, rel=1e-4)


# ---- a head without background


@pytest.mark.parametrize(
    ("name", "options"),
    [
        ("fssd300-lite", {}),
        ("fssd300-vgg16", {}),
        ("fssd300-vgg16", {"head_norm": True}),
        ("fssd300-vgg16", {"inter": 8}),
    ],
)
def test_every_score_starts_near_one_percent(
    name: str, options: dict[str, object], tiny_backbone: Callable[[], nn.Module]
) -> None:
    network = build_model(name, 4, backbone=tiny_backbone(), conf_loss="focal", **options).eval()
    with torch.no_grad():
        logits = network(torch.zeros(1, 3, 300, 300) + 128).logits
    assert logits.shape[-1] == 4
    assert logits.mean().item() == pytest.approx(-math.log(99), abs=0.7)
    biases = [tensor for key, tensor in network.state_dict().items() if ends_scores(key, tensor)]
    assert len(biases) == 6
    for bias in biases:
        assert bias.tolist() == pytest.approx([-math.log(99)] * len(bias))


def ends_scores(key: str, tensor: torch.Tensor) -> bool:
    """Whether a tensor is the bias of the last layer of a class predictor; 4 classes, 4 or 6 priors."""
    return key.startswith("heads.conf") and key.endswith("bias") and len(tensor) in (16, 24)


def test_it_is_an_option_of_the_head() -> None:
    with torch.device("meta"):
        head = build_model("ssd300-lite", 3, conf_loss="quality_focal").heads
        assert (head.before_classes, head.columns, head.objective.confidence) == (0, 3, "quality_focal")
        plain = build_model("ssd300-lite", 3).heads
        assert (plain.before_classes, plain.columns) == (1, 4)
        with pytest.raises(ConfigError, match="there is no conf_loss 'focale'; did you mean 'focal'"):
            build_model("ssd300-lite", 1, conf_loss="focale")
        with pytest.raises(ConfigError, match="conf_loss focal mines no negatives; leave out mining"):
            build_model("ssd300-lite", 1, conf_loss="focal", mining="batch")


@pytest.mark.parametrize("seed", range(4))
def test_detections_are_those_of_plain_code(seed: int) -> None:
    priors, raw, _, _ = random_case(seed)
    found = detect(raw, priors, sigmoid=True, score=0.3, nms=0.4, top_k=8, keep=9)
    boxes = decode(raw.offsets, priors).tolist()
    for image, one in enumerate(found):
        rows = []
        for c in range(3):
            scores = [1 / (1 + math.exp(-x)) for x in raw.logits[image, :, c].tolist()]
            order = sorted((p for p in range(30) if scores[p] > 0.3), key=lambda p: -scores[p])[:8]
            kept: list[int] = []
            for p in order:
                if all(plain_iou(boxes[image][p], boxes[image][q]) <= 0.4 for q in kept):
                    kept.append(p)
            rows += [(scores[p], c, boxes[image][p]) for p in kept]
        rows = sorted(rows, key=lambda row: -row[0])[:9]
        assert one.labels.tolist() == [row[1] for row in rows]
        assert one.scores.tolist() == pytest.approx([row[0] for row in rows], rel=1e-5)
        np.testing.assert_allclose(one.boxes, [row[2] for row in rows], rtol=1e-4, atol=1e-3)


def test_extreme_scores_are_read_without_a_warning() -> None:
    logits = torch.tensor([[[-1e5, 1e5, 0.0]]])
    found = detect(Raw(torch.zeros(1, 1, 4), logits), torch.tensor([[0.0, 0, 9, 9]]), sigmoid=True)[0]
    assert found.scores.tolist() == [1.0, 0.5] and found.labels.tolist() == [1, 2]


def test_an_exported_file_says_so() -> None:
    head = build_model("ssd300-lite", 3, size=128, conf_loss="focal").heads
    document = {**head.describe(), "classes": ["a", "b", "c"]}
    assert MultiboxHead.output_shapes(document)["logits"] == (len(head.priors), 3)
    generator = torch.Generator().manual_seed(0)
    raw = Raw(
        torch.randn((1, len(head.priors), 4), generator=generator),
        torch.randn((1, len(head.priors), 3), generator=generator),
    )
    thresholds = Thresholds(score=0.6)
    decoded = MultiboxHead.decoder(document)([part.numpy() for part in raw], thresholds)
    for one, other in zip(decoded[0], head.detect(raw, thresholds)[0], strict=True):
        assert torch.equal(one, other)
    (candidates,) = head.candidates(raw)
    assert torch.equal(candidates.scores, raw.logits[0].sigmoid())
    with pytest.raises(ValueError, match="scores are 'tanh'"):
        MultiboxHead.decoder({**document, "scores": "tanh"})

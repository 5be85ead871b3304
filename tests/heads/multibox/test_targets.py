"""Targets made for one image, and the loss on them against the loss that matched by itself."""

from __future__ import annotations

import importlib.util
import pickle
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Tensor

from fssd.heads.multibox.loss import multibox_loss
from fssd.heads.multibox.multibox_head import MultiboxHead
from fssd.heads.multibox.priors import Level
from fssd.heads.multibox.raw import Raw
from fssd.heads.multibox.targets import MultiboxTargets
from fssd.model.build import build_model

_spec = importlib.util.spec_from_file_location(
    "reference_loss", Path(__file__).with_name("reference_loss.py")
)
assert _spec is not None and _spec.loader is not None
reference = importlib.util.module_from_spec(_spec)
_spec.loader.exec_module(reference)

CLASSES = 5
SIDE = 300


@pytest.fixture(scope="module")
def head() -> MultiboxHead:
    with torch.device("meta"):
        found = build_model("fssd300-lite", CLASSES).heads
    assert isinstance(found, MultiboxHead)
    return found


def random_objects(generator: torch.Generator) -> tuple[Tensor, Tensor]:
    """1 to 12 objects of 4 to 250 px, most of them small."""
    count = int(torch.randint(1, 13, (), generator=generator))
    sides = 4 * torch.exp(torch.rand((count, 2), generator=generator) * 4.1)
    corner = torch.rand((count, 2), generator=generator) * (SIDE - sides).clamp(min=0)
    labels = torch.randint(0, CLASSES, (count,), generator=generator)
    return torch.cat((corner, corner + sides), dim=1), labels


def priors_of(head: MultiboxHead) -> Tensor:
    """The head's own lie on no device."""
    return torch.from_numpy(head.targets.priors)


@pytest.mark.parametrize("seed", range(50))
def test_same_loss_and_gradient_as_the_one_that_matched_in_the_step(head: MultiboxHead, seed: int) -> None:
    generator = torch.Generator().manual_seed(seed)
    objects = [random_objects(generator) for _ in range(3)]
    shape = (3, len(head.priors))
    raws = []
    offsets = torch.randn((*shape, 4), generator=generator) * 2
    logits = torch.randn((*shape, CLASSES + 1), generator=generator) * 3
    for _ in range(2):
        raws.append(Raw(offsets.clone().requires_grad_(), logits.clone().requires_grad_()))
    made = [head.targets(boxes.numpy(), labels.numpy()) for boxes, labels in objects]
    stacked = {key: torch.stack([one[key] for one in made]) for key in made[0]}
    terms = multibox_loss(raws[0], stacked, priors_of(head))
    shares = torch.from_numpy(head.targets.shares)
    targets = [reference.ReferenceTarget(*pair) for pair in objects]
    expected = reference.reference_loss(raws[1], head.priors, targets, SIDE, shares)
    assert int(terms["positives"]) == int(expected.positives)
    for name, value in (("loss", expected.total), ("loss_loc", expected.localisation)):
        assert terms[name].item() == pytest.approx(value.item(), rel=1e-6)
    assert terms["loss_conf"].item() == pytest.approx(expected.confidence.item(), rel=1e-6)
    terms["loss"].backward()
    expected.total.backward()
    for own, other in zip(raws[0], raws[1], strict=True):
        torch.testing.assert_close(own.grad, other.grad, rtol=1e-5, atol=1e-7)


def test_by_hand() -> None:
    # Two cells of 10 px; the object is the second one moved by 1 px: (1/10)/0.1 = 1 in x.
    level = Level(1, 2, (10.0, 10.0), ((10.0, 10.0),))
    make = MultiboxTargets.of_levels((level,), (20, 10))
    found = make(np.array([[11, 0, 21, 10]], np.float32), np.array([3]))
    assert found["classes"].tolist() == [0, 4]
    assert found["offsets"].tolist() == [[0, 0, 0, 0], pytest.approx([1, 0, 0, 0], abs=1e-6)]


def test_every_image_has_targets_of_one_shape(head: MultiboxHead) -> None:
    empty = head.targets(np.zeros((0, 4), np.float32), np.zeros(0, np.int64))
    full = head.targets(np.array([[10, 10, 90, 90]], np.float32), np.array([1]))
    for found in (empty, full):
        assert {key: (tuple(t.shape), t.dtype) for key, t in found.items()} == {
            "classes": ((8732,), torch.int32),
            "offsets": ((8732, 4), torch.float32),
        }
    assert not empty["classes"].any() and not empty["offsets"].any()
    assert full["classes"].any()


def test_targets_can_be_sent_to_another_process(head: MultiboxHead) -> None:
    again = pickle.loads(pickle.dumps(head.targets))
    box, label = np.array([[10, 10, 90, 90]], np.float32), np.array([1])
    assert torch.equal(again(box, label)["offsets"], head.targets(box, label)["offsets"])

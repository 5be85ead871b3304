"""Where hard negatives are taken from: each image for itself, or the whole batch."""

from __future__ import annotations

import math

import pytest
import torch

from fssd.errors import ConfigError
from fssd.heads.multibox.loss import multibox_loss
from fssd.heads.multibox.objective import Objective
from fssd.heads.multibox.raw import Raw
from fssd.model.build import build_model


def entropy(logit: float) -> float:
    """Of background, where it has the logit 0 and the one class has `logit`."""
    return math.log(1 + math.exp(logit))


@pytest.mark.parametrize(
    ("mining", "mined"),
    [
        # three for the positive of the first image, three for the second, which has none
        ("image", [2.0, 1.0, 0.5, 9.0, 8.0, 7.0]),
        # the same six, but the hardest of both images
        ("batch", [9.0, 8.0, 7.0, 6.0, 5.0, 4.0]),
    ],
)
def test_negatives_by_hand(mining: str, mined: list[float]) -> None:
    rows = [[3.0, 2.0, 1.0, 0.5, 0.0, -1.0], [4.0, 5.0, 6.0, 7.0, 8.0, 9.0]]  # logits of the class
    logits = torch.stack((torch.zeros(2, 6), torch.tensor(rows)), dim=-1)
    classes = torch.zeros(2, 6, dtype=torch.int32)
    classes[0, 0] = 1
    targets = {"classes": classes, "offsets": torch.zeros(2, 6, 4)}
    terms = multibox_loss(
        Raw(torch.zeros(2, 6, 4), logits), targets, torch.zeros(6, 4), Objective(mining=mining)
    )
    positive = math.log(1 + math.exp(-3.0))
    assert float(terms["loss_conf"]) == pytest.approx(positive + sum(map(entropy, mined)), rel=1e-5)
    assert float(terms["positives"]) == 1


def test_it_is_an_option_of_the_head() -> None:
    with torch.device("meta"):
        assert build_model("ssd300-lite", 1).heads.objective.mining == "image"
        assert build_model("ssd300-lite", 1, mining="batch").heads.objective.mining == "batch"
        with pytest.raises(ConfigError, match="there is no mining 'batches'; did you mean 'batch'"):
            build_model("ssd300-lite", 1, mining="batches")


def test_the_loss_of_the_head_follows_it() -> None:
    torch.manual_seed(0)
    losses = []
    for mining in ("image", "batch"):
        heads = build_model("ssd300-lite", 1, size=128, mining=mining).heads
        count = len(heads.priors)
        logits = torch.linspace(0, 5, 2 * count * 2).reshape(2, count, 2)
        logits[..., 0] = 0
        classes = torch.zeros(2, count, dtype=torch.int32)
        classes[0, :3] = 1
        targets = {"classes": classes, "offsets": torch.zeros(2, count, 4)}
        losses.append(float(heads.loss(Raw(torch.zeros(2, count, 4), logits), targets)["loss"]))
    assert losses[1] > losses[0] + 1

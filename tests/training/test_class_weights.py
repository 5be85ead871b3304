"""Weights of classes: the papers' formulas, the loss with them, and runs that use or refuse them."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
import torch.nn.functional as F
import yaml
from torch import nn

from fssd.config.config_files import load_config
from fssd.config.settings import with_values
from fssd.config.train_config import TrainConfig
from fssd.data.source import open_data
from fssd.errors import ConfigError
from fssd.heads.multibox.loss import multibox_loss
from fssd.heads.multibox.objective import Objective
from fssd.heads.multibox.raw import Raw
from fssd.heads.yolov2.region_loss import region_loss
from fssd.training.class_weights import class_weights
from fssd.training.loop import train
from fssd.weights.checkpoint import read_tensors

OBJECTS = {"cat": 600, "dog": 300, "owl": 100, "yak": 0}
MakeBackbone = Callable[[], nn.Module]


def test_inverse_is_balanced() -> None:
    # N / (C n): 1000 / (3 * 600) and so on; yak, which has no object, weighs 1.
    wanted = [1000 / 1800, 1000 / 900, 1000 / 300, 1]
    assert class_weights(["inverse"], OBJECTS) == pytest.approx(wanted)


def test_effective_numbers() -> None:
    number = [(1 - 0.999**n) / (1 - 0.999) for n in (600, 300, 100)]
    weights = class_weights(["effective"], OBJECTS)[:3]
    assert weights * number == pytest.approx([weights[0] * number[0]] * 3)
    assert weights @ [600, 300, 100] == pytest.approx(1000), "the mean over all objects is 1"
    assert weights[2] / weights[0] == pytest.approx((1 - 0.999**600) / (1 - 0.999**100))


def test_a_map() -> None:
    assert class_weights(["dog=2", "owl=0.5"], OBJECTS).tolist() == [1, 2, 0.5, 1]
    assert class_weights(["a=b=3"], {"a=b": 1}).tolist() == [3]


@pytest.mark.parametrize(
    ("given", "told"),
    [
        (["balanced"], "class_weights has 'balanced'; it takes inverse, effective, or CLASS=WEIGHT"),
        (["inverse", "cat=2"], "class_weights has 'inverse'"),
        (["cat=0"], "class_weights has 'cat=0'; a weight is a number above 0, at most 100"),
        (["cat=much"], "a weight is a number above 0"),
        (["cat=inf"], "a weight is a number above 0"),
        (["cat=2", "cat=3"], "names 'cat' twice"),
        (["cta=2"], "names 'cta', which is no class here; did you mean 'cat'"),
    ],
)
def test_what_is_no_weight(given: list[str], told: str) -> None:
    with pytest.raises(ConfigError, match=told):
        class_weights(given, OBJECTS)


def test_a_weight_that_would_rule_the_loss() -> None:
    with pytest.raises(ConfigError, match="gives owl the weight 500, above 100, which lets its 1 obj"):
        class_weights(["inverse"], {"cat": 999, "owl": 1})


def test_settings_of_yaml_and_flags(tmp_path: Path) -> None:
    file = tmp_path / "run.yaml"
    file.write_text("class_weights: {cat: 2, traffic light: 0.5}\noversample: 0.1\n")
    config = load_config(file)
    assert config.class_weights == ("cat=2", "traffic light=0.5") and config.oversample == 0.1
    assert with_values(config, {"class_weights": "inverse"}).class_weights == ("inverse",)
    for wrong in (3, [1, 2], None):
        with pytest.raises(ConfigError, match=r"class_weights cannot be .*; it takes words, or a mapping"):
            with_values(config, {"class_weights": wrong})


# --- The loss -----------------------------------------------------------------------------------------------

CLASSES = torch.tensor([[0, 1, 2, 0, 0, 0, 0, 2]])  # of eight priors; two classes
WEIGHTS = torch.tensor([3.0, 0.5], dtype=torch.float64)


def some_logits(columns: int) -> torch.Tensor:
    return torch.randn(1, 8, columns, generator=torch.Generator().manual_seed(1), dtype=torch.float64)


def loss_of(logits: torch.Tensor, kind: str, weights: torch.Tensor | None) -> float:
    targets = {"classes": CLASSES.int(), "offsets": torch.zeros(1, 8, 4)}
    raw = Raw(torch.zeros(1, 8, 4, dtype=torch.float64), logits)
    priors = torch.tensor([[0.0, 0, 10, 10]] * 8)
    objective = Objective(confidence=kind)
    return float(
        multibox_loss(raw, targets, priors, objective, negatives=1.0, class_weights=weights)["loss_conf"]
    )


def test_softmax() -> None:
    logits = some_logits(3)
    entropy = -logits.log_softmax(-1)[0]
    background = sorted((entropy[i, 0].item() for i in (0, 3, 4, 5, 6)), reverse=True)[:3]
    wanted = 3.0 * entropy[1, 1] + 0.5 * (entropy[2, 2] + entropy[7, 2]) + sum(background)
    assert loss_of(logits, "softmax", WEIGHTS) == pytest.approx(wanted.item() / 3)
    assert loss_of(logits, "softmax", torch.ones(2).double()) == loss_of(logits, "softmax", None)


def test_focal() -> None:
    logits = some_logits(2)
    total = 0.0
    for prior, label in enumerate(CLASSES[0].tolist()):
        for column in range(2):
            p = 1 / (1 + math.exp(-logits[0, prior, column].item()))
            if label == column + 1:
                total += WEIGHTS[column].item() * 0.25 * (1 - p) ** 2 * -math.log(p)
            else:
                total += 0.75 * p**2 * -math.log(1 - p)
    assert loss_of(logits, "focal", WEIGHTS) == pytest.approx(total / 3)


def test_region_loss_of_classes() -> None:
    generator = torch.Generator().manual_seed(2)
    predictions = torch.randn(1, 7, 2, 2, generator=generator, dtype=torch.float64)  # one anchor, 2 classes
    targets = {
        "boxes": torch.tensor([[[0.25, 0.25, 0.3, 0.3], [0.75, 0.75, 0.3, 0.3]]], dtype=torch.float64),
        "labels": torch.tensor([[0, 1]]),
    }
    anchors = torch.ones(1, 2, dtype=torch.float64)
    terms = region_loss(predictions, targets, anchors, warm=torch.tensor(False), class_weights=WEIGHTS)
    cells = (predictions[0, 5:, 0, 0], predictions[0, 5:, 1, 1])
    each = [F.cross_entropy(cell[None], torch.tensor([label])).item() for label, cell in enumerate(cells)]
    assert terms["loss_class"].item() == pytest.approx(3.0 * each[0] + 0.5 * each[1])


# --- Runs ---------------------------------------------------------------------------------------------------


def small(data: Path, out: Path, **changes: object) -> TrainConfig:
    base = TrainConfig(
        data=data, out=out, start="nothing", val_split=None, iterations=4, batch_size=5, workers=0, amp="off",
        oversample=0.5, class_weights=("inverse",), save_every=1, model="ssd300-lite",
    )  # fmt: skip
    return replace(base, **changes)  # type: ignore[arg-type]


def test_a_run_that_oversamples_and_weighs_is_resumed_exactly(
    scenes: Path, tmp_path: Path, tiny_backbone: MakeBackbone, capsys: pytest.CaptureFixture[str]
) -> None:
    data = tmp_path / "data.yaml"  # with classes in another order than that of the alphabet
    names = sorted(open_data(scenes).classes, reverse=True)
    data.write_text(yaml.safe_dump({"sources": [{"data": str(scenes)}], "classes": names}))
    whole = train(small(data, tmp_path / "whole"), backbone=tiny_backbone()).model
    told = capsys.readouterr().err
    assert "of 12 images are shown up to" in told and "class weights: zero" in told
    half = small(data, tmp_path / "half")
    train(half, minutes=0, backbone=tiny_backbone())
    again = train(half, resume=True, backbone=tiny_backbone()).model
    assert whole is not None and again is not None
    one, other = read_tensors(whole)[0], read_tensors(again)[0]
    assert all(torch.equal(one[key], other[key]) for key in one)
    state = read_tensors(half.out / "last.safetensors")[0]  # type: ignore[operator]
    factors = state["data/repeats"].numpy()
    assert factors.shape == (12,) and factors.max() > 1 and np.all(factors >= 1)


def test_what_has_no_effect_is_an_error(scenes: Path, tmp_path: Path, tiny_backbone: MakeBackbone) -> None:
    for changes, told in (
        (
            {"oversample": 0.01},
            "oversample 0.01 repeats no image: every class is in a larger share",
        ),
        ({"oversample": 0.0}, "oversample is 0.0; it must be above 0 and at most 1"),
        ({"class_weights": ("tow=2",)}, "no class here; did you mean 'two'"),
    ):
        with pytest.raises(ConfigError, match=told):
            train(small(scenes, tmp_path / "run", **changes), backbone=tiny_backbone())

"""A complete configuration: the recipes of the backbones, choices and conflicts."""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import Any

import pytest

from fssd.config.train_config import CHOICES, TrainConfig
from fssd.errors import ConfigError
from fssd.training.start import complete

GIVEN = TrainConfig(data=Path("some/data"), out=Path("some/run"))


def given(**values: Any) -> TrainConfig:
    return dataclasses.replace(GIVEN, **values)


# What each setting accepts, as its documentation says.
KNOWN = {
    "schedule": {"multistep", "cosine", "constant"},
    "start": {"backbone", "ssd", "model", "nothing"},
    "amp": {"auto", "off", "bf16", "fp16"},
    "metric": {"voc07", "voc12", "coco"},
    "augment": {"ssd", "mild", "mirror", "yolo", "none"},
    "geometry": {"warp", "letterbox"},
    "optimizer": {"sgd", "adam"},
    "train_only": {"all", "new"},
    "kernels": {"default", "deterministic", "benchmark"},
}


def test_no_choice_is_untested() -> None:
    assert {key: set(known) for key, known in CHOICES.items()} == KNOWN


@pytest.mark.parametrize("key", sorted(KNOWN))
def test_every_choice_is_checked(key: str) -> None:
    for value in KNOWN[key]:
        weights = None if value == "nothing" else Path("ssd.pt")
        others = {"start": "ssd"} if value == "new" else {}  # what `train_only` keeps is an SSD's
        assert getattr(complete(given(**{**others, key: value, "weights": weights})), key) == value
        misspelt = value[:-1] + "q"
        with pytest.raises(ConfigError, match=f"{key}.*'{misspelt}'") as caught:
            complete(given(**{key: misspelt}))
        assert any(known in str(caught.value) for known in KNOWN[key])


@pytest.mark.parametrize("model", ["ssd300-vgg16", "ssd512-vgg16", "fssd300-vgg16", "fssd512-vgg16"])
def test_vgg16_takes_the_recipe_of_the_paper(model: str) -> None:
    config = complete(given(model=model))
    # 1e-3, no warm-up, 120,000 updates of 32 of the 16,551 images of VOC 07+12, no averaging.
    assert config.lr == 1e-3
    assert config.schedule == "multistep"
    assert config.warmup == 0
    assert config.ema == 0
    assert config.epochs is not None
    assert config.epochs * 16_551 / config.batch_size == pytest.approx(120_000, rel=2e-3)
    assert (config.momentum, config.weight_decay, config.bias_lr, config.batch_size) == (0.9, 5e-4, 2, 32)


@pytest.mark.parametrize(
    ("model", "steps"),
    [
        ("ssd321-resnet101", (40_000, 60_000)),  # of 70,000 updates (DSSD 4)
        ("yolov2-416", (26_250, 39_375)),  # epochs 60 and 90 of 160 (YOLO9000, 3)
        ("dsod300", (14_000, 28_000, 42_000, 56_000)),  # 20k to 80k of 100k
        ("fssd300-vgg16", ()),  # SSD's, 2/3 and 5/6
    ],
)
def test_the_rate_falls_when_the_authors_say(model: str, steps: tuple[int, ...]) -> None:
    config = complete(given(model=model, iterations=70_000))
    assert config.steps_of(70_000) == steps
    assert complete(config) == config
    own = complete(given(model=model, iterations=70_000, steps=(7,)))
    assert (own.steps_of(70_000), own.step_shares) == ((7,), None)
    assert complete(given(model=model, schedule="cosine")).step_shares is None


def test_shares_of_the_run_alone_mean_multistep() -> None:
    config = complete(given(model="fssd300-lite", step_shares=(0.5, 0.9)))
    assert (config.schedule, config.steps_of(1000)) == ("multistep", (500, 900))


@pytest.mark.parametrize(
    ("values", "named"),
    [
        ({"steps": (5,), "step_shares": (0.5,)}, "--step-shares"),
        ({"schedule": "cosine", "step_shares": (0.5,)}, "--step-shares"),
        ({"step_shares": (0.0,)}, "between 0 and 1"),
        ({"step_shares": (1.0,)}, "between 0 and 1"),
    ],
)
def test_wrong_shares_of_the_run(values: dict[str, Any], named: str) -> None:
    with pytest.raises(ConfigError, match=named):
        complete(given(**values))


@pytest.mark.parametrize("model", ["ssd300-lite", "fssd300-lite"])
def test_lite_takes_a_recipe_of_its_own(model: str) -> None:
    config = complete(given(model=model))
    assert config.schedule == "cosine"
    assert config.lr is not None
    assert config.lr > 1e-3
    assert config.warmup is not None
    assert config.warmup > 0
    assert config.ema is not None
    assert 0.9 < config.ema < 1
    assert config.epochs is not None


@pytest.mark.parametrize("model", ["fssd300-vgg16", "fssd300-lite"])
def test_a_given_value_outranks_the_recipe(model: str) -> None:
    values = {"lr": 0.5, "schedule": "constant", "warmup": 3, "ema": 0.5, "epochs": 2.0}
    config = complete(given(model=model, **values))
    assert {key: getattr(config, key) for key in values} == values
    # Zero is a value, not an absence.
    assert complete(given(model=model, warmup=0, ema=0.0)).warmup == 0
    assert complete(given(model=model, warmup=0, ema=0.0)).ema == 0


def test_nothing_stays_open() -> None:
    config = complete(GIVEN)
    assert not [key for key in ("lr", "schedule", "warmup", "ema", "epochs") if getattr(config, key) is None]
    assert complete(config) == config


def test_iterations_stand_for_epochs() -> None:
    config = complete(given(iterations=500))
    assert (config.iterations, config.epochs) == (500, None)
    assert complete(config) == config


def test_no_validation() -> None:
    assert complete(given(val_split="none")).val_split is None
    assert complete(given(val_split=None)).val_split is None
    assert complete(GIVEN).val_split == "auto"


@pytest.mark.parametrize(
    ("values", "named"),
    [
        ({"data": None}, "--data"),
        ({"out": None}, "--out"),
        ({"epochs": 3.0, "iterations": 10}, "--iterations"),
        ({"start": "ssd"}, "--weights"),
    ],
)
def test_conflicts_name_the_flag(values: dict[str, Any], named: str) -> None:
    with pytest.raises(ConfigError, match=named):
        complete(given(**values))


def test_steps_alone_mean_multistep_and_do_not_go_with_another_schedule() -> None:
    assert complete(given(model="fssd300-lite", steps=(5, 7))).schedule == "multistep"
    with pytest.raises(ConfigError, match="steps belong to --schedule multistep"):
        complete(given(steps=(5,), schedule="cosine"))


def test_from_nothing_takes_no_weights() -> None:
    with pytest.raises(ConfigError, match="--start nothing takes no --weights"):
        complete(given(start="nothing", weights=Path("vgg.pth")))

"""A configuration that is complete: the recipe of its backbone filled in, and all of it checked."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from typing import Any

from fssd.config.bounds import check_bounds
from fssd.config.settings import conflicts
from fssd.config.train_config import CHOICES, TrainConfig
from fssd.errors import ConfigError, nearest


def resolve(config: TrainConfig, recipe: Mapping[str, Any]) -> TrainConfig:
    """Fill in the backbone's recipe and check that the settings fit together. Raises ConfigError."""
    if (config.steps or config.step_shares) and config.schedule is None:
        config = dataclasses.replace(config, schedule="multistep")
    filled = {key: value for key, value in recipe.items() if getattr(config, key) is None}
    if config.iterations is not None:
        filled.pop("epochs", None)
    if config.steps or config.schedule is not None:  # the recipe's shares are of the recipe's schedule
        filled.pop("step_shares", None)
    config = dataclasses.replace(config, **filled)
    if config.train_split == "none":
        config = dataclasses.replace(config, train_split=None)
    if config.val_split == "none":
        config = dataclasses.replace(config, val_split=None)
    _check(config)
    return config


def _check(config: TrainConfig) -> None:
    if config.data is None:
        raise ConfigError("training needs a data set; give --data")
    if config.out is None:
        raise ConfigError("training needs a folder for its results; give --out")
    for _, message in conflicts(config):
        raise ConfigError(message)
    if config.start in ("ssd", "model") and config.weights is None:
        what = "a trained SSD" if config.start == "ssd" else "a trained model"
        raise ConfigError(f"to start from {what}, name its checkpoint with --weights")
    _check_frozen(config)
    for key, known in CHOICES.items():
        value = getattr(config, key)
        if value not in known and not (value is None and key == "geometry"):
            raise ConfigError(f"there is no {key} {value!r}{nearest(str(value), known)}")
    check_bounds(config)
    if config.plain_epochs is not None and not config.mosaic and not config.mixup:
        raise ConfigError("--plain-epochs ends mosaic and mixup; give --mosaic or --mixup, or leave it out")
    if config.fold > config.folds:
        raise ConfigError(f"there is no fold {config.fold} of {config.folds}; give --folds and one of them")


def _check_frozen(config: TrainConfig) -> None:
    if config.freeze_all_norms and config.start != "model":
        raise ConfigError("--freeze-all-norms keeps what was trained; name it with --start model --weights")
    if config.freeze_all_norms and config.freeze_norm:
        raise ConfigError("--freeze-all-norms fixes those of the backbone too; leave --freeze-norm out")
    if config.train_only != "new":
        return
    if config.start not in ("ssd", "model"):
        raise ConfigError("--train-only new keeps what an SSD has; name one with --start ssd --weights")
    defaults = TrainConfig()
    for key in ("freeze", "freeze_norm", "freeze_all_norms", "backbone_lr"):
        if getattr(config, key) != getattr(defaults, key):
            flag = key.replace("_", "-")
            raise ConfigError(f"--train-only new keeps the whole backbone as it is; leave --{flag} out")

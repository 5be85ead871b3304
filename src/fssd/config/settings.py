"""A configuration with some of its settings changed, and the settings that exclude each other."""

from __future__ import annotations

import dataclasses
from collections.abc import Collection, Iterator, Mapping
from pathlib import Path
from typing import Any, get_args, get_origin

from fssd.config.readers import READERS
from fssd.config.train_config import AUTO, CHOICES, KINDS, TrainConfig
from fssd.errors import ConfigError, nearest


def with_values(config: TrainConfig, values: Mapping[str, Any], where: str = "") -> TrainConfig:
    """`config` with some fields replaced, each converted to its field's type. Raises ConfigError.

    Model options are added to those of `config`; an option that is null is removed. A value also removes
    the setting of `config` that it excludes: `iterations` removes `epochs`.
    """
    changed: dict[str, Any] = {}
    for key, value in values.items():
        if key not in KINDS:
            raise ConfigError(f"{where}there is no setting {key!r}{nearest(str(key), KINDS)}")
        changed[key] = _convert(key, value, where)
    if "options" in changed:
        merged = {**config.options, **changed["options"]}
        changed["options"] = {key: value for key, value in merged.items() if value is not None}
    return without_replaced(dataclasses.replace(config, **changed), changed, where)


def without_replaced(config: TrainConfig, given: Collection[str], where: str = "") -> TrainConfig:
    """`config` with every setting reset that excludes one in `given`.

    given: settings of the highest level, such as those on the command line over those in a file; the other
    setting is reset to its default. Raises ConfigError if both are in `given`.
    """
    for names, message in conflicts(config):
        replaced = names - set(given)
        if not replaced:
            raise ConfigError(f"{where}{message}")
        if replaced != names:
            key = replaced.pop()
            config = dataclasses.replace(config, **{key: getattr(TrainConfig(), key)})
    return config


def check_kinds(config: TrainConfig) -> None:
    """Raise ConfigError for the first setting that is no text, path, mapping or truth value and has to be.

    Numbers are looked at with their bounds, `check_bounds`.
    """
    for key in KINDS:
        kind, may_be_null = _kind(key)
        value = getattr(config, key)
        fits = (value is None and may_be_null) or kind not in (str, Path, Mapping, bool)
        if not fits and not isinstance(value, kind):
            raise ConfigError(f"{key} is {value!r}; it takes {READERS[kind][0]}")


def conflicts(config: TrainConfig) -> Iterator[tuple[set[str], str]]:
    """The pairs of settings that exclude each other in `config`, each with what to do about it."""
    if config.epochs is not None and config.iterations is not None:
        yield {"epochs", "iterations"}, "give either --epochs or --iterations, not both"
    yield from _schedule_conflicts(config)
    if config.start == "nothing" and config.weights is not None:
        yield {"start", "weights"}, "--start nothing takes no --weights; leave one of them out"
    if config.global_batch is not None and config.accumulate != 1:
        message = "--global-batch is shared out in as many batches as are needed; leave --accumulate out"
        yield {"global_batch", "accumulate"}, message
    for key in ("val_share", "folds"):
        if config.val_split != "auto" and getattr(config, key):
            yield {"val_split", key}, f"give either --val-split or --{key.replace('_', '-')}, not both"
    if config.batch_size == AUTO and config.folds:
        yield {"batch_size", "folds"}, "folds are compared and need one --batch-size, not auto; give a number"
    if config.val_share is not None and config.folds:
        yield {"val_share", "folds"}, "give either --val-share or --folds, not both"


def _schedule_conflicts(config: TrainConfig) -> Iterator[tuple[set[str], str]]:
    if config.steps and config.schedule not in (None, "multistep"):
        yield {"steps", "schedule"}, "steps belong to --schedule multistep; leave --steps or --schedule out"
    if config.steps and config.step_shares:
        yield {"steps", "step_shares"}, "give either --steps or --step-shares, not both"
    if config.step_shares and config.schedule not in (None, "multistep"):
        message = "step shares belong to --schedule multistep; leave --step-shares or --schedule out"
        yield {"step_shares", "schedule"}, message
    if not all(0 < share < 1 for share in config.step_shares or ()):
        yield {"step_shares"}, "step shares lie between 0 and 1, the whole run; correct --step-shares"
    if any(step < 1 for step in config.steps):
        yield {"steps"}, "steps are updates after which the rate falls, each 1 or more; correct --steps"
    if config.warmup_power is not None and config.warmup == 0:
        yield {"warmup_power", "warmup"}, "--warmup-power is of a warm-up; give --warmup too or leave it out"


def _convert(key: str, value: Any, where: str) -> Any:
    """`value` as the type of the setting `key`."""
    kind, may_be_null = _kind(key)
    if value is None and may_be_null:
        return None
    if key == "tiles" and isinstance(value, int) and not isinstance(value, bool):
        return str(value)
    if value is False and "off" in CHOICES.get(key, ()):
        return "off"  # YAML 1.1 reads off as false
    if key == "batch_size" and value == "auto":
        return AUTO
    takes, accepted, read = READERS[kind]
    try:
        if isinstance(value, accepted) and isinstance(value, bool) == (kind is bool):
            return read(value)
    except (TypeError, ValueError, OverflowError):
        pass
    takes = " or ".join(CHOICES.get(key, [takes, *["null"] * may_be_null]))
    raise ConfigError(f"{where}{key} cannot be {value!r}; it takes {takes}")


def _kind(key: str) -> tuple[Any, bool]:
    """The row of `READERS` for the setting `key`, and whether it may be null."""
    kinds = get_args(KINDS[key])
    may_be_null = type(None) in kinds
    kind = kinds[0] if may_be_null else KINDS[key]
    return kind if kind in READERS else get_origin(kind) or kind, may_be_null

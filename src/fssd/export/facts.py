"""What a model file says of itself, made fit to be passed on."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from typing import Any

from fssd.config import TrainConfig

LOCAL = tuple(field.name for field in dataclasses.fields(TrainConfig) if str(field.type).startswith("Path"))


def portable(facts: Mapping[str, Any]) -> dict[str, Any]:
    """The facts without the settings that name places on the machine of the training: data, out, weights."""
    config = facts.get("config")
    if not isinstance(config, Mapping):
        return dict(facts)
    return {**facts, "config": {key: value for key, value in config.items() if key not in LOCAL}}

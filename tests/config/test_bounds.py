"""The ranges of the numbers."""

from __future__ import annotations

import dataclasses
from pathlib import Path

import pytest

from fssd.config.train_config import TrainConfig
from fssd.errors import ConfigError
from fssd.training.start import complete

GIVEN = TrainConfig(data=Path("some/data"), out=Path("some/run"))


@pytest.mark.parametrize(
    ("key", "bad", "good"),
    [
        ("batch_size", [0, -1], [1]),
        ("accumulate", [0], [1]),
        ("save_every", [0], [1]),
        ("log_every", [0], [1]),
        ("lr", [0.0, -1e-3, float("nan")], [1e-9]),
        ("epochs", [0.0, -1.0], [0.1]),
        ("iterations", [0, -5], [1]),
        ("eval_every", [0.0], [0.5]),
        ("workers", [-1], [0]),
        ("threads", [-1], [0]),
        ("weight_decay", [-1e-9], [0.0]),
        ("clip_norm", [-1.0], [0.0]),
        ("norm_decay", [-1.0], [0.0, 1.0]),
        ("warmup", [-1], [0]),
        ("seed", [-1], [0]),
        ("momentum", [-0.1, 1.0], [0.0, 0.99]),
        ("ema", [-0.1, 1.0], [0.0, 0.999]),
        ("bad_share", [-0.1, 1.0], [0.0, 0.5]),
    ],
)
def test_bounds(key: str, bad: list[float], good: list[float]) -> None:
    for value in bad:
        with pytest.raises(ConfigError, match=key):
            complete(dataclasses.replace(GIVEN, **{key: value}))
    for value in good:
        assert getattr(complete(dataclasses.replace(GIVEN, **{key: value})), key) == value

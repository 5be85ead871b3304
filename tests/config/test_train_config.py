"""The configuration: its paths, choices and types, and what Python may give."""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import Any

import pytest
import yaml

from fssd.config.config_files import load_config
from fssd.config.settings import with_values
from fssd.config.train_config import LOCAL, TrainConfig, to_values
from fssd.errors import ConfigError
from fssd.training.start import complete

GIVEN = TrainConfig(data=Path("some/data"), out=Path("some/run"))


def given(**values: Any) -> TrainConfig:
    return dataclasses.replace(GIVEN, **values)


def test_configuration_is_frozen() -> None:
    with pytest.raises(dataclasses.FrozenInstanceError):
        GIVEN.lr = 1.0  # type: ignore[misc]


def test_paths_are_what_only_one_machine_knows() -> None:
    assert {"data", "images", "out", "weights"} == LOCAL


def test_paths_may_be_strings() -> None:
    config = complete(TrainConfig(data="d", out="o", weights="w"))  # type: ignore[arg-type]
    assert (config.data, config.out, config.weights) == (Path("d"), Path("o"), Path("w"))


def test_python_may_give_values_as_a_file_does() -> None:
    values: Any = {"tiles": 480, "class_weights": {"cat": 2}, "log_to": "mlflow"}
    config = TrainConfig(**values)
    assert (config.tiles, config.class_weights, config.log_to) == ("480", ("cat=2",), ("mlflow",))
    assert config == with_values(TrainConfig(), values)
    wrong: list[Any] = [{"tiles": 480.0}, {"tiles": True}, {"class_weights": [1]}]
    for one in wrong:
        with pytest.raises(ConfigError, match=f"{next(iter(one))} (is|are) "):
            complete(TrainConfig(**one))


FULL = given(
    model="fssd512-vgg16",
    options={"merge": "sum", "sources": ["conv4_3", "fc7"], "ratios": [[2.0], [2.0, 3.0]]},
    val_split=None,
    start="ssd",
    weights=Path("ssd/best"),
    new_layers_lr=2.0,
    iterations=60_000,
    lr=5e-4,
    schedule="multistep",
    steps=(20_000, 40_000),
    difficult=False,
    amp="bf16",
)


@pytest.mark.parametrize("resolved", [False, True])
@pytest.mark.parametrize("config", [GIVEN, FULL], ids=["default", "full"])
def test_round_trip(config: TrainConfig, resolved: bool, tmp_path: Path) -> None:
    config = complete(config) if resolved else config
    values = to_values(config)
    assert set(values) == {field.name for field in dataclasses.fields(TrainConfig)}
    assert with_values(TrainConfig(), values) == config
    file = tmp_path / "config.yaml"
    file.write_text(yaml.safe_dump(values))
    assert load_config(file) == config

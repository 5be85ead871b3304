"""Changed settings: their keys and types, and those that exclude each other."""

from __future__ import annotations

import dataclasses
import json
from pathlib import Path
from typing import Any

import pytest
import yaml

from fssd.config.config_files import load_config
from fssd.config.settings import check_kinds, with_values
from fssd.config.train_config import TrainConfig
from fssd.errors import ConfigError
from fssd.training.start import complete

GIVEN = TrainConfig(data=Path("some/data"), out=Path("some/run"))


def given(**values: Any) -> TrainConfig:
    return dataclasses.replace(GIVEN, **values)


def test_model_options_add_up_and_null_takes_one_out() -> None:
    first = with_values(GIVEN, {"options": {"merge": "sum", "priors": "coco"}})
    second = with_values(first, {"options": {"norm": "none", "merge": None}})
    assert second.options == {"priors": "coco", "norm": "none"}


def test_yaml_reads_off_as_false() -> None:
    assert with_values(GIVEN, yaml.safe_load("amp: off")).amp == "off"
    with pytest.raises(ConfigError, match="it takes auto or off or bf16 or fp16"):
        with_values(GIVEN, {"amp": True})


@pytest.mark.parametrize(
    ("key", "meant"),
    [
        ("batchsize", "batch_size"),
        ("momentom", "momentum"),
        ("learning_rate_new_layers", "new_layers_lr"),
        ("weigths", "weights"),
        ("epoch", "epochs"),
    ],
)
def test_unknown_key_names_the_nearest(key: str, meant: str) -> None:
    with pytest.raises(ConfigError, match=key) as caught:
        with_values(GIVEN, {key: 1})
    assert repr(meant) in str(caught.value) or meant in str(caught.value)


@pytest.mark.parametrize(
    ("key", "value"),
    [
        ("batch_size", "many"),
        ("batch_size", 1.5),
        ("batch_size", True),
        ("batch_size", None),
        ("batch_size", [4]),
        ("batch_size", float("inf")),
        ("batch_size", float("nan")),
        ("iterations", 10.5),
        ("lr", "fast"),
        ("lr", True),
        ("lr", [0.1]),
        ("momentum", None),
        ("model", 300),
        ("model", None),
        ("train_split", ["train"]),
        ("schedule", 5),
        ("metric", None),
        ("difficult", 1),
        ("difficult", "yes"),
        ("size", "large"),
        ("size", True),
        ("steps", "80000"),
        ("steps", ["soon"]),
        ("steps", [[1, 2]]),
        ("steps", [None]),
        ("steps", [80_000.5]),
        ("steps", [True]),
        ("steps", [float("inf")]),
        ("step_shares", "half"),
        ("step_shares", [True]),
        ("step_shares", [float("nan")]),
        ("options", "merge"),
        ("options", ["merge"]),
        ("data", {"train": "here"}),
        ("data", ["here", "there"]),
        ("out", False),
    ],
)
def test_wrong_type_names_the_setting(key: str, value: Any) -> None:
    with pytest.raises(ConfigError, match=key) as caught:
        with_values(GIVEN, {key: value})
    assert repr(value) in str(caught.value)


@pytest.mark.parametrize(
    ("key", "value", "wanted"),
    [
        ("lr", 1, 1.0),
        ("lr", "1e-3", 0.001),  # YAML 1.1 reads 1e-3 as a string
        ("lr", None, None),
        ("epochs", 12, 12.0),
        ("batch_size", 8.0, 8),
        ("steps", [80_000, 100_000], (80_000, 100_000)),
        ("steps", [], ()),
        ("steps", 80_000, (80_000,)),
        ("step_shares", [0.5, 0.8], (0.5, 0.8)),
        ("step_shares", 0.5, (0.5,)),
        ("step_shares", None, None),
        ("size", 512, (512,)),
        ("size", [640, 384], (640, 384)),
        ("data", "here/it/is", Path("here/it/is")),
        ("weights", None, None),
        ("val_split", None, None),
        ("difficult", False, False),
        ("options", {"merge": "sum"}, {"merge": "sum"}),
    ],
)
def test_values_take_the_type_of_their_field(key: str, value: Any, wanted: Any) -> None:
    found = getattr(with_values(GIVEN, {key: value}), key)
    assert found == wanted
    assert type(found) is type(wanted)


@pytest.mark.parametrize(
    ("key", "takes"),
    [
        ("data", "a path or null"),
        ("lr", "a number or null"),
        ("momentum", "a number"),
        ("iterations", "a whole number or null"),
        ("steps", "whole numbers"),
        ("options", "a mapping"),
        ("jpeg", "true or false"),
        ("model", "text"),
        ("schedule", "multistep or cosine or constant"),
    ],
)
def test_a_wrong_type_says_what_the_setting_takes(key: str, takes: str) -> None:
    with pytest.raises(ConfigError, match=rf"^here: {key} cannot be .*; it takes {takes}$"):
        with_values(GIVEN, {key: [None]}, where="here: ")


def test_values_replace_only_what_they_name() -> None:
    changed = with_values(GIVEN, {"seed": 7})
    assert changed == given(seed=7)
    assert GIVEN.seed == 0


# Two settings that exclude each other: the first pair is of the lower level, the second of the higher one.
REPLACED = [
    ({"epochs": 20.0}, {"iterations": 100}, {"epochs": None, "iterations": 100}),
    ({"iterations": 100}, {"epochs": 20.0}, {"epochs": 20.0, "iterations": None}),
    ({"schedule": "cosine"}, {"steps": (5, 7)}, {"schedule": None, "steps": (5, 7)}),
    ({"schedule": "multistep"}, {"steps": (5, 7)}, {"schedule": "multistep", "steps": (5, 7)}),
    ({"schedule": "multistep", "steps": (5, 7)}, {"schedule": "cosine"}, {"schedule": "cosine", "steps": ()}),
    ({"start": "ssd", "weights": Path("a")}, {"start": "nothing"}, {"start": "nothing", "weights": None}),
    ({"start": "nothing"}, {"weights": Path("a")}, {"start": "backbone", "weights": Path("a")}),
    ({"start": "ssd", "weights": Path("a")}, {"weights": Path("b")}, {"start": "ssd", "weights": Path("b")}),
    ({"steps": (5, 7)}, {"step_shares": (0.5,)}, {"steps": (), "step_shares": (0.5,)}),
    ({"step_shares": (0.5,)}, {"schedule": "cosine"}, {"schedule": "cosine", "step_shares": None}),
    ({"epochs": 20.0}, {"iterations": None}, {"epochs": 20.0, "iterations": None}),
]


@pytest.mark.parametrize(("lower", "higher", "wanted"), REPLACED)
def test_a_setting_replaces_the_one_that_it_excludes(
    lower: dict[str, Any], higher: dict[str, Any], wanted: dict[str, Any], tmp_path: Path
) -> None:
    assert with_values(given(**lower), higher) == given(**wanted)
    for name, values in (("lower", lower), ("higher", {"base": "lower.yaml", **higher})):
        plain = {key: str(value) if isinstance(value, Path) else value for key, value in values.items()}
        (tmp_path / f"{name}.yaml").write_text(yaml.safe_dump(json.loads(json.dumps(plain))))
    assert load_config(tmp_path / "higher.yaml", GIVEN) == given(**wanted)


@pytest.mark.parametrize(
    "values",
    [
        {"epochs": 3, "iterations": 10},
        {"steps": [5], "schedule": "cosine"},
        {"start": "nothing", "weights": "a"},
    ],
)
def test_settings_of_one_level_that_exclude_each_other_are_an_error(
    values: dict[str, Any], tmp_path: Path
) -> None:
    file = tmp_path / "both.yaml"
    file.write_text(yaml.safe_dump(values))
    with pytest.raises(ConfigError, match=r"both\.yaml: .*--(iterations|steps|weights)"):
        load_config(file)


@pytest.mark.parametrize(
    ("key", "value", "takes"),
    [
        ("model", 3, "text"), ("model", None, "text"), ("licence", 4.0, "text"),
        ("backbone", ["vgg16"], "text"), ("neck", 1, "text"),
        ("train_split", 1, "text"), ("augment_with", len, "text"), ("priors", {"a": 1}, "text"),
        ("difficult", "no", "true or false"), ("jpeg", 1, "true or false"),
        ("options", ["merge=sum"], "a mapping"), ("options", None, "a mapping"), ("data", 5, "a path"),
    ],
)  # fmt: skip
def test_kinds_from_python(key: str, value: Any, takes: str) -> None:
    settings = {"data": Path("some/data"), "out": Path("some/run"), key: value}
    with pytest.raises(ConfigError) as caught:
        complete(TrainConfig(**settings))
    assert str(caught.value) == f"{key} is {value!r}; it takes {takes}"


def test_kinds_that_fit() -> None:
    check_kinds(TrainConfig(data="some/data", val_split=None, licence="mit", options={"merge": "sum"}))  # type: ignore[arg-type]

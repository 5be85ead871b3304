"""The configuration: keys, types, recipes, conflicts, and the way to YAML and back."""

from __future__ import annotations

import dataclasses
import json
import re
from pathlib import Path
from typing import Any

import pytest
import yaml

from fssd.config import (
    CHOICES,
    LOCAL,
    TrainConfig,
    load_config,
    load_yaml,
    read_mapping,
    to_values,
    with_values,
)
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
    ("text", "line", "key"),
    [
        ("lr: 0.1\nseed: 1\nlr: 0.2", 3, "'lr'"),
        ("options:\n  merge: sum\n  'merge': concat", 3, "'merge'"),
        ("1: a\n01: b", 2, "1"),
        ("yes: a\non: b", 2, "True"),
        ("a: [{b: 1,\n b: 2}]", 2, "'b'"),
    ],
)
def test_a_key_that_is_there_twice(tmp_path: Path, text: str, line: int, key: str) -> None:
    file = tmp_path / "train.yaml"
    file.write_text(text, encoding="utf-8")
    reason = f"{file} (line {line}): is not valid YAML (the key {key} is there twice; keep one of them)"
    with pytest.raises(ConfigError, match=re.escape(reason)):
        read_mapping(file)


def test_a_merge_overrides_as_before() -> None:
    """What stands beside << may have a key of what is merged, also in one that is merged in its turn."""
    text = """
    a: &a {x: 1, y: 1}
    b: {inner: &b {<<: *a, x: 2}}
    c: {<<: *b, y: 3}
    d: {<<: [*a, *b], <<: *b, z: 4}
    =: 5
    """
    assert load_yaml(text) == yaml.safe_load(text)
    assert load_yaml(text)["b"] == {"inner": {"x": 2, "y": 1}}


# --- Keys and types -----------------------------------------------------------------------------------------


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


def test_unknown_key_names_its_file(tmp_path: Path) -> None:
    file = tmp_path / "run.yaml"
    file.write_text("batch_size: 8\nbatchs: 9\n")
    with pytest.raises(ConfigError, match=r"run\.yaml.*'batchs'"):
        load_config(file)


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


# --- Choices and bounds -------------------------------------------------------------------------------------

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
            complete(given(**{key: value}))
    for value in good:
        assert getattr(complete(given(**{key: value})), key) == value


# --- Recipes and conflicts ----------------------------------------------------------------------------------


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


def test_paths_are_what_only_one_machine_knows() -> None:
    assert {"data", "images", "out", "weights"} == LOCAL


def test_paths_may_be_strings() -> None:
    config = complete(TrainConfig(data="d", out="o", weights="w"))  # type: ignore[arg-type]
    assert (config.data, config.out, config.weights) == (Path("d"), Path("o"), Path("w"))


# --- Packaged configurations --------------------------------------------------------------------------------


def test_python_may_give_values_as_a_file_does() -> None:
    values: Any = {"tiles": 480, "class_weights": {"cat": 2}, "log_to": "mlflow"}
    config = TrainConfig(**values)
    assert (config.tiles, config.class_weights, config.log_to) == ("480", ("cat=2",), ("mlflow",))
    assert config == with_values(TrainConfig(), values)
    wrong: list[Any] = [{"tiles": 480.0}, {"tiles": True}, {"class_weights": [1]}]
    for one in wrong:
        with pytest.raises(ConfigError, match=f"{next(iter(one))} (is|are) "):
            complete(TrainConfig(**one))


def test_packaged_configurations_are_found_by_name(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    assert load_config(Path("photographs")).batch_size == 16
    assert load_config(Path("fssd300-voc0712")).model == "fssd300-vgg16"
    (tmp_path / "own.yaml").write_text("base: photographs\niterations: 50\n")
    own = load_config(Path("own.yaml"))
    assert (own.batch_size, own.iterations, own.epochs) == (16, 50, None)
    (tmp_path / "photographs").write_text("batch_size: 3\n")
    assert load_config(Path("photographs")).batch_size == 3  # a file comes first


def test_an_unknown_name_of_a_configuration_names_the_nearest(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"photgraphs: there is no such file.*did you mean 'photographs'"):
        load_config(Path("photgraphs"))
    (tmp_path / "own.yaml").write_text("base: fssd300-voc712\n")
    with pytest.raises(ConfigError, match="did you mean 'fssd300-voc0712'"):
        load_config(tmp_path / "own.yaml")


# --- YAML ---------------------------------------------------------------------------------------------------

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


def test_file_goes_over_the_base(tmp_path: Path) -> None:
    file = tmp_path / "run.yaml"
    file.write_text("lr: 1e-3\nsteps: [10, 20]\noptions: {priors: voc}\n")
    config = load_config(file, given(seed=3, lr=0.5))
    assert config == given(seed=3, lr=1e-3, steps=(10, 20), options={"priors": "voc"})


def test_empty_file_changes_nothing(tmp_path: Path) -> None:
    file = tmp_path / "empty.yaml"
    file.write_text("# nothing yet\n")
    assert load_config(file, GIVEN) == GIVEN


@pytest.mark.parametrize("text", ["[1, 2]", "just words", "a: [1", "7", "!!python/object/apply:os.getcwd []"])
def test_files_that_are_no_configuration(text: str, tmp_path: Path) -> None:
    file = tmp_path / "bad.yaml"
    file.write_text(text)
    with pytest.raises(ConfigError, match=r"bad\.yaml"):
        load_config(file)


def test_files_that_cannot_be_read(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"absent\.yaml"):
        load_config(tmp_path / "absent.yaml")
    binary = tmp_path / "binary.yaml"
    binary.write_bytes(b"\xff\xfe\x00lr")
    with pytest.raises(ConfigError, match=r"binary\.yaml"):
        load_config(binary)


def test_configuration_is_frozen() -> None:
    with pytest.raises(dataclasses.FrozenInstanceError):
        GIVEN.lr = 1.0  # type: ignore[misc]


def test_steps_alone_mean_multistep_and_do_not_go_with_another_schedule() -> None:
    assert complete(given(model="fssd300-lite", steps=(5, 7))).schedule == "multistep"
    with pytest.raises(ConfigError, match="steps belong to --schedule multistep"):
        complete(given(steps=(5,), schedule="cosine"))


def test_from_nothing_takes_no_weights() -> None:
    with pytest.raises(ConfigError, match="--start nothing takes no --weights"):
        complete(given(start="nothing", weights=Path("vgg.pth")))

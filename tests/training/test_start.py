"""How a run begins from a model: what it takes over, and what it says of it."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from torch import nn

from fssd.config.train_config import TrainConfig, to_values
from fssd.data.source import open_data
from fssd.training.loop import train
from fssd.training.start import complete, fresh_network, start_weights
from fssd.weights.checkpoint import read_tensors

MakeBackbone = Callable[[], nn.Module]
DEFAULTS = to_values(TrainConfig())


@pytest.fixture
def fitted(scenes: Path, tmp_path: Path, tiny_backbone: MakeBackbone) -> TrainConfig:
    """The settings of a finished run with priors that were fitted to its data."""
    config = TrainConfig(
        data=scenes, out=tmp_path / "first", start="nothing", val_split=None, size=(128,), priors="fit",
        iterations=1, batch_size=2, workers=0, amp="off",
    )  # fmt: skip
    train(config, backbone=tiny_backbone())
    return config


def more(fitted: TrainConfig, **changes: Any) -> TrainConfig:
    assert fitted.out is not None
    weights = fitted.out / "final.safetensors"
    out = fitted.out.with_name("more")
    return replace(fitted, out=out, start="model", weights=weights, priors=None, **changes)


def options(config: TrainConfig) -> Any:
    assert config.out is not None
    return read_tensors(config.out / "final.safetensors")[1]["options"]


def test_a_run_from_a_model_has_its_fitted_priors(
    fitted: TrainConfig, tiny_backbone: MakeBackbone, capsys: pytest.CaptureFixture[str]
) -> None:
    config = more(fitted)
    capsys.readouterr()
    train(config, backbone=tiny_backbone())
    told = capsys.readouterr()
    assert f"note: {config.weights} has fitted priors; so has this run" in told.err
    assert f"starts from {config.weights} with 10 of 10 classes known to it\n" in told.err
    assert "starts from" not in told.out and "other priors and" not in told.err
    assert options(config) == options(fitted) and isinstance(options(config)["priors"], dict)


def test_a_run_at_another_size_has_its_fitted_priors_enlarged(
    fitted: TrainConfig, tiny_backbone: MakeBackbone, capsys: pytest.CaptureFixture[str]
) -> None:
    data = open_data(fitted.data, "train")
    network = fresh_network(complete(more(fitted, size=(160,))), data, tiny_backbone())
    told = capsys.readouterr().err
    assert "has priors fitted for 128 x 128 px; so has this run, for 160 x 160 px, unless" in told
    now, before = network.spec.options["priors"], options(fitted)["priors"]
    assert now["centres"] == before["centres"]
    for larger, shapes in zip(now["shapes"], before["shapes"], strict=True):
        assert larger == [[pytest.approx(1.25 * side, abs=0.01) for side in shape] for shape in shapes]


@pytest.mark.parametrize("larger", [{"size": (256,)}, {"model": "fssd256-lite"}])
def test_a_level_more_has_the_priors_of_the_coarsest(
    larger: dict[str, Any],
    fitted: TrainConfig,
    tiny_backbone: MakeBackbone,
    capsys: pytest.CaptureFixture[str],
) -> None:
    data = open_data(fitted.data, "train")
    config = replace(more(fitted), **{"size": (), **larger})
    network = fresh_network(complete(config), data, tiny_backbone())
    assert "so has this run, for 256 x 256 px, unless" in capsys.readouterr().err
    now, before = network.spec.options["priors"], options(fitted)["priors"]
    assert len(network.neck.cells) == len(now["shapes"]) == len(before["shapes"]) + 1
    assert now["centres"] == [*before["centres"], before["centres"][-1]]
    assert now["shapes"][-1] == now["shapes"][-2]
    assert network.heads.enlarged(now, 0.5) is not None
    smaller = fresh_network(complete(fitted), data, tiny_backbone(), options(fitted))
    assert smaller.heads.enlarged(now, 0.5) is None, "its levels are fewer"
    start_weights(network, data.classes, config)
    assert "px there are 6 levels instead of 5, 1 of them fresh" in capsys.readouterr().err


@pytest.mark.parametrize(
    "changes", [{"size": (160, 128)}, {"size": (160,), "tiles": "auto"}]
)  # another shape; objects whose size does not go with that of the input
def test_fitted_priors_that_do_not_go_with_another_size_are_named(
    changes: dict[str, Any],
    fitted: TrainConfig,
    tiny_backbone: MakeBackbone,
    capsys: pytest.CaptureFixture[str],
) -> None:
    data = open_data(fitted.data, "train")
    network = fresh_network(complete(more(fitted, **changes)), data, tiny_backbone())
    assert "has fitted priors, which this network cannot take; it has a table" in capsys.readouterr().err
    assert "priors" not in network.spec.options


def test_other_priors_than_those_of_the_model_are_named(
    fitted: TrainConfig, tiny_backbone: MakeBackbone, capsys: pytest.CaptureFixture[str]
) -> None:
    train(replace(more(fitted), priors="voc", geometry="letterbox"), backbone=tiny_backbone())
    told = capsys.readouterr().err
    assert "relative to other priors and are learned anew; to keep its own, leave --priors out\n" in told
    assert "had the geometry warp, not letterbox; keep that with --geometry warp\n" in told
    assert "so has this run" not in told


def test_the_network_of_a_run_whose_model_is_not_trained_yet(scenes: Path, tmp_path: Path) -> None:
    config = TrainConfig(
        data=scenes, out=tmp_path, start="model", weights=tmp_path / "none.safetensors", size=(128,)
    )
    network = fresh_network(complete(config), open_data(scenes, "train"), None, quiet=True)
    assert network.spec.options == {"size": 128}


def test_one_of_several_processes_tells_what_a_run_starts_from(
    fitted: TrainConfig, train_together: Any
) -> None:
    config = more(fitted)
    changed = {key: value for key, value in to_values(config).items() if value != DEFAULTS[key]}
    first, second = train_together([{**changed, "val_split": "none"}] * 2)
    assert (first.code, second.code) == (0, 0), first.log + second.log
    for told in ("starts from", "has fitted priors"):
        assert told in first.log and told not in second.log

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from fssd.backbones.efficientnet_lite import SameConv2d
from fssd.config.resolve import resolve
from fssd.config.train_config import TrainConfig
from fssd.data.source import open_data
from fssd.errors import ConfigError
from fssd.layers.norms import light_norm
from fssd.model.build import build_model
from fssd.training.freeze import freeze, freeze_stages, training_mode
from fssd.training.loop import train
from fssd.weights.checkpoint import model_file, read_tensors, save_model


def test_a_convolution_with_fixed_statistics_equals_both_layers_forwards_and_backwards() -> None:
    torch.manual_seed(0)
    conv, norm = SameConv2d(4, 6, 3, 2).double(), light_norm(6).double().eval()
    for tensor in (norm.weight, norm.bias, norm.running_mean, norm.running_var):
        assert tensor is not None
        tensor.data.uniform_(0.5, 2)
    x = torch.randn(2, 4, 10, 10, dtype=torch.float64)
    one, two = conv.normalised(x, norm), norm(conv(x))
    torch.testing.assert_close(one, two)
    parameters = [conv.weight, norm.weight, norm.bias]
    for mine, theirs in zip(
        torch.autograd.grad(one.square().sum(), parameters),
        torch.autograd.grad(two.square().sum(), parameters),
        strict=True,
    ):
        torch.testing.assert_close(mine, theirs)


def test_frozen_stages_do_not_learn_and_keep_their_statistics() -> None:
    network = build_model("fssd300-lite", 2)
    freeze_stages(network, 2)
    training_mode(network, TrainConfig(freeze=2))
    before = {key: value.clone() for key, value in network.backbone.state_dict().items()}
    raw = network(torch.rand(2, 3, 300, 300) * 255)
    (raw.logits.square().sum() + raw.offsets.square().sum()).backward()
    # EfficientNet-lite0: one block in the first stage, two in the second, each with its own parameters.
    learning = {
        name.split(".")[1]
        for name, p in network.backbone._blocks.named_parameters(prefix="b")
        if p.requires_grad
    }
    assert learning == {str(number) for number in range(3, 16)}
    assert not any(p.requires_grad for p in network.backbone._conv_stem.parameters())
    after = network.backbone.state_dict()
    assert torch.equal(after["_bn0.running_mean"], before["_bn0.running_mean"])
    assert torch.equal(after["_blocks.2._bn1.running_var"], before["_blocks.2._bn1.running_var"])
    assert not torch.equal(after["_blocks.3._bn1.running_mean"], before["_blocks.3._bn1.running_mean"])


def test_norms_of_the_backbone_alone_are_fixed() -> None:
    network = build_model("fssd300-lite", 2)
    training_mode(network, TrainConfig(freeze_norm=True))
    modes = {norm.training for norm in network.backbone.modules() if isinstance(norm, nn.BatchNorm2d)}
    assert modes == {False}
    assert all(norm.training for norm in network.neck.modules() if isinstance(norm, nn.BatchNorm2d))


def test_vgg_stages_are_conv1_to_conv5_and_fc() -> None:
    network = build_model("ssd300-vgg16", 2)
    freeze_stages(network, 2)
    frozen = {name.split(".")[0] for name, p in network.backbone.named_parameters() if not p.requires_grad}
    assert frozen == {"conv1_1", "conv1_2", "conv2_1", "conv2_2"}


def test_more_stages_than_there_are(tiny_backbone: type[nn.Module]) -> None:
    with pytest.raises(ConfigError, match="freeze is 8; the backbone has 7 stages"):
        freeze_stages(build_model("ssd300-lite", 2), 8)
    with pytest.raises(ConfigError, match="does not list its stages"):
        freeze_stages(build_model("fssd300-lite", 2, backbone=tiny_backbone()), 1)


# ---------------------------------------------------------------- the two stages of DSSD


@pytest.fixture(scope="module")
def stages(scenes: Path, tmp_path_factory: pytest.TempPathFactory) -> tuple[TrainConfig, TrainConfig]:
    """The configurations of both stages of a light DSSD, which were run, from an SSD with statistics."""
    folder = tmp_path_factory.mktemp("stages")
    torch.manual_seed(3)
    ssd = build_model("ssd128-lite", 10)
    with torch.no_grad():
        ssd(torch.rand(4, 3, 128, 128) * 255)
    classes = open_data(scenes, "train").classes
    save_model(folder / "ssd.safetensors", ssd.state_dict(), ssd, classes, {})
    common = TrainConfig(
        data=scenes,
        model="dssd128-lite",
        val_split=None,
        iterations=3,
        batch_size=3,
        ema=0.0,
        workers=0,
        amp="off",
    )
    first = replace(
        common, out=folder / "1", start="ssd", weights=folder / "ssd.safetensors", train_only="new"
    )
    train(first)
    second = replace(common, out=folder / "2", start="model", weights=folder / "1", freeze_all_norms=True)
    train(second)
    return first, second


def norm_keys(network: nn.Module) -> set[str]:
    norms = (name for name, module in network.named_modules() if isinstance(module, nn.BatchNorm2d))
    return {f"{name}.{key}" for name in norms for key in network.get_submodule(name).state_dict()}


def tensors_of(file: Path | None) -> dict[str, Tensor]:
    assert file is not None
    return read_tensors(model_file(file))[0]


def test_the_first_stage_keeps_what_the_ssd_has(stages: tuple[TrainConfig, TrainConfig]) -> None:
    before, after = tensors_of(stages[0].weights), tensors_of(stages[0].out)
    kept = [key for key in after if key.startswith(("backbone.", "neck.extras."))]
    assert len(kept) > 300
    for key in kept:
        if not key.endswith("num_batches_tracked"):
            assert torch.equal(after[key], before[key]), key
    network = build_model("dssd128-lite", 10)
    moved = [key for key in norm_keys(network) if "running" in key and key not in kept]
    assert len(moved) == 2 * (4 * 3 + 5 * 2)  # four modules with three norms each, ten predictors with one
    fresh = network.state_dict()
    assert all(not torch.equal(after[key], fresh[key]) for key in moved)


def test_the_second_stage_keeps_every_norm_and_moves_the_rest(
    stages: tuple[TrainConfig, TrainConfig],
) -> None:
    before, after = tensors_of(stages[0].out), tensors_of(stages[1].out)
    norms = norm_keys(build_model("dssd128-lite", 10))
    assert len(norms) == 5 * (48 + 12 + 10 + 5)  # backbone, deconvolutions, heads, extras
    for key, tensor in after.items():
        same = torch.equal(tensor, before[key])
        if key in norms:
            assert same, key
        elif key.startswith("backbone._blocks") or key.startswith("neck.deconvolutions"):
            assert not same, key


def test_a_stage_that_is_interrupted_ends_in_the_same_weights(
    stages: tuple[TrainConfig, TrainConfig], tmp_path: Path
) -> None:
    for number, config in enumerate(stages):
        out = tmp_path / str(number)
        assert not train(replace(config, out=out), minutes=0).finished
        while not train(replace(config, out=out), resume=True, minutes=0).finished:
            pass
        resumed, straight = tensors_of(out), tensors_of(config.out)
        assert resumed.keys() == straight.keys()
        for key, tensor in straight.items():
            assert torch.equal(resumed[key], tensor), key


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        (
            {"train_only": "new"},
            "--train-only new keeps what an SSD has; name one with --start",
        ),
        (
            {"train_only": "new", "start": "ssd", "freeze": 2},
            "whole backbone as it is; leave --freeze out",
        ),
        ({"train_only": "new", "start": "ssd", "backbone_lr": 0.5}, "as it is; leave --backbone-lr out"),
        ({"train_only": "news", "start": "ssd"}, "there is no train_only 'news'; did you mean 'new'"),
        ({"freeze_all_norms": True}, "--freeze-all-norms keeps what was trained; name it with --start model"),
        ({"freeze_all_norms": True, "freeze_norm": True, "start": "model"}, "leave --freeze-norm out"),
    ],
    ids=str,
)
def test_settings_without_an_effect(settings: dict[str, Any], message: str, tmp_path: Path) -> None:
    weights = tmp_path if settings.get("start") else None
    with pytest.raises(ConfigError) as caught:
        resolve(TrainConfig(data=tmp_path, out=tmp_path, weights=weights, **settings), {})
    assert message in str(caught.value)


def test_a_network_without_norms_has_none_to_freeze() -> None:
    network = build_model("ssd128-vgg16", 1)
    with pytest.raises(ConfigError, match="ssd128-vgg16 has no batch norm; leave --freeze-all-norms out"):
        freeze(network, TrainConfig(freeze_all_norms=True))

from __future__ import annotations

import pytest
import torch
from torch import nn

from fssd.backbones.efficientnet_lite import BN_EPS, SameConv2d
from fssd.config import TrainConfig
from fssd.errors import ConfigError
from fssd.model.build import build_model
from fssd.training.freeze import freeze_stages, training_mode


def test_a_convolution_with_fixed_statistics_equals_both_layers_forwards_and_backwards() -> None:
    torch.manual_seed(0)
    conv, norm = SameConv2d(4, 6, 3, 2).double(), nn.BatchNorm2d(6, BN_EPS).double().eval()
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

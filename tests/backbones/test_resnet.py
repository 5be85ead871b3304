"""ResNet-50 and 101: published counts, a forward pass written out, both layouts, folding and freezing."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest
import safetensors.torch
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from fssd.backbones.backbone import probe_shapes
from fssd.backbones.resnet import (
    ResNet,
    ResNet50,
    ResNet50Caffe,
    ResNet101,
    ResNet101Caffe,
    ResNet101Dilated,
)
from fssd.backbones.resnet_weights import caffe_names
from fssd.config.train_config import TrainConfig
from fssd.errors import ConfigError
from fssd.model.build import build_model
from fssd.model.cost import parameters
from fssd.training.freeze import freeze_stages, training_mode
from fssd.weights.pretrained import load_backbone

KINDS = (ResNet50, ResNet101, ResNet50Caffe, ResNet101Caffe, ResNet101Dilated)


class Small(ResNet):
    """One bottleneck in the first stage and two in the others."""

    blocks = (1, 2, 2, 2)


class SmallCaffe(Small):
    caffe = True
    mean, std = ResNet50Caffe.mean, ResNet50Caffe.std


class SmallDilated(ResNet101Dilated):
    blocks = (1, 2, 2, 2)


def started(kind: type[ResNet], **options: Any) -> ResNet:
    """With random statistics and scales, in evaluation mode."""
    torch.manual_seed(0)
    backbone = kind(**options)
    for norm in (m for m in backbone.modules() if isinstance(m, nn.BatchNorm2d)):
        for tensor in (norm.weight.data, norm.running_var):
            assert tensor is not None
            tensor.uniform_(0.5, 1.5)
        for tensor in (norm.bias.data, norm.running_mean):
            assert tensor is not None
            tensor.uniform_(-0.5, 0.5)
    return backbone.eval()


# ---------------------------------------------------------------- the reference


def conv_norm(
    tensors: Mapping[str, Tensor], conv: str, norm: str, x: Tensor, eps: float, **window: int
) -> Tensor:
    out = F.conv2d(x, tensors[f"{conv}.weight"], **window)
    mean, var, gamma, beta = (
        tensors[f"{norm}.{key}"][:, None, None] for key in ("running_mean", "running_var", "weight", "bias")
    )
    return (out - mean) / (var + eps).sqrt() * gamma + beta


def reference(
    tensors: Mapping[str, Tensor], images: Tensor, caffe: bool, dilated: bool, eps: float
) -> dict[str, Tensor]:
    x = conv_norm(tensors, "conv1", "bn1", images, eps, stride=2, padding=3).relu()
    if caffe:  # no padding; a last window that is not full counts too
        x = F.max_pool2d(F.pad(x, (0, 1, 0, 1), value=-torch.inf), 3, 2)
        x = x[..., : images.shape[-2] // 4, : images.shape[-1] // 4]
    else:
        x = F.max_pool2d(F.pad(x, (1, 1, 1, 1), value=-torch.inf), 3, 2)
    maps = {}
    for stage in range(1, 5):
        block = 0
        while f"layer{stage}.{block}.conv1.weight" in tensors:
            name = f"layer{stage}.{block}"
            stride = 2 if stage > 1 and block == 0 else 1
            dilation = 1
            if dilated and stage == 4:
                stride, dilation = 1, 2
            one, three = (stride, 1) if caffe else (1, stride)
            out = conv_norm(tensors, f"{name}.conv1", f"{name}.bn1", x, eps, stride=one).relu()
            window = {"stride": three, "padding": dilation, "dilation": dilation}
            out = conv_norm(tensors, f"{name}.conv2", f"{name}.bn2", out, eps, **window).relu()
            out = conv_norm(tensors, f"{name}.conv3", f"{name}.bn3", out, eps)
            if block == 0:
                side = f"{name}.downsample"
                x = conv_norm(tensors, f"{side}.0", f"{side}.1", x, eps, stride=stride)
            x = (out + x).relu()
            block += 1
        maps[f"layer{stage}"] = x
    return maps


@pytest.mark.parametrize(
    ("kind", "caffe", "dilated", "eps"),
    [(Small, False, False, 1e-5), (SmallCaffe, True, False, 1e-5), (SmallDilated, True, True, 1e-3)],
)
def test_maps_are_those_of_the_formulas(kind: type[ResNet], caffe: bool, dilated: bool, eps: float) -> None:
    backbone = started(kind)
    images = torch.randn(2, 3, 128, 96)
    with torch.no_grad():
        found = backbone(images)
        expected = reference(backbone.state_dict(), images, caffe, dilated, eps)
    assert list(found) == list(expected) == ["layer1", "layer2", "layer3", "layer4"]
    for name, x in found.items():
        torch.testing.assert_close(x, expected[name], rtol=1e-4, atol=1e-4)


# ---------------------------------------------------------------- counts and sizes


@pytest.mark.parametrize(
    ("kind", "count"), [(ResNet50, 23_508_032), (ResNet101, 42_500_160), (ResNet101Dilated, 42_500_160)]
)
def test_parameters(kind: type[ResNet], count: int) -> None:
    with torch.device("meta"):
        backbone = kind()
    assert parameters(backbone) == count
    # With the 1000 classes of ImageNet, as torchvision counts them.
    if kind is ResNet101:
        assert count + 2048 * 1000 + 1000 == 44_549_160


@pytest.mark.parametrize("size", [(300, 300), (321, 321), (513, 513), (128, 160), (257, 130)], ids=str)
@pytest.mark.parametrize("kind", [ResNet50, ResNet50Caffe, ResNet101Dilated])
def test_shapes_are_those_of_a_pass(kind: type[ResNet], size: tuple[int, int]) -> None:
    with torch.device("meta"):
        backbone = kind()
        assert backbone.shapes(*size) == probe_shapes(backbone, *size)


@pytest.mark.parametrize(
    ("kind", "side", "cells"),
    [
        (ResNet50, 300, [75, 38, 19, 10]),
        (ResNet101, 321, [81, 41, 21, 11]),
        (ResNet101Caffe, 321, [80, 40, 20, 10]),
        (ResNet101Dilated, 321, [80, 40, 20, 20]),
        (ResNet101Dilated, 513, [128, 64, 32, 32]),
    ],
)
def test_sizes_of_the_papers(kind: type[ResNet], side: int, cells: list[int]) -> None:
    with torch.device("meta"):
        shapes = kind().shapes(side, side)
    assert [shape.cells for shape in shapes.values()] == [(n, n) for n in cells]
    assert [shape.channels for shape in shapes.values()] == [256, 512, 1024, 2048]


# ---------------------------------------------------------------- names of Caffe


@pytest.mark.parametrize("kind", KINDS)
def test_every_layer_has_a_name_in_caffe(kind: type[ResNet]) -> None:
    with torch.device("meta"):
        backbone = kind()
    names = list(caffe_names(kind.blocks))
    convs = [name for name, m in backbone.named_modules() if isinstance(m, nn.Conv2d)]
    norms = [name for name, m in backbone.named_modules() if isinstance(m, nn.BatchNorm2d)]
    assert sorted(conv for conv, _, _ in names) == sorted(convs)
    assert sorted(norm for _, norm, _ in names) == sorted(norms)
    theirs = [caffe for _, _, caffe in names]
    assert len(set(theirs)) == len(theirs)


def test_msra_numbers_deep_stages_and_letters_short_ones() -> None:
    fifty = {ours: theirs for ours, _, theirs in caffe_names(ResNet50.blocks)}
    hundred = {ours: theirs for ours, _, theirs in caffe_names(ResNet101.blocks)}
    assert fifty["conv1"] == hundred["conv1"] == "conv1"
    assert fifty["layer1.0.downsample.0"] == hundred["layer1.0.downsample.0"] == "2a_branch1"
    assert fifty["layer1.2.conv2"] == hundred["layer1.2.conv2"] == "2c_branch2b"
    assert (fifty["layer2.3.conv1"], hundred["layer2.3.conv1"]) == ("3d_branch2a", "3b3_branch2a")
    assert (fifty["layer3.5.conv3"], hundred["layer3.22.conv3"]) == ("4f_branch2c", "4b22_branch2c")
    assert fifty["layer4.2.conv3"] == hundred["layer4.2.conv3"] == "5c_branch2c"


# ---------------------------------------------------------------- weights, folding, freezing


def test_a_file_of_torchvision_reads_its_images_in_every_layout() -> None:
    """(x - mean) / std of torchvision, inside a network that divides by nothing."""
    theirs = started(Small)
    tensors = {**theirs.state_dict(), "fc.weight": torch.rand(1000, 2048), "fc.bias": torch.rand(1000)}
    assert Small().adapt(tensors) is tensors
    ours = SmallCaffe().eval()
    adapted = dict(ours.adapt(tensors))
    del adapted["fc.weight"], adapted["fc.bias"]
    ours.load_state_dict(adapted)
    images = torch.rand(2, 3, 64, 64) * 255
    mean, std = (255 * torch.tensor(v)[:, None, None] for v in ((0.485, 0.456, 0.406), (0.229, 0.224, 0.225)))
    with torch.no_grad():
        first = theirs.bn1(theirs.conv1((images - mean) / std))[:, :, 2:-2, 2:-2]
        other = ours.bn1(ours.conv1(images - torch.tensor([123.0, 117, 104])[:, None, None]))
        torch.testing.assert_close(other[:, :, 2:-2, 2:-2], first, rtol=1e-3, atol=1e-3)
    own = dict(theirs.state_dict())
    assert SmallCaffe().adapt(own) is own  # without a classifier it is taken as it is
    other_norm = {key: tensor for key, tensor in tensors.items() if not key.startswith("bn1.running")}
    assert SmallCaffe().adapt(other_norm) is other_norm  # whoever loads it says what is missing


def torchvision_file() -> dict[str, Tensor]:
    """The names and shapes of resnet50-0676ba61.pth, by its table: 3, 4, 6 and 3 bottlenecks, and fc."""
    tensors: dict[str, Tensor] = {}

    def conv_bn(conv: str, bn: str, outputs: int, inputs: int, kernel: int) -> None:
        tensors[f"{conv}.weight"] = torch.randn(outputs, inputs, kernel, kernel) / (inputs * kernel**2) ** 0.5
        tensors[f"{bn}.running_mean"] = torch.randn(outputs) / 10
        tensors[f"{bn}.running_var"] = 0.5 + torch.rand(outputs)
        tensors[f"{bn}.weight"] = 0.5 + torch.rand(outputs)
        tensors[f"{bn}.bias"] = torch.randn(outputs) / 10
        tensors[f"{bn}.num_batches_tracked"] = torch.tensor(1000)

    conv_bn("conv1", "bn1", 64, 3, 7)
    inputs = 64
    for layer, (blocks, width) in enumerate(zip((3, 4, 6, 3), (64, 128, 256, 512), strict=True), start=1):
        for block in range(blocks):
            name = f"layer{layer}.{block}"
            if block == 0:
                conv_bn(f"{name}.downsample.0", f"{name}.downsample.1", 4 * width, inputs, 1)
            conv_bn(f"{name}.conv1", f"{name}.bn1", width, inputs, 1)
            conv_bn(f"{name}.conv2", f"{name}.bn2", width, width, 3)
            conv_bn(f"{name}.conv3", f"{name}.bn3", 4 * width, width, 1)
            inputs = 4 * width
    return tensors | {"fc.weight": torch.randn(1000, 2048), "fc.bias": torch.randn(1000)}


def test_a_training_starts_from_a_file_of_torchvision(tmp_path: Path) -> None:
    torch.manual_seed(0)
    tensors = torchvision_file()
    file = tmp_path / "resnet50-0676ba61.pth"
    torch.save(tensors, file)
    network = build_model("fssd128-resnet50", 1).eval()
    assert load_backbone(network, file) == 5 * 53  # weight, scale, shift, mean and variance of each layer
    pixels = torch.randint(0, 256, (2, 3, 64, 64)).float()
    mean, std = (255 * torch.tensor(v)[:, None, None] for v in ((0.485, 0.456, 0.406), (0.229, 0.224, 0.225)))
    with torch.no_grad():
        found = network.backbone((pixels - network.mean) / network.std)
        expected = reference(tensors, (pixels - mean) / std, caffe=False, dilated=False, eps=1e-5)
    for name, x in expected.items():
        assert float((found[name] - x).abs().max()) < 1e-4 * float(x.abs().max()), name


@pytest.mark.parametrize("kind", [Small, SmallDilated])
def test_folding_changes_nothing(kind: type[ResNet]) -> None:
    backbone = started(kind)
    images = torch.rand(2, 3, 96, 96) * 255 - 120
    std = torch.tensor(kind.std)[:, None, None]
    with torch.no_grad():
        before = backbone(images / std)
        rest = backbone.fold(std)
        assert torch.equal(rest, torch.ones_like(std))
        after = backbone(images)
    for name, x in before.items():
        torch.testing.assert_close(after[name], x, rtol=1e-3, atol=1e-3)
    assert not any(isinstance(m, nn.BatchNorm2d) for m in backbone.modules())


def test_epsilon_is_an_option() -> None:
    with torch.device("meta"):
        for options, expected in (({}, 1e-5), ({"bn_eps": 0.01}, 0.01)):
            network = build_model("fssd300-resnet50", 1, **options)
            norms = [m for m in network.backbone.modules() if isinstance(m, nn.BatchNorm2d)]
            assert len(norms) == 53
            assert {norm.eps for norm in norms} == {expected}
        with pytest.raises(ConfigError, match="bn_eps is 0; it must be above 0"):
            build_model("fssd300-resnet50", 1, bn_eps=0)
        with pytest.raises(ConfigError, match="has no option 'bn_eps'"):
            build_model("fssd300-vgg16", 1, bn_eps=1e-3)


def test_frozen_norms_and_stages() -> None:
    network = build_model("fssd128-resnet50", 1)
    stages = network.backbone.stages()
    assert len(stages) == 5
    assert {id(p) for stage in stages for m in stage for p in m.parameters()} == {
        id(p) for p in network.backbone.parameters()
    }
    freeze_stages(network, 2)
    fixed = {name for name, p in network.backbone.named_parameters() if not p.requires_grad}
    assert fixed == {
        n for n, _ in network.backbone.named_parameters() if n.startswith(("conv1", "bn1", "layer1"))
    }
    norms = [m for m in network.backbone.modules() if isinstance(m, nn.BatchNorm2d)]
    training_mode(network, TrainConfig(freeze=2))
    assert [norm.training for norm in norms] == [False] * 11 + [True] * 42
    training_mode(network, TrainConfig(freeze_norm=True))
    assert not any(norm.training for norm in norms)
    statistics = [norm.running_mean.clone() for norm in norms]  # type: ignore[union-attr]
    network(torch.rand(2, 3, 128, 128) * 255)
    assert all(torch.equal(a, norm.running_mean) for a, norm in zip(statistics, norms, strict=True))  # type: ignore[arg-type]


def test_fssd_fuses_strides_8_16_and_32() -> None:
    """Counts of FSSD on ResNet: three 1x1 to 256 channels, the pyramid and heads of VGG16."""
    with torch.device("meta"):
        fifty, hundred = build_model("fssd300-resnet50", 20), build_model("fssd300-resnet101", 20)
    assert parameters(fifty) == 35_580_462
    assert parameters(hundred) == 54_572_590


def test_pretrained_statistics_are_not_swept_away_by_the_first_batch(tmp_path: Path) -> None:
    """A file's statistics are of a whole training, so a batch of zeros takes a thousandth off them."""
    tensors = {key: x for key, x in SmallDilated().state_dict().items() if not key.endswith("tracked")}
    tensors["bn1.running_mean"] = torch.full((64,), 5.0)
    file = tmp_path / "resnet.safetensors"
    safetensors.torch.save_file(tensors, file)
    network = build_model("single300-vgg16", 1, backbone=SmallDilated())
    load_backbone(network, file)
    network.backbone.bn1.train()(torch.zeros(2, 64, 4, 4))
    assert network.backbone.bn1.running_mean.tolist() == pytest.approx([5 * 0.999] * 64)

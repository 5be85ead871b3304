"""Folding: fewer steps, the same numbers, at the border too."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import nn

from fssd.model.build import build_model
from fssd.model.fold import fold
from fssd.model.network import Network


def lived_in(network: Network, signs: bool = False) -> Network:
    """The network with statistics, scales and biases as training leaves them: nothing is 0 or 1.

    signs: scales of normalisations may be negative.
    """
    generator = torch.Generator().manual_seed(3)
    for module in network.modules():
        if isinstance(module, nn.BatchNorm2d):
            assert module.running_mean is not None and module.running_var is not None
            module.running_mean.uniform_(-0.3, 0.3, generator=generator)
            module.running_var.uniform_(0.3, 2, generator=generator)
            if module.affine:
                module.weight.data.uniform_(-1 if signs else 0.5, 1.5, generator=generator)
                module.bias.data.uniform_(-0.5, 0.5, generator=generator)
        elif isinstance(module, nn.Conv2d) and module.bias is not None:
            module.bias.data.uniform_(-0.2, 0.2, generator=generator)
    return network.eval()


def assert_equal(network: Network, images: int = 2) -> Network:
    """The folded network, after seeing that it gives the same offsets and logits for every prior."""
    width, height = network.image_size
    pixels = torch.randint(
        0, 256, (images, 3, height, width), generator=torch.Generator().manual_seed(1)
    ).float()
    folded = fold(network)
    with torch.no_grad():
        before, after = network(pixels), folded(pixels)
    for one, other in zip(before, after, strict=True):
        spread = float(one.std())
        assert spread > 0.01, "else equality says little"
        torch.testing.assert_close(one, other, rtol=0, atol=2e-5 * max(spread, 1))
    return folded


def norms(module: nn.Module) -> list[nn.Module]:
    return [m for m in module.modules() if isinstance(m, nn.BatchNorm2d)]


@pytest.mark.parametrize("name", ["fssd300-lite", "ssd300-lite", "fpn300-lite"])
def test_lite_models_have_no_norm_left(name: str) -> None:
    folded = assert_equal(lived_in(build_model(name, 3)))
    assert norms(folded.neck) == [] and norms(folded.heads) == []
    assert norms(folded.backbone._blocks) == []
    assert norms(folded.backbone._conv_stem) == []
    assert folded.std.flatten().tolist() == [1, 1, 1], "the first convolution divides"


def test_a_mean_and_a_deviation_of_three_numbers() -> None:
    network = lived_in(build_model("ssd300-lite", 3, mean=(123.0, 117.0, 104.0), std=(58.0, 57.0, 56.0)))
    folded = assert_equal(network, images=1)
    assert folded.mean.flatten().tolist() == [123, 117, 104]
    assert folded.std.flatten().tolist() == [1, 1, 1]


@pytest.mark.parametrize(
    "options",
    [
        {"norm": "batch-affine"},
        {"merge": "sum"},
        {"norm": "none"},
        {"pyramid": "with-fused"},
        {"pyramid": "bottleneck"},
        {"sources": ("fine", "coarse")},
    ],
    ids=str,
)
@pytest.mark.parametrize("model", ["fssd300-lite", "fssd300-vgg16"])
def test_forms_of_the_fusion(
    tiny_backbone: Callable[[], nn.Module], model: str, options: dict[str, Any]
) -> None:
    folded = assert_equal(lived_in(build_model(model, 2, backbone=tiny_backbone(), **options)))
    assert norms(folded) == []
    assert (folded.heads.joined is not None) == (model == "fssd300-vgg16")


def test_a_norm_with_negative_scales_stays(tiny_backbone: Callable[[], nn.Module]) -> None:
    network = build_model("fssd300-lite", 2, backbone=tiny_backbone(), norm="batch-affine")
    folded = assert_equal(lived_in(network, signs=True))
    assert len(norms(folded)) == 1


def test_vgg16_with_a_source_that_is_taken_as_it_is() -> None:
    folded = assert_equal(lived_in(build_model("fssd300-vgg16", 1)), images=1)
    assert norms(folded) == []
    assert folded.heads.joined is not None


def test_the_network_itself_is_left_alone(tiny_backbone: Callable[[], nn.Module]) -> None:
    network = lived_in(build_model("fssd300-lite", 2, backbone=tiny_backbone()))
    before = {name: tensor.clone() for name, tensor in network.state_dict().items()}
    fold(network)
    after = network.state_dict()
    assert list(before) == list(after)
    assert all(torch.equal(before[name], after[name]) for name in before)


@pytest.mark.parametrize("name", ["fssd300-lite", "ssd300-vgg16"])
def test_a_head_that_is_folded_stays_as_it_is(tiny_backbone: Callable[[], nn.Module], name: str) -> None:
    network = fold(lived_in(build_model(name, 2, backbone=tiny_backbone())))
    assert_equal(network, images=1)

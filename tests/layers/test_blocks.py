"""The small layers: their order, strides, and what they compute before they learned."""

from __future__ import annotations

import math

import pytest
import torch
from torch import nn

from fssd.layers.blocks import Bottleneck, Chain, ConvReLU, LiteBlock, LiteBottleneck, SeparablePredictor


def kinds(module: nn.Module) -> list[str]:
    return [type(m).__name__ for m in module.modules() if not list(m.children())]


def test_layers_of_the_blocks() -> None:
    assert kinds(ConvReLU(4, 8, 3)) == ["Conv2d", "ReLU"]
    assert kinds(Bottleneck(4, 8, 3)) == ["Conv2d", "ReLU"] * 2
    separable = ["DepthwiseConv2d", "BatchNorm2d", "ReLU6", "Conv2d", "BatchNorm2d"]
    assert kinds(LiteBlock(8, 8, 3, 1, 1).separable) == separable
    assert kinds(LiteBlock(8, 8, 3, 1, 1).shortcut) == ["Sequential"], "nothing in it: the input itself"
    assert kinds(LiteBlock(4, 8, 3, 1, 1).shortcut) == ["Conv2d", "BatchNorm2d"]
    assert kinds(LiteBlock(8, 8, 3, 2, 1).shortcut) == ["AvgPool2d"]
    assert kinds(LiteBlock(4, 8, 3, 1, 0).shortcut) == ["AvgPool2d", "Conv2d", "BatchNorm2d"]
    assert kinds(LiteBottleneck(4, 8, 3))[:7] == ["Conv2d", "ReLU", *separable]
    assert kinds(SeparablePredictor(4, 8)) == ["DepthwiseConv2d", "BatchNorm2d", "ReLU6", "Conv2d"]


@pytest.mark.parametrize(
    ("kernel", "stride", "padding", "size"), [(3, 1, 1, 10), (3, 2, 1, 5), (3, 1, 0, 8), (4, 1, 1, 9)]
)
@pytest.mark.parametrize("block", [ConvReLU, Bottleneck, LiteBlock, LiteBottleneck])
def test_stride_and_padding_are_applied_once(
    block: type[nn.Module], kernel: int, stride: int, padding: int, size: int
) -> None:
    out = block(4, 6, kernel, stride, padding).eval()(torch.randn(1, 4, 10, 10))
    assert out.shape == (1, 6, size, size)
    assert out.min() >= 0


def test_light_block_keeps_channels_apart_until_the_1x1() -> None:
    block = LiteBlock(4, 6, 3, 1, 1)
    shapes = [tuple(c.weight.shape) for c in block.separable if isinstance(c, nn.Conv2d)]
    assert shapes == [(4, 1, 3, 3), (6, 4, 1, 1)]
    assert all(c.bias is None for c in block.modules() if isinstance(c, nn.Conv2d))


def test_light_block_starts_as_the_average_of_its_window() -> None:
    x = torch.arange(16.0).reshape(1, 1, 4, 4) / 4
    same = LiteBlock(1, 1, 3, 1, 1).eval()(x).detach()
    assert torch.equal(same, x)
    halved = LiteBlock(1, 1, 3, 2, 1).eval()(x).detach()
    # Windows around the pixels (0, 0), (0, 2), (2, 0), (2, 2), cut to the map: 2x2, 2x3, 3x2 and 3x3 values.
    assert halved.flatten() * 4 == pytest.approx([2.5, 4.0, 8.5, 10.0])
    inner = LiteBlock(1, 1, 3, 1, 0).eval()(x).detach()
    assert inner.flatten() * 4 == pytest.approx([5.0, 6.0, 9.0, 10.0])


def test_light_block_adds_its_convolution_and_cuts_at_six() -> None:
    block = LiteBlock(1, 1, 1).eval()
    nn.init.ones_(block.separable[0].weight)
    nn.init.ones_(block.separable[3].weight)
    nn.init.constant_(block.separable[4].weight, 2.0)
    scale = 1 / math.sqrt(1 + 1e-3)  # of a norm with fresh statistics
    out = block(torch.tensor([1.0, -1.0, 5.0]).reshape(1, 1, 1, 3)).flatten()
    assert out.tolist() == pytest.approx([1 + 2 * scale * scale, 0.0, 6.0])


def test_predictor_can_be_negative() -> None:
    torch.manual_seed(0)
    assert SeparablePredictor(4, 8).eval()(torch.randn(1, 4, 5, 5)).min() < 0


def test_chain_gives_every_output() -> None:
    class Add(nn.Module):
        def __init__(self, number: float) -> None:
            super().__init__()
            self.number = number

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return x * 10 + self.number

    found = Chain({"b": Add(1), "a": Add(2), "c": Add(3)})(torch.zeros(1))
    assert {name: x.item() for name, x in found.items()} == {"b": 1, "a": 12, "c": 123}

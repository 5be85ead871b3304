"""Values that convolutions start from."""

from __future__ import annotations

import math

import pytest
import torch
from torch import nn

from fssd.layers.first_weights import xavier


def test_xavier_is_uniform_within_its_bound() -> None:
    torch.manual_seed(0)
    layers = nn.Sequential(
        nn.Conv2d(16, 64, 3), nn.Sequential(nn.Conv2d(64, 64, 3, groups=64)), nn.Conv2d(64, 30, 1, bias=False)
    )
    xavier(layers)
    for layer, fan_in in ((layers[0], 16 * 9), (layers[1][0], 9), (layers[2], 64)):
        bound = math.sqrt(3 / fan_in)
        largest = layer.weight.abs().max().item()
        assert 0.95 * bound < largest <= bound
        # of a uniform variable: standard deviation bound / sqrt(3), here 1 / sqrt(fan_in)
        assert layer.weight.std().item() == pytest.approx(1 / math.sqrt(fan_in), rel=0.08)
        assert abs(layer.weight.mean().item()) < 0.2 * bound
        assert layer.bias is None or layer.bias.eq(0).all()


def test_xavier_leaves_other_layers_alone() -> None:
    norm = nn.BatchNorm2d(3)
    with torch.no_grad():
        norm.weight.fill_(7)
    xavier(nn.Sequential(norm))
    assert norm.weight.tolist() == [7, 7, 7]

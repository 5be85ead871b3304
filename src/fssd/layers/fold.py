"""Folding: what is fixed after training goes into the convolutions.

Exact algebra, also at the border of a map.

A batch norm after a convolution is a scale and a shift of its weights and bias.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn


class Floor(nn.Module):
    """No value of a channel below that channel's own floor, (C,)."""

    floor: Tensor

    def __init__(self, floor: Tensor) -> None:
        super().__init__()
        self.register_buffer("floor", floor[:, None, None])

    def forward(self, x: Tensor) -> Tensor:
        return torch.maximum(x, self.floor)


class Affine(nn.Module):
    """x * scale + shift, both (C,)."""

    scale: Tensor
    shift: Tensor

    def __init__(self, scale: Tensor, shift: Tensor) -> None:
        super().__init__()
        self.register_buffer("scale", scale[:, None, None])
        self.register_buffer("shift", shift[:, None, None])

    def forward(self, x: Tensor) -> Tensor:
        return x * self.scale + self.shift


def fold_sequences(module: nn.Module) -> None:
    """Fold each batch norm that directly follows a convolution in an `nn.Sequential`, in place."""
    for sequence in [m for m in module.modules() if isinstance(m, nn.Sequential)]:
        for index in range(len(sequence) - 1):
            conv, norm = sequence[index], sequence[index + 1]
            if isinstance(conv, nn.Conv2d) and isinstance(norm, nn.BatchNorm2d):
                set_fixed(conv, *normalised(conv, norm))
                sequence[index + 1] = nn.Identity()


def scale_and_shift(norm: nn.BatchNorm2d) -> tuple[Tensor, Tensor]:
    """What a batch norm with fixed statistics multiplies channels by and adds to them, (C,) float64 each."""
    assert norm.running_mean is not None and norm.running_var is not None  # every norm here keeps them
    scale = torch.rsqrt(norm.running_var.double() + norm.eps)
    if norm.affine:
        scale = scale * norm.weight.double()
    shift = -norm.running_mean.double() * scale
    return scale, shift + norm.bias.double() if norm.affine else shift


def normalised(conv: nn.Conv2d, norm: nn.BatchNorm2d) -> tuple[Tensor, Tensor]:
    """Weight and bias of the convolution that equals `norm` of `conv`."""
    return rescaled(conv, *scale_and_shift(norm))


def rescaled(conv: nn.Conv2d, scale: Tensor, shift: Tensor) -> tuple[Tensor, Tensor]:
    """Weight and bias of the convolution that equals `conv` * scale + shift, both (C,) float64."""
    weight = conv.weight.double() * scale[:, None, None, None]
    bias = shift if conv.bias is None else shift + conv.bias.double() * scale
    return weight.float(), bias.float()


def set_fixed(conv: nn.Conv2d, weight: Tensor, bias: Tensor) -> None:
    """Give a convolution a weight and bias that no longer learn."""
    conv.weight = nn.Parameter(weight, requires_grad=False)
    conv.bias = nn.Parameter(bias, requires_grad=False)

"""DSOD's unit, batch norm -> ReLU -> convolution, and the dense layer of two of them (Shen et al. 2017)."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from fssd.layers.norms import CaffeBatchNorm


def pre_activation(inputs: int, outputs: int, kernel: int = 1, stride: int = 1) -> list[nn.Module]:
    """Batch norm, ReLU, and a convolution without bias that keeps the size of the map at stride 1.

    A list, so that several units can share one `nn.Sequential`: a norm that directly follows a convolution in
    one can be folded.
    """
    return [
        CaffeBatchNorm(inputs, affine=True),
        nn.ReLU(inplace=True),
        nn.Conv2d(inputs, outputs, kernel, stride, padding=kernel // 2, bias=False),
    ]


class GrowingLayer(nn.Sequential):
    """1x1 to `bottleneck` channels, 3x3 to `growth`; the output is the input with these appended."""

    def __init__(self, inputs: int, bottleneck: int, growth: int) -> None:
        super().__init__(*pre_activation(inputs, bottleneck), *pre_activation(bottleneck, growth, 3))

    def forward(self, x: Tensor) -> Tensor:
        grown = x
        for layer in self:
            grown = layer(grown)
        return torch.cat((x, grown), dim=1)


def growing_block(layers: int, inputs: int, bottleneck: int, growth: int) -> nn.Sequential:
    """A dense block: (B, inputs, H, W) to (B, inputs + layers * growth, H, W)."""
    return nn.Sequential(
        *(GrowingLayer(inputs + index * growth, bottleneck, growth) for index in range(layers))
    )

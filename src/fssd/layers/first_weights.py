"""The values that convolutions start from: Caffe's Xavier rule and darknet's."""

from __future__ import annotations

import math
from typing import cast

from torch import nn

from fssd.layers.blocks import ConvNorm, GaussianConv2d


def xavier(module: nn.Module) -> None:
    """Start every convolution in `module` by Caffe's Xavier rule: U(+-sqrt(3 / fan_in)), biases 0.

    For a deconvolution Caffe's fan_in counts its outputs, the second axis of the weight. Convolutions of a
    `ConvNorm` start with a Gaussian of standard deviation 0.01, as in the code of DSSD.
    """
    for conv in (m for m in module.modules() if isinstance(m, (nn.Conv2d, nn.ConvTranspose2d))):
        if isinstance(conv, GaussianConv2d):
            continue
        bound = math.sqrt(3 / (conv.weight[0].numel()))
        nn.init.uniform_(conv.weight, -bound, bound)
        if conv.bias is not None:
            nn.init.zeros_(conv.bias)
    for block in (m for m in module.modules() if isinstance(m, ConvNorm)):
        nn.init.normal_(cast("nn.Conv2d", block[0]).weight, std=0.01)


def he(module: nn.Module) -> None:
    """Start every convolution in `module` by darknet's rule: N(0, sqrt(2 / fan_in)), biases 0."""
    for conv in (m for m in module.modules() if isinstance(m, nn.Conv2d)):
        nn.init.normal_(conv.weight, std=math.sqrt(2 / conv.weight[0].numel()))
        if conv.bias is not None:
            nn.init.zeros_(conv.bias)

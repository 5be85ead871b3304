"""The layers that the systems are made of, and their light forms."""

from __future__ import annotations

import torch.nn.functional as F
from torch import Tensor, nn

from fssd.layers.depthwise import DepthwiseConv2d
from fssd.layers.norms import CaffeBatchNorm, light_norm


class ConvReLU(nn.Sequential):
    """Convolution with bias, then ReLU: the paper's "simple block" where it down-samples."""

    def __init__(self, inputs: int, outputs: int, kernel: int, stride: int = 1, padding: int = 0) -> None:
        super().__init__(nn.Conv2d(inputs, outputs, kernel, stride, padding), nn.ReLU(inplace=True))


class ConvNormLeaky(nn.Sequential):
    """Darknet's layer: a convolution that keeps the size of the map, batch norm, leaky ReLU of slope 0.1."""

    def __init__(self, inputs: int, outputs: int, kernel: int) -> None:
        super().__init__(
            nn.Conv2d(inputs, outputs, kernel, padding=kernel // 2, bias=False),
            nn.BatchNorm2d(outputs, eps=1e-5, momentum=0.01),
            nn.LeakyReLU(0.1, inplace=True),
        )


class Bottleneck(nn.Sequential):
    """1x1 to half the output width + ReLU, then the simple block: paper, Fig. 3 (c), as SSD's own extras.

    The width of the 1x1 is not in the paper nor in the authors' code; half the output is SSD's habit.
    """

    def __init__(self, inputs: int, outputs: int, kernel: int, stride: int = 1, padding: int = 0) -> None:
        super().__init__(
            ConvReLU(inputs, outputs // 2, 1), ConvReLU(outputs // 2, outputs, kernel, stride, padding)
        )


class ConvNorm(nn.Sequential):
    """Convolution without bias, batch norm, and ReLU unless `relu` is False: the layer of DSSD.

    kernel, stride: of both directions, or vertical and horizontal. Epsilon and fraction are those of Caffe's
    ConvBNLayer; so is the start of the weights, see `xavier`.
    """

    def __init__(
        self,
        inputs: int,
        outputs: int,
        kernel: int | tuple[int, int],
        stride: int | tuple[int, int] = 1,
        padding: int = 0,
        relu: bool = True,
    ) -> None:
        super().__init__(
            nn.Conv2d(inputs, outputs, kernel, stride, padding, bias=False),
            CaffeBatchNorm(outputs, fraction=0.999, affine=True, eps=1e-3),
        )
        if relu:
            self.append(nn.ReLU(inplace=True))


class LiteBlock(nn.Module):
    """The light form of the simple block: a separable convolution, added to a pooled copy of its input.

    Depthwise convolution and 1x1, each with batch norm, ReLU6 between them and after the sum. The copy is
    averaged over the same windows where the block shrinks the map, and goes through a 1x1 with batch norm
    where the width changes. The shortcut is ours: a chain of fresh separable layers alone learns slowly, and
    with it the coarse levels see the pretrained features from the first step. The last norm of the
    convolution starts at 0, so that the chain starts as averages of the fused map.
    """

    def __init__(self, inputs: int, outputs: int, kernel: int, stride: int = 1, padding: int = 0) -> None:
        super().__init__()
        last = light_norm(outputs)
        nn.init.zeros_(last.weight)
        self.separable = nn.Sequential(
            DepthwiseConv2d(inputs, kernel, stride, padding),
            light_norm(inputs),
            nn.ReLU6(inplace=True),
            nn.Conv2d(inputs, outputs, 1, bias=False),
            last,
        )
        self.shortcut = nn.Sequential()
        if stride > 1 or 2 * padding != kernel - 1:
            self.shortcut.append(nn.AvgPool2d(kernel, stride, padding, count_include_pad=False))
        if inputs != outputs:
            self.shortcut.append(nn.Conv2d(inputs, outputs, 1, bias=False))
            self.shortcut.append(light_norm(outputs))

    def forward(self, x: Tensor) -> Tensor:
        return F.relu6(self.separable(x) + self.shortcut(x))


class LiteBottleneck(nn.Sequential):
    """The light form of `Bottleneck`: 1x1 to half the width, then the light block."""

    def __init__(self, inputs: int, outputs: int, kernel: int, stride: int = 1, padding: int = 0) -> None:
        super().__init__(
            ConvReLU(inputs, outputs // 2, 1), LiteBlock(outputs // 2, outputs, kernel, stride, padding)
        )


class SeparablePredictor(nn.Sequential):
    """SSDLite's head: depthwise 3x3 with batch norm and ReLU6, then a 1x1 that predicts."""

    def __init__(self, inputs: int, outputs: int) -> None:
        super().__init__(
            DepthwiseConv2d(inputs, 3, padding=1),
            light_norm(inputs),
            nn.ReLU6(inplace=True),
            nn.Conv2d(inputs, outputs, 1),
        )


class GaussianConv2d(nn.Conv2d):
    """A convolution without bias that starts from N(0, 0.01^2), which `xavier` leaves alone."""

    def __init__(self, inputs: int, outputs: int, kernel: int, stride: int = 1, padding: int = 0) -> None:
        super().__init__(inputs, outputs, kernel, stride, padding, bias=False)

    def reset_parameters(self) -> None:
        nn.init.normal_(self.weight, std=0.01)


class NormedPredictor(nn.Sequential):
    """DSOD's head: a 3x3 convolution without bias, then batch norm with scale and shift, no activation."""

    def __init__(self, inputs: int, outputs: int) -> None:
        super().__init__(
            GaussianConv2d(inputs, outputs, 3, padding=1), CaffeBatchNorm(outputs, affine=True, eps=1e-3)
        )


class Chain(nn.ModuleDict):
    """Named layers, each reading the one before; gives every layer's output by name."""

    def forward(self, x: Tensor) -> dict[str, Tensor]:
        features: dict[str, Tensor] = {}
        for name, layer in self.items():
            x = features[name] = layer(x)
        return features

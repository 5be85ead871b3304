"""The few layers that SSD and FSSD are made of, and Caffe's Xavier rule that starts them."""

from __future__ import annotations

import math
from typing import Any, cast

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from fssd.layers.depthwise import DepthwiseConv2d


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
        last = nn.BatchNorm2d(outputs, eps=1e-3, momentum=0.03)
        nn.init.zeros_(last.weight)
        self.separable = nn.Sequential(
            DepthwiseConv2d(inputs, kernel, stride, padding),
            nn.BatchNorm2d(inputs, eps=1e-3, momentum=0.03),
            nn.ReLU6(inplace=True),
            nn.Conv2d(inputs, outputs, 1, bias=False),
            last,
        )
        self.shortcut = nn.Sequential()
        if stride > 1 or 2 * padding != kernel - 1:
            self.shortcut.append(nn.AvgPool2d(kernel, stride, padding, count_include_pad=False))
        if inputs != outputs:
            self.shortcut.append(nn.Conv2d(inputs, outputs, 1, bias=False))
            self.shortcut.append(nn.BatchNorm2d(outputs, eps=1e-3, momentum=0.03))

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
            nn.BatchNorm2d(inputs, eps=1e-3, momentum=0.03),
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


class L2Norm(nn.Module):
    """Each pixel's channel vector to unit length, times a learned scale per channel (SSD conv4_3).

    It computes in float32 or more, whatever comes in: in float16 the square of 256 is already infinite.
    """

    def __init__(self, channels: int, scale: float = 20.0) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.full((channels,), scale))

    def forward(self, x: Tensor) -> Tensor:
        # The 1e-10 inside the root is Caffe's; it keeps the gradient finite on an all-zero pixel.
        exact = x.to(torch.promote_types(x.dtype, torch.float32))
        length = torch.sqrt(exact.square().sum(dim=1, keepdim=True) + 1e-10)
        normed = exact / length * self.weight[:, None, None]
        return normed.to(torch.promote_types(x.dtype, self.weight.dtype))


class ResponseNorm(nn.LocalResponseNorm):
    """AlexNet's local response norm, computed in float32 or more; the result has the type of the input."""

    def forward(self, x: Tensor) -> Tensor:
        return super().forward(x.to(torch.promote_types(x.dtype, torch.float32))).to(x.dtype)


class CaffeBatchNorm(nn.BatchNorm2d):
    """Batch normalisation whose running statistics are Caffe's bias-corrected moving sums.

    Caffe divides its sums by a counter that decays with them, so after t steps the newest batch weighs
    (1 - f) / (1 - f^t): the early statistics are a plain mean of the batches seen, not a mixture with
    the initial 0 and 1. `fraction` is f, Caffe's moving_average_fraction.
    """

    def __init__(
        self, channels: int, fraction: float = 0.999, affine: bool = False, eps: float = 1e-5
    ) -> None:
        super().__init__(channels, eps=eps, momentum=1 - fraction, affine=affine)
        self.fraction = fraction
        self._steps: int | None = None  # mirrors num_batches_tracked; None until that has been read

    def forward(self, x: Tensor) -> Tensor:
        if self.training:
            self.momentum = (1 - self.fraction) / (1 - self.fraction ** self._next_step())
        return self.normalise(x)

    def normalise(self, x: Tensor) -> Tensor:
        """As `nn.BatchNorm2d` with the momentum of this step."""
        return super().forward(x)

    def _next_step(self) -> int:
        # Counted here too, because reading a counter that lies on a GPU would wait for the GPU at every step.
        if self._steps is None:
            self._steps = 0 if self.num_batches_tracked is None else int(self.num_batches_tracked)
        self._steps += 1
        return self._steps

    def _load_from_state_dict(self, *args: Any, **kwargs: Any) -> None:
        super()._load_from_state_dict(*args, **kwargs)
        self._steps = None


def resize_bilinear(x: Tensor, size: tuple[int, int], align_corners: bool = True) -> Tensor:
    """(B, C, H, W) to (B, C, *size), size in (rows, columns).

    align_corners: corner pixels stay in place, as in Caffe's Interp layer; PyTorch's default is False.
    """
    return F.interpolate(x, size=size, mode="bilinear", align_corners=align_corners)


def he(module: nn.Module) -> None:
    """Start every convolution in `module` by darknet's rule: N(0, sqrt(2 / fan_in)), biases 0."""
    for conv in (m for m in module.modules() if isinstance(m, nn.Conv2d)):
        nn.init.normal_(conv.weight, std=math.sqrt(2 / conv.weight[0].numel()))
        if conv.bias is not None:
            nn.init.zeros_(conv.bias)


def resize_asymmetric(x: Tensor, size: tuple[int, int]) -> Tensor:
    """(B, C, H, W) to (B, C, *size), size in (rows, columns), linearly, as TensorFlow 1 does by default.

    The first pixel stays in place: source = target * in / out, and nothing lies beyond the last source pixel.
    """
    for dim, cells in zip((2, 3), size, strict=True):
        last = x.shape[dim] - 1
        place = torch.arange(cells, device=x.device) * (x.shape[dim] / cells)
        low = place.floor().long().clamp(max=last)
        share = (place - low).to(x.dtype).reshape([-1, 1] if dim == 2 else [-1])
        following = (low + 1).clamp(max=last)
        x = x.index_select(dim, low) * (1 - share) + x.index_select(dim, following) * share
    return x


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


def enlarging_window(coarse: int, fine: int) -> tuple[int, int, int]:
    """Kernel, stride and padding of a deconvolution from `coarse` cells to `fine`, every one of them reached.

    (coarse - 1) * stride + kernel - 2 * padding cells come out of it.
    """
    stride = max(1, round(fine / coarse))
    least = fine - (coarse - 1) * stride  # the kernel without padding
    padding = max(0, -(-(stride - least) // 2))
    return least + 2 * padding, stride, padding

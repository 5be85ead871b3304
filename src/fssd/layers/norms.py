"""The norms of the systems: Caffe's batch norm, that of the light layers, and two that look at one pixel."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn


def light_norm(channels: int) -> nn.BatchNorm2d:
    """Batch norm of EfficientNet-lite and the light layers.

    Its original momentum, 0.01, averages over more steps than a short fine-tuning has.
    """
    return nn.BatchNorm2d(channels, eps=1e-3, momentum=0.03)


class L2Norm(nn.Module):
    """Each pixel's channel vector to unit length, times a learned scale per channel (SSD conv4_3).

    It computes in float32 or more, whatever comes in: in float16 the square of 256 is already infinite.
    """

    def __init__(self, channels: int, scale: float = 20.0) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.full((channels,), scale))

    def forward(self, x: Tensor) -> Tensor:
        # The 1e-10 inside the root is Caffe's; it keeps the gradient finite on an all-zero pixel. The sum is
        # in larger units, because the optimizer of exported graphs drops what is added below 1e-8, and such
        # a pixel would be 0 / 0. Powers of two change no bit of the result.
        exact = x.to(torch.promote_types(x.dtype, torch.float32))
        squared = exact.square().sum(dim=1, keepdim=True)
        length = torch.sqrt(squared * 2**20 + 1e-10 * 2**20) / 2**10
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

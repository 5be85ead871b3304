"""Depthwise convolution whose gradients are computed by the operators that are fast on a CPU.

oneDNN has fast kernels only for weight gradients of up to three columns, and in bfloat16 none for the input
gradient at a stride. What it falls back to takes up to 60 times as long as the forward pass. Both gradients
are convolutions themselves, so they are made of those that are fast: the same sums, in another order.
"""

from __future__ import annotations

from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.autograd.function import once_differentiable

FAST_COLUMNS = 3  # the widest kernel that oneDNN has a fast weight gradient for

Pair = tuple[int, int]  # vertical, horizontal


class DepthwiseConv2d(nn.Conv2d):
    """A convolution of each channel by its own kernel; it has a bias only once a norm was folded into it."""

    def __init__(self, channels: int, kernel: int, stride: int = 1, padding: int = 0) -> None:
        super().__init__(channels, channels, kernel, stride, padding, groups=channels, bias=False)

    def forward(self, x: Tensor) -> Tensor:
        assert not isinstance(self.padding, str)
        padding = self.padding[0], self.padding[1]
        return depthwise(x, self.weight, self.bias, (self.stride[0], self.stride[1]), padding)


def depthwise(x: Tensor, weight: Tensor, bias: Tensor | None, stride: Pair, padding: Pair) -> Tensor:
    """x (B, C, H, W), weight (C, 1, h, w), bias (C,) to what `F.conv2d` gives with C groups."""
    learns = torch.is_grad_enabled() and (x.requires_grad or weight.requires_grad)
    if not learns or x.device.type != "cpu":
        return F.conv2d(x, weight, bias, stride, padding, 1, len(weight))
    if torch.is_autocast_enabled("cpu"):  # which casts the inputs of torch's own operators alone
        dtype = torch.get_autocast_dtype("cpu")
        x, weight = x.to(dtype), weight.to(dtype)
        bias = None if bias is None else bias.to(dtype)
    convolved: Tensor = _Depthwise.apply(x, weight, bias, stride, padding)  # type: ignore[no-untyped-call]
    return convolved


class _Depthwise(torch.autograd.Function):
    @staticmethod
    def forward(
        ctx: Any, x: Tensor, weight: Tensor, bias: Tensor | None, stride: Pair, padding: Pair
    ) -> Tensor:
        ctx.save_for_backward(x, weight)
        ctx.stride, ctx.padding = stride, padding
        return F.conv2d(x, weight, bias, stride, padding, 1, len(weight))

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor | None, ...]:
        x, weight = ctx.saved_tensors
        needs_x, needs_weight, needs_bias = ctx.needs_input_grad[:3]
        sides = ctx.stride, ctx.padding
        return (
            input_gradient(gradient, x, weight, *sides) if needs_x else None,
            weight_gradient(gradient, x, weight, *sides) if needs_weight else None,
            gradient.sum(dim=(0, 2, 3)) if needs_bias else None,
            None,
            None,
        )


def input_gradient(gradient: Tensor, x: Tensor, weight: Tensor, stride: Pair, padding: Pair) -> Tensor:
    """(B, C, H, W), from the gradient of the output. In bfloat16 a convolution by the kernel turned around.

    With a stride the gradient is spread first, zeros between its cells.
    """
    rows, columns = weight.shape[2:]
    outer = rows - 1 - padding[0], columns - 1 - padding[1]
    if gradient.dtype != torch.bfloat16 or min(outer) < 0:
        return _native(gradient, x, weight, stride, padding, [True, False])[0]
    if stride != (1, 1):
        batch, channels, height, width = x.shape
        size = height + rows - 1 - 2 * outer[0], width + columns - 1 - 2 * outer[1]
        spread = gradient.new_zeros(batch, *size, channels).permute(0, 3, 1, 2)  # channels last
        last = [stride[axis] * (gradient.shape[axis - 2] - 1) for axis in (0, 1)]
        spread[..., : last[0] + 1 : stride[0], : last[1] + 1 : stride[1]] = gradient
        gradient = spread
    return F.conv2d(gradient, weight.flip(2, 3), None, 1, outer, 1, len(weight))


def weight_gradient(gradient: Tensor, x: Tensor, weight: Tensor, stride: Pair, padding: Pair) -> Tensor:
    """(C, 1, h, w), from the gradient of the output; a few columns at a time where the kernel is wide."""
    columns = weight.shape[-1]
    # In float32 with a stride the slow kernel is no slower than two passes of the fast one.
    if columns <= FAST_COLUMNS or (gradient.dtype != torch.bfloat16 and stride != (1, 1)):
        return _native(gradient, x, weight, stride, padding, [False, True])[1]
    parts = []
    for first in range(0, columns, FAST_COLUMNS):
        part = weight[..., first : first + FAST_COLUMNS].contiguous()
        left = padding[1] - first
        right = (gradient.shape[-1] - 1) * stride[1] + part.shape[-1] - left - x.shape[-1]
        seen = F.pad(x, (left, right))  # negative padding crops
        parts.append(_native(gradient, seen, part, stride, (padding[0], 0), [False, True])[1])
    return torch.cat(parts, dim=-1)


def _native(
    gradient: Tensor, x: Tensor, weight: Tensor, stride: Pair, padding: Pair, wanted: list[bool]
) -> tuple[Tensor, Tensor, Tensor]:
    made: tuple[Tensor, Tensor, Tensor] = torch.ops.aten.convolution_backward(
        gradient, x, weight, None, stride, padding, (1, 1), False, (0, 0), len(weight), [*wanted, False]
    )
    return made

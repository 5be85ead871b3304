"""Maps made larger: linear resizing as Caffe and TensorFlow do it, and the window of a deconvolution."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor


def resize_bilinear(x: Tensor, size: tuple[int, int], align_corners: bool = True) -> Tensor:
    """(B, C, H, W) to (B, C, *size), size in (rows, columns).

    align_corners: corner pixels stay in place, as in Caffe's Interp layer; PyTorch's default is False.
    """
    return F.interpolate(x, size=size, mode="bilinear", align_corners=align_corners)


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


def enlarging_window(coarse: int, fine: int) -> tuple[int, int, int]:
    """Kernel, stride and padding of a deconvolution from `coarse` cells to `fine`, every one of them reached.

    (coarse - 1) * stride + kernel - 2 * padding cells come out of it.
    """
    stride = max(1, round(fine / coarse))
    least = fine - (coarse - 1) * stride  # the kernel without padding
    padding = max(0, -(-(stride - least) // 2))
    return least + 2 * padding, stride, padding

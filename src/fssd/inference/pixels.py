"""Arrays and tensors as images: (H, W, 3) uint8 RGB, or the sentence that says why not.

Arrays have the channels last and tensors first, as numpy's and PyTorch's users keep images.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from fssd.data.sample import Image
from fssd.errors import ImageError

Pixels = npt.NDArray[Any]
CHANNELS = (1, 3, 4)  # grey, RGB, RGBA


def is_batch(images: Any) -> bool:
    """Whether this is an array or a tensor of several images."""
    return isinstance(images, (np.ndarray, Tensor)) and images.ndim == 4


def from_array(values: Pixels) -> Image:
    """(H, W), (H, W, 1), (H, W, 3) or (H, W, 4) of uint8, uint16 or floats in 0..1.

    Grey becomes RGB; transparent pixels are blended with white; 16 bits keep the upper 8. Raises ImageError.
    """
    if values.dtype == np.uint8 and values.ndim == 3 and values.shape[2] == 3 and values.size:
        return np.array(values, np.uint8)  # a copy: the caller may write the next image into this array
    what = f"an array {values.shape} {values.dtype}"
    if values.ndim == 3 and values.shape[2] not in CHANNELS and values.shape[0] in CHANNELS:
        raise ImageError(f"{what} has its channels first; give array.transpose(1, 2, 0)")
    if (
        values.ndim not in (2, 3)
        or values.size == 0
        or (values.ndim == 3 and values.shape[2] not in CHANNELS)
    ):
        raise ImageError(f"{what} is no image; give (H, W), (H, W, 3) or (H, W, 4)")
    return _rgb(_eight_bits(values if values.ndim == 3 else values[:, :, None], what))


def from_tensor(values: Tensor) -> Image:
    """(H, W), (1, H, W), (3, H, W) or (4, H, W) of uint8, uint16 or floats in 0..1, on any device; as
    `from_array`. Raises ImageError."""
    what = f"a tensor {tuple(values.shape)} {str(values.dtype).removeprefix('torch.')}"
    if values.ndim == 3:
        first, last = values.shape[0] in CHANNELS, values.shape[2] in CHANNELS
        if first and last:
            raise ImageError(
                f"{what} may have its channels first or last; give tensor.numpy(), channels last"
            )
        if last:
            raise ImageError(f"{what} has its channels last; give tensor.permute(2, 0, 1)")
    if values.ndim not in (2, 3) or values.numel() == 0 or (values.ndim == 3 and not first):
        raise ImageError(f"{what} is no image; give (H, W), (3, H, W) or (4, H, W)")
    if values.layout != torch.strided or values.is_quantized:
        raise ImageError(f"{what} is sparse or quantised; give tensor.to_dense() or tensor.dequantize()")
    if values.is_meta:
        raise ImageError(f"{what} is on the device meta, which holds no values; give a tensor with values")
    plain = values.detach().cpu().resolve_conj().resolve_neg()
    small = plain.is_floating_point() and plain.dtype.itemsize < 4  # numpy does not know them all
    array = (plain.float() if small else plain).numpy()
    return _rgb(_eight_bits(array[:, :, None] if array.ndim == 2 else array.transpose(1, 2, 0), what))


def images_of_batch(batch: Pixels | Tensor) -> list[Pixels] | list[Tensor]:
    """The images of (N, H, W, C) or, as a tensor, (B, C, H, W), not converted. Raises ImageError."""
    is_tensor = isinstance(batch, Tensor)
    first, last = batch.shape[1] in CHANNELS, batch.shape[3] in CHANNELS
    if (first if is_tensor else last) and not (is_tensor and last):
        return list(batch)
    what = f"{'a tensor' if is_tensor else 'an array'} {tuple(batch.shape)}"
    if is_tensor and first and last:
        raise ImageError(f"{what} may have its channels first or last; give tensor.numpy(), channels last")
    if first or last:
        turn = "tensor.permute(0, 3, 1, 2)" if is_tensor else "array.transpose(0, 2, 3, 1)"
        raise ImageError(f"{what} has its channels {'last' if is_tensor else 'first'}; give {turn}")
    raise ImageError(f"{what} is no batch of images; give {'(B, 3, H, W)' if is_tensor else '(N, H, W, 3)'}")


def _eight_bits(values: Pixels, what: str) -> Image:
    """(H, W, C) of any kind as uint8."""
    if values.dtype == np.uint8:
        return values
    if values.dtype.kind not in "fu" or values.dtype.itemsize > 8 or values.dtype in (np.uint32, np.uint64):
        raise ImageError(f"{what} is not uint8, uint16 or float; give pixels of 0 to 255 as uint8")
    least, most = values.min(), values.max()
    spread = f"{what} with values from {least:g} to {most:g}"
    if values.dtype == np.uint16:
        if 0 < most <= 255:
            advice = "give array.astype(uint8), or scale to 0..65535"
            raise ImageError(f"{spread} may be of 8 bits or a dark one of 16; {advice}")
        return np.asarray(values >> 8, np.uint8)
    if not (least >= 0 and most <= 1):  # nan fails too
        advice = "give the pixels before they were normalised, or divide by 255"
        raise ImageError(f"{spread} is no image of floats, which lie between 0 and 1; {advice}")
    return np.asarray(np.rint(values.astype(np.float64) * 255), np.uint8)


def _rgb(values: Image) -> Image:
    """(H, W, 1, 3 or 4) uint8 as (H, W, 3)."""
    if values.shape[2] == 4:
        colour, alpha = values[:, :, :3].astype(np.int64), values[:, :, 3:].astype(np.int64)
        return np.asarray((colour * alpha + 255 * (255 - alpha) + 127) // 255, np.uint8)
    return np.ascontiguousarray(values) if values.shape[2] == 3 else np.repeat(values, 3, axis=2)

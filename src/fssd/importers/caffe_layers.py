"""The layers of a .caffemodel, taken one by one: shapes are checked, and what was not taken is known."""

from __future__ import annotations

import math
from difflib import get_close_matches
from pathlib import Path

import torch
from torch import Tensor, nn

from fssd.errors import CheckpointError
from fssd.importers.foreign import ForeignFile
from fssd.layers.norms import CaffeBatchNorm


class CaffeLayers(ForeignFile):
    """The layers of a file, and which of them were taken.

    expected: names of the network's own layers; a "nearest name" hint must not offer one of them.
    """

    def __init__(self, file: Path, blobs: dict[str, list[Tensor]], colours: str) -> None:
        super().__init__(file)
        self.blobs = blobs
        self.colours = colours
        self.taken: set[str] = set()
        self.expected: set[str] = set()

    def take(self, layer: str, *shapes: tuple[int, ...]) -> list[Tensor]:
        """The blobs of a layer, which must have these shapes and finite values. Raises CheckpointError."""
        shown = " and ".join(map(str, shapes))
        if layer not in self.blobs:
            raise self._missing(layer, f"expected with blobs of shape {shown}")
        blobs = self.blobs[layer]
        found = [tuple(blob.shape) for blob in blobs]
        if found != list(shapes):
            own = " and ".join(map(str, found))
            raise self.error(
                f"layer {layer!r} has blobs of shape {own}, expected {shown}; it is another network"
            )
        if not all(torch.stack(blob.aminmax()).isfinite().all() for blob in blobs):  # aminmax keeps NaN
            raise self.error(f"layer {layer!r} has numbers that are not finite; its training diverged")
        self.taken.add(layer)
        return blobs

    def take_norm(self, norm: CaffeBatchNorm, sums: str, scale: str | None) -> dict[str, Tensor]:
        """The tensors of a batch norm by the names of its state dict. sums, scale: its layers in the file.

        Raises CheckpointError.
        """
        channels = norm.num_features
        mean, variance, counter = self.take(sums, (channels,), (channels,), (1,))
        tensors = statistics(mean, variance, counter, norm)
        if scale is not None:
            tensors["weight"], tensors["bias"] = self.take(scale, (channels,), (channels,))
        return tensors

    def outputs(self, layer: str) -> int:
        """Output channels of a convolution. Raises CheckpointError if there is no such layer."""
        if layer not in self.blobs:
            raise self._missing(layer, "which this network predicts with")
        shape = self.blobs[layer][0].shape
        return int(shape[0]) if shape else 0

    def unused(self) -> tuple[str, ...]:
        """The layers that were not taken, in the file's order."""
        return tuple(layer for layer in self.blobs if layer not in self.taken)

    def _missing(self, layer: str, what: str) -> CheckpointError:
        others = [name for name in self.blobs if name not in self.expected]
        near = get_close_matches(layer, others, n=1, cutoff=0.7)
        hint = f"; the nearest name in it is {near[0]!r}" if near else ""
        return self.error(f"has no layer {layer!r}, {what}{hint}")


def statistics(mean: Tensor, variance: Tensor, counter: Tensor, norm: nn.BatchNorm2d) -> dict[str, Tensor]:
    """The state of `norm` but for scale and shift, of the sums and the counter of Caffe's BatchNorm."""
    count = float(counter)
    scale = 1 / count if count else 0.0
    state = {"running_mean": mean * scale, "running_var": variance * scale}
    if isinstance(norm, CaffeBatchNorm):
        state["num_batches_tracked"] = torch.tensor(_batches(count, norm.fraction))
    return state


def _batches(count: float, fraction: float) -> int:
    """The number of batches after which Caffe's counter 1 + f + f^2 + ... has this value.

    Near its limit 1 / (1 - f) the float32 counter no longer changes; later batches weigh the same anyway.
    """
    left = max(1 - count * (1 - fraction), 2.0**-24)
    return round(math.log(left) / math.log(fraction))

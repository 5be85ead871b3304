"""A single-shot detector: backbone -> neck -> heads.

    images (B, 3, H, W) -> features by name -> pyramid levels, finest first -> predictions

The families differ in the neck alone.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn

from fssd.data.geometry import Geometry
from fssd.heads.head import Head, Raw
from fssd.necks.neck import Neck


class Spec(NamedTuple):
    """What `build_model` was asked for, as JSON values: enough to build the same network again.

    own_backbone: whether the user passed a module, which a name cannot stand for.
    """

    name: str
    num_classes: int
    options: dict[str, Any]
    own_backbone: bool


class Network(nn.Module):
    """Input: (B, 3, H, W) float RGB, 0..255; the mean is subtracted inside. Output: see `Head.outputs`.

    geometry: how images become that input. spec: how to build the network again.
    """

    mean: Tensor
    std: Tensor

    def __init__(
        self,
        backbone: nn.Module,
        neck: Neck,
        heads: Head,
        geometry: Geometry,
        mean: Sequence[float],
        std: Sequence[float],
        spec: Spec,
    ) -> None:
        super().__init__()
        self.spec = spec
        self.backbone = backbone
        self.neck = neck
        self.heads = heads
        self.geometry = geometry
        # Not persistent: they follow from the model's name and options, so no file can disagree.
        self.register_buffer("mean", torch.tensor(mean).reshape(3, 1, 1), persistent=False)
        self.register_buffer("std", torch.tensor(std).reshape(3, 1, 1), persistent=False)

    @property
    def image_size(self) -> tuple[int, int]:
        """(width, height) of the input, pixels."""
        return self.geometry.size

    @property
    def device(self) -> torch.device:
        """Where the network is."""
        return self.mean.device

    def forward(self, images: Tensor) -> Raw:
        """(B, 3, H, W) float RGB 0..255 to the head's predictions."""
        features = self.backbone((images - self.mean) / self.std)
        return self.heads(self.neck(features))  # type: ignore[no-any-return]


def channels_last(network: Network) -> Network:
    """The network with its weights laid out pixel by pixel, which convolutions on CPU and GPU prefer."""
    network.to(memory_format=torch.channels_last)  # type: ignore[call-overload]
    return network

"""SSD and FSSD: backbone -> neck -> heads, and the value that comes out.

    images (B, 3, S, S) -> features by name -> pyramid levels, finest first -> Raw(offsets, logits)

The two families differ in the neck alone.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn

from fssd.heads.multibox.head import Heads
from fssd.heads.multibox.priors import Level, make_priors
from fssd.layers.blocks import Chain
from fssd.necks.fusion import Fusion
from fssd.necks.pyramid import Pyramid


class Raw(NamedTuple):
    """What a network says of each prior, before any decoding; the same in training and evaluation.

    offsets: (B, P, 4) centre-size offsets, to be read by `fssd.boxes.decode`.
    logits: (B, P, C + 1) class scores before softmax, background first.
    """

    offsets: Tensor
    logits: Tensor


class Spec(NamedTuple):
    """What `build_model` was asked for, as JSON values: enough to build the same network again.

    own_backbone: whether the user passed a module, which a name cannot stand for.
    """

    name: str
    num_classes: int
    options: dict[str, Any]
    own_backbone: bool


class SSDNeck(nn.Module):
    """Levels straight from backbone and appended layers, conv4_3 scaled by L2Norm (Liu et al. 2016).

    taken: names of the maps to predict from, finest first. scale: normalisation of the first of them.
    extras: appended layers, reading the map `start`.
    """

    def __init__(self, taken: Sequence[str], start: str, extras: Chain, scale: nn.Module) -> None:
        super().__init__()
        self.taken = list(taken)
        self.start = start
        self.extras = extras
        self.scale = scale

    def forward(self, features: dict[str, Tensor]) -> list[Tensor]:
        features = features | self.extras(features[self.start])
        first, *rest = (features[name] for name in self.taken)
        return [self.scale(first), *rest]


class FusionNeck(nn.Module):
    """Extra layers, fusion, pyramid: the paper's Fig. 2 (b).

    extras: layers appended to the map `start`, or None where no source needs them.
    """

    def __init__(self, start: str, extras: Chain | None, fusion: Fusion, pyramid: Pyramid) -> None:
        super().__init__()
        self.start = start
        self.extras = extras
        self.fusion = fusion
        self.pyramid = pyramid

    def forward(self, features: dict[str, Tensor]) -> list[Tensor]:
        if self.extras is not None:
            features = features | self.extras(features[self.start])
        fused = self.fusion(features)
        return self.pyramid(fused)  # type: ignore[no-any-return]


class Network(nn.Module):
    """A single-shot detector.

    Input: (B, 3, S, S) float RGB, 0..255; the mean is subtracted inside. S is `image_size`.
    Output: `Raw`. `priors`: (P, 4) float32 xyxy in pixels of the input. `spec`: how to build it again.
    """

    priors: Tensor
    mean: Tensor
    std: Tensor

    def __init__(
        self,
        backbone: nn.Module,
        neck: nn.Module,
        heads: Heads,
        levels: tuple[Level, ...],
        image_size: int,
        mean: Sequence[float],
        std: Sequence[float],
        spec: Spec,
    ) -> None:
        super().__init__()
        self.spec = spec
        self.backbone = backbone
        self.neck = neck
        self.heads = heads
        self.levels = levels
        self.image_size = image_size
        # Not persistent: they follow from the model's name and options, so no file can disagree.
        self.register_buffer("priors", make_priors(levels), persistent=False)
        self.register_buffer("mean", torch.tensor(mean).reshape(3, 1, 1), persistent=False)
        self.register_buffer("std", torch.tensor(std).reshape(3, 1, 1), persistent=False)

    def forward(self, images: Tensor) -> Raw:
        """(B, 3, S, S) float RGB 0..255 to Raw((B, P, 4), (B, P, C + 1))."""
        features = self.backbone((images - self.mean) / self.std)
        offsets, logits = self.heads(self.neck(features))
        return Raw(offsets, logits)


def channels_last(network: Network) -> Network:
    """The network with its weights laid out pixel by pixel, which convolutions on CPU and GPU prefer."""
    network.to(memory_format=torch.channels_last)  # type: ignore[call-overload]
    return network

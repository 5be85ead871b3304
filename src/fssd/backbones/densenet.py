"""DenseNet-121 and DenseNet-169 (Huang et al. 2017, Table 1) as detection backbones.

Parameter names are those of torchvision, so that its ImageNet state dicts load as they are.
"""

from __future__ import annotations

import re
from collections import OrderedDict
from collections.abc import Mapping
from typing import ClassVar

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from fssd.backbones.backbone import Backbone, MapShape
from fssd.backbones.pixel_statistics import TORCHVISION_MEAN, TORCHVISION_STD
from fssd.layers.folding import normalised, set_fixed

STEM = 64  # channels of the first convolution
GROWTH = 32  # channels that a layer adds
BOTTLENECK = 4 * GROWTH  # channels between a layer's 1x1 and its 3x3

# Names in torchvision's files from before layers had single attributes: denselayer1.norm.1.weight.
OLD_NAME = re.compile(r"(denselayer\d+\.(?:norm|conv))\.([12]\.)")


class DenseLayer(nn.Module):
    """BN, ReLU, 1x1 to 128, BN, ReLU, 3x3 to 32 channels, without biases."""

    def __init__(self, inputs: int) -> None:
        super().__init__()
        self.norm1: nn.Module = nn.BatchNorm2d(inputs)
        self.conv1 = nn.Conv2d(inputs, BOTTLENECK, 1, bias=False)
        self.norm2: nn.Module = nn.BatchNorm2d(BOTTLENECK)
        self.conv2 = nn.Conv2d(BOTTLENECK, GROWTH, 3, padding=1, bias=False)

    def forward(self, x: Tensor) -> Tensor:
        """The 32 channels that the layer adds to `x`."""
        x = self.conv1(F.relu(self.norm1(x)))
        added: Tensor = self.conv2(F.relu(self.norm2(x)))
        return added

    def fold(self) -> None:
        """Put the second norm into the 1x1 before it; the first follows no convolution and stays."""
        assert isinstance(self.norm2, nn.BatchNorm2d)
        set_fixed(self.conv1, *normalised(self.conv1, self.norm2))
        self.norm2 = nn.Identity()


class DenseBlock(nn.ModuleDict):
    """Layers that each read the concatenation of the block's input and of what all layers before added."""

    def __init__(self, inputs: int, layers: int) -> None:
        super().__init__({f"denselayer{i + 1}": DenseLayer(inputs + i * GROWTH) for i in range(layers)})

    def forward(self, x: Tensor) -> Tensor:
        for layer in self.values():
            x = torch.cat((x, layer(x)), dim=1)
        return x


class Transition(nn.Module):
    """BN and ReLU, where a detector reads the block above; then a 1x1 to half the channels and a pool."""

    def __init__(self, inputs: int) -> None:
        super().__init__()
        self.norm = nn.BatchNorm2d(inputs)
        self.conv = nn.Conv2d(inputs, inputs // 2, 1, bias=False)

    def activate(self, x: Tensor) -> Tensor:
        """(B, C, H, W) after BN and ReLU."""
        return F.relu(self.norm(x))

    def forward(self, activated: Tensor) -> Tensor:
        """(B, C, H, W), activated, to (B, C / 2, H / 2, W / 2), rounded down."""
        x: Tensor = F.avg_pool2d(self.conv(activated), 2, stride=2)
        return x


class DenseNet(Backbone):
    """Images to C3, C4 and C5: the blocks 2, 3 and 4, each after the batch norm and ReLU that follow it.

    DenseNet's layers begin with norm and ReLU, so a block's own output is not activated; those of the
    following transition (after block 4: norm5) do it. The pools between blocks round down: 300 x 300 gives
    37, 18 and 9 cells a side, 512 x 512 gives 64, 32 and 16.

    layers: of the four blocks.
    """

    mean, std = TORCHVISION_MEAN, TORCHVISION_STD
    layers: ClassVar[tuple[int, int, int, int]]

    def __init__(self) -> None:
        super().__init__()
        modules: OrderedDict[str, nn.Module] = OrderedDict()
        modules["conv0"] = nn.Conv2d(3, STEM, 7, stride=2, padding=3, bias=False)
        modules["norm0"] = nn.BatchNorm2d(STEM)
        channels = STEM
        for number, layers in enumerate(self.layers, start=1):
            modules[f"denseblock{number}"] = DenseBlock(channels, layers)
            channels += layers * GROWTH
            if number < len(self.layers):
                modules[f"transition{number}"] = Transition(channels)
                channels //= 2
        modules["norm5"] = nn.BatchNorm2d(channels)
        self.features = nn.ModuleDict(modules)

    def forward(self, images: Tensor) -> dict[str, Tensor]:
        """(B, 3, H, W) float RGB, normalised, to named feature maps."""
        layers, maps = self.features, {}
        x = F.relu(layers["norm0"](layers["conv0"](images)))
        x = F.max_pool2d(x, 3, stride=2, padding=1)
        for number in range(1, 4):
            transition = layers[f"transition{number}"]
            assert isinstance(transition, Transition)
            activated = transition.activate(layers[f"denseblock{number}"](x))
            if number > 1:
                maps[f"C{number + 1}"] = activated
            x = transition(activated)
        maps["C5"] = F.relu(layers["norm5"](layers["denseblock4"](x)))
        return maps

    def shapes(self, width: int, height: int) -> dict[str, MapShape]:
        """See `Backbone`. Stem and its pool round up, the pools of the transitions down."""
        channels, shapes = STEM, {}
        sides = [-(-side // 4) for side in (height, width)]
        for number, layers in enumerate(self.layers, start=1):
            channels += layers * GROWTH
            if number > 1:
                shapes[f"C{number + 1}"] = MapShape(channels, *sides)
            channels //= 2
            sides = [side // 2 for side in sides]
        return shapes

    def stages(self) -> list[list[nn.Module]]:
        """Five: the stem, then each block with the transition or norm after it."""
        rows = [("conv0", "norm0"), *((f"denseblock{n}", f"transition{n}") for n in (1, 2, 3))]
        return [[self.features[name] for name in row] for row in (*rows, ("denseblock4", "norm5"))]

    def adapt(self, tensors: Mapping[str, Tensor]) -> Mapping[str, Tensor]:
        """See `Backbone`: torchvision's names, those of its older files too."""
        return {OLD_NAME.sub(r"\1\2", key): tensor for key, tensor in tensors.items()}

    def fold(self, std: Tensor) -> Tensor:
        """Norms that follow a convolution into it, and the division by `std` into the first; see `Backbone`.

        The mean stays outside: padding is 0 after it was subtracted, not before.
        """
        stem, norm = self.features["conv0"], self.features["norm0"]
        assert isinstance(stem, nn.Conv2d) and isinstance(norm, nn.BatchNorm2d)
        weight, bias = normalised(stem, norm)
        set_fixed(stem, weight / std, bias)
        self.features["norm0"] = nn.Identity()
        for layer in self.modules():
            if isinstance(layer, DenseLayer):
                layer.fold()
        return torch.ones_like(std)


class DenseNet121(DenseNet):
    """At 300 x 300: C3 (B, 512, 37, 37), C4 (B, 1024, 18, 18), C5 (B, 1024, 9, 9)."""

    layers = (6, 12, 24, 16)


class DenseNet169(DenseNet):
    """At 300 x 300: C3 (B, 512, 37, 37), C4 (B, 1280, 18, 18), C5 (B, 1664, 9, 9)."""

    layers = (6, 12, 32, 32)

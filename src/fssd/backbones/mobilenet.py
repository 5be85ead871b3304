"""MobileNetV1 (Howard et al. 2017) and MobileNetV2 (Sandler et al. 2018), width 1, as detection backbones.

Names of V2 are torchvision's. torchvision has no V1; its layers are named as in the Caffe model that most
ports come from (shicai/MobileNet-Caffe): conv1, conv2_1 ... conv6, each a depthwise 3x3 `dw` and a 1x1 `sep`,
with batch norm and ReLU after every convolution.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import cast

import torch
from torch import Tensor, nn

from fssd.backbones.backbone import Backbone, MapShape
from fssd.backbones.pixel_statistics import TORCHVISION_MEAN, TORCHVISION_STD
from fssd.layers.depthwise import DepthwiseConv2d
from fssd.layers.folding import fold_sequences

# (name, stride, output channels) of the separable layers of V1.
V1_LAYERS = (
    ("conv2_1", 1, 64), ("conv2_2", 2, 128), ("conv3_1", 1, 128), ("conv3_2", 2, 256), ("conv4_1", 1, 256),
    ("conv4_2", 2, 512), ("conv5_1", 1, 512), ("conv5_2", 1, 512), ("conv5_3", 1, 512), ("conv5_4", 1, 512),
    ("conv5_5", 1, 512), ("conv5_6", 2, 1024), ("conv6", 1, 1024),
)  # fmt: skip
V1_TAPS = {"conv4_1": ("C3", 8), "conv5_5": ("C4", 16), "conv6": ("C5", 32)}  # and their strides

# (expansion, output channels, blocks, stride of the first) of V2: its Table 2.
V2_ROWS = (
    (1, 16, 1, 1),
    (6, 24, 2, 2),
    (6, 32, 3, 2),
    (6, 64, 4, 2),
    (6, 96, 3, 1),
    (6, 160, 3, 2),
    (6, 320, 1, 1),
)
V2_TAPS = {6: ("C3", 8, 32), 13: ("C4", 16, 96), 17: ("C5", 32, 320)}  # by index of torchvision's features


def conv_norm(inputs: int, outputs: int, kernel: int, stride: int = 1) -> list[nn.Module]:
    """Convolution that keeps the size but for its stride, without bias, and batch norm."""
    conv = nn.Conv2d(inputs, outputs, kernel, stride, kernel // 2, bias=False)
    return [conv, nn.BatchNorm2d(outputs)]


def depthwise_norm(channels: int, stride: int) -> list[nn.Module]:
    """The same, 3x3 and of each channel by itself."""
    return [DepthwiseConv2d(channels, 3, stride, padding=1), nn.BatchNorm2d(channels)]


class _MobileNet(Backbone):
    """What V1 and V2 share. The first convolution is the first module."""

    mean, std = TORCHVISION_MEAN, TORCHVISION_STD

    def fold(self, std: Tensor) -> Tensor:
        """Norms into convolutions, and the division by `std` into the first one; see `Backbone`.

        The mean stays outside: padding is 0 after it was subtracted, not before.
        """
        fold_sequences(self)
        first = next(module for module in self.modules() if isinstance(module, nn.Conv2d))
        with torch.no_grad():
            first.weight.div_(std)
        return torch.ones_like(std)


class Separable(nn.Module):
    """Depthwise 3x3 and 1x1 of V1, each with batch norm and ReLU."""

    def __init__(self, inputs: int, outputs: int, stride: int) -> None:
        super().__init__()
        self.dw = nn.Sequential(*depthwise_norm(inputs, stride), nn.ReLU(inplace=True))
        self.sep = nn.Sequential(*conv_norm(inputs, outputs, 1), nn.ReLU(inplace=True))

    def forward(self, x: Tensor) -> Tensor:
        out: Tensor = self.sep(self.dw(x))
        return out


class MobileNetV1(_MobileNet):
    """Images to C3, C4 and C5: conv4_1, conv5_5 and conv6, the last layers at stride 8, 16 and 32.

    At 300 x 300: C3 (B, 256, 38, 38), C4 (B, 512, 19, 19), C5 (B, 1024, 10, 10).
    """

    def __init__(self) -> None:
        super().__init__()
        self.conv1 = nn.Sequential(*conv_norm(3, 32, 3, 2), nn.ReLU(inplace=True))
        inputs = 32
        for name, stride, outputs in V1_LAYERS:
            self.add_module(name, Separable(inputs, outputs, stride))
            inputs = outputs

    def forward(self, images: Tensor) -> dict[str, Tensor]:
        """(B, 3, H, W) float RGB, normalised, to named feature maps."""
        x, maps = self.conv1(images), {}
        for name, _, _ in V1_LAYERS:
            x = self.get_submodule(name)(x)
            if name in V1_TAPS:
                maps[V1_TAPS[name][0]] = x
        return maps

    def shapes(self, width: int, height: int) -> dict[str, MapShape]:
        """See `Backbone`. Every stride of 2 rounds up."""
        widths = {name: outputs for name, _, outputs in V1_LAYERS}
        return {
            key: MapShape(widths[name], -(-height // stride), -(-width // stride))
            for name, (key, stride) in V1_TAPS.items()
        }

    def stages(self) -> list[list[nn.Module]]:
        """Five, each begins with a stride of 2: conv1 and conv2_1, conv2_2 and conv3_1, and so on."""
        stages: list[list[nn.Module]] = [[self.conv1]]
        for name, stride, _ in V1_LAYERS:
            if stride == 2:
                stages.append([])
            stages[-1].append(self.get_submodule(name))
        return stages

    def adapt(self, tensors: Mapping[str, Tensor]) -> Mapping[str, Tensor]:
        """See `Backbone`: the names above, or the list `model` of marvis/pytorch-mobilenet and its ports:
        model.0.0 (convolution), model.0.1 (norm), then for each layer 0 and 1 depthwise, 3 and 4 the 1x1."""
        if not any(key.startswith(("model.0.", "0.")) for key in tensors):
            return tensors
        names: dict[str, str] = {"0.0": "conv1.0", "0.1": "conv1.1"}
        for number, (layer, _, _) in enumerate(V1_LAYERS, start=1):
            for theirs, own in ((0, "dw.0"), (1, "dw.1"), (3, "sep.0"), (4, "sep.1")):
                names[f"{number}.{theirs}"] = f"{layer}.{own}"
        found = {}
        for key, tensor in tensors.items():
            module, _, kind = key.removeprefix("model.").rpartition(".")
            if module in names:
                found[f"{names[module]}.{kind}"] = tensor
        return found


class LinearBottleneck(nn.Module):
    """Block of V2: 1x1 that expands, depthwise 3x3, 1x1 without activation; a shortcut where shapes allow."""

    def __init__(self, inputs: int, outputs: int, stride: int, expansion: int) -> None:
        super().__init__()
        hidden = inputs * expansion
        layers: list[nn.Module] = []
        if expansion != 1:
            layers.append(nn.Sequential(*conv_norm(inputs, hidden, 1), nn.ReLU6(inplace=True)))
        depthwise = depthwise_norm(hidden, stride)
        layers.append(nn.Sequential(*depthwise, nn.ReLU6(inplace=True)))
        self.conv = nn.Sequential(*layers, *conv_norm(hidden, outputs, 1))
        self.has_shortcut = stride == 1 and inputs == outputs

    def forward(self, x: Tensor) -> Tensor:
        out: Tensor = self.conv(x)
        return x + out if self.has_shortcut else out


class MobileNetV2(_MobileNet):
    """Images to C3, C4 and C5: the linear outputs of the last blocks at stride 8, 16 and 32.

    At 300 x 300: C3 (B, 32, 38, 38), C4 (B, 96, 19, 19), C5 (B, 320, 10, 10). The last 1x1 to 1,280 channels
    belongs to the classifier and is left out.
    """

    def __init__(self) -> None:
        super().__init__()
        stem = nn.Sequential(*conv_norm(3, 32, 3, 2), nn.ReLU6(inplace=True))
        self.features = nn.Sequential(stem, *_v2_blocks(32))

    def forward(self, images: Tensor) -> dict[str, Tensor]:
        """(B, 3, H, W) float RGB, normalised, to named feature maps."""
        x, maps = images, {}
        for index, layer in enumerate(self.features):
            x = layer(x)
            if index in V2_TAPS:
                maps[V2_TAPS[index][0]] = x
        return maps

    def shapes(self, width: int, height: int) -> dict[str, MapShape]:
        """See `Backbone`. Every stride of 2 rounds up."""
        return {
            key: MapShape(channels, -(-height // stride), -(-width // stride))
            for key, stride, channels in V2_TAPS.values()
        }

    def stages(self) -> list[list[nn.Module]]:
        """Seven rows of its Table 2, the stem with the first."""
        blocks = iter(cast("Iterator[nn.Module]", self.features))
        stages = [[next(blocks)]]
        for number, (_, _, repeats, _) in enumerate(V2_ROWS):
            if number:
                stages.append([])
            stages[-1] += [next(blocks) for _ in range(repeats)]
        return stages


def _v2_blocks(inputs: int) -> Iterator[LinearBottleneck]:
    for expansion, outputs, repeats, first_stride in V2_ROWS:
        for repeat in range(repeats):
            yield LinearBottleneck(inputs, outputs, first_stride if repeat == 0 else 1, expansion)
            inputs = outputs

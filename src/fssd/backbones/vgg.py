"""VGG16-reduced, the backbone of the paper: VGG16 whose fc6 and fc7 became convolutions (DeepLab, SSD)."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, ClassVar

import torch.nn.functional as F
from torch import Tensor, nn

from fssd.backbones.backbone import Backbone, MapShape
from fssd.backbones.pixel_statistics import CAFFE_MEAN
from fssd.backbones.vgg_weights import vgg16_layers

STAGES = ((64, 64), (128, 128), (256, 256, 256), (512, 512, 512), (512, 512, 512))
LAST_OF_STAGE = tuple(f"conv{stage}_{len(widths)}" for stage, widths in enumerate(STAGES, start=1))


class VGG16Reduced(Backbone):
    """Images to conv3_3, conv4_3 and fc7, each after its ReLU.

    At 300 x 300: conv3_3 (B, 256, 75, 75), conv4_3 (B, 512, 38, 38), fc7 (B, 1024, 19, 19).
    At 512 x 512: 128, 64 and 32 cells a side. If tapped also conv1_2 (B, 64, 300, 300), conv2_2
    (B, 128, 150, 150) and conv5_3 (B, 512, 19, 19).
    """

    mean = CAFFE_MEAN
    std = (1.0, 1.0, 1.0)
    # Paper 4.2 and the SSD solver: 1e-3, divided by ten at 80k and 100k of 120k iterations, no warm-up.
    recipe: ClassVar[Mapping[str, Any]] = {
        "epochs": 232.0,
        "lr": 1e-3,
        "schedule": "multistep",
        "warmup": 0,
        "ema": 0.0,
        "clip_norm": 0.0,
    }
    may_lack = ("fc6", "fc7")
    more = ("conv1_2", "conv2_2", "conv5_3")

    def __init__(self) -> None:
        super().__init__()
        inputs = 3
        for stage, widths in enumerate(STAGES, start=1):
            for number, width in enumerate(widths, start=1):
                self.add_module(f"conv{stage}_{number}", nn.Conv2d(inputs, width, 3, padding=1))
                inputs = width
        self.fc6 = nn.Conv2d(512, 1024, 3, padding=6, dilation=6)
        self.fc7 = nn.Conv2d(1024, 1024, 1)

    def forward(self, images: Tensor) -> dict[str, Tensor]:
        """(B, 3, H, W) float RGB minus mean, to named feature maps."""
        x, maps = images, {}
        for stage, name in enumerate(LAST_OF_STAGE, start=1):
            x = self._stage(stage, x if stage == 1 else self._pool(x))
            if name in self._returned():
                maps[name] = x
        x = F.max_pool2d(x, 3, stride=1, padding=1)
        x = F.relu(self.fc6(x), inplace=True)
        return maps | {"fc7": F.relu(self.fc7(x), inplace=True)}

    def shapes(self, width: int, height: int) -> dict[str, MapShape]:
        """See `Backbone`. Every pooling halves and rounds up."""
        shapes = {}
        rows, columns = height, width
        for stage, name in enumerate(LAST_OF_STAGE):
            if stage:
                rows, columns = _halved(rows), _halved(columns)
            if name in self._returned():
                shapes[name] = MapShape(STAGES[stage][-1], rows, columns)
        return shapes | {"fc7": MapShape(1024, rows, columns)}

    def _returned(self) -> tuple[str, ...]:
        return ("conv3_3", "conv4_3", *self.tapped)

    def adapt(self, tensors: Mapping[str, Tensor]) -> Mapping[str, Tensor]:
        """See `vgg16_layers`."""
        return vgg16_layers(tensors)

    def stages(self) -> list[list[nn.Module]]:
        """The modules of each stage: conv1 to conv5, then fc6 and fc7."""
        convs: list[list[nn.Module]] = [
            [self.get_submodule(f"conv{stage}_{number}") for number in range(1, len(widths) + 1)]
            for stage, widths in enumerate(STAGES, start=1)
        ]
        return [*convs, [self.fc6, self.fc7]]

    def _stage(self, stage: int, x: Tensor) -> Tensor:
        for number in range(1, len(STAGES[stage - 1]) + 1):
            x = F.relu(self.get_submodule(f"conv{stage}_{number}")(x), inplace=True)
        return x

    @staticmethod
    def _pool(x: Tensor) -> Tensor:
        # Caffe rounds pooled sizes up (75 becomes 38); all later sizes depend on this.
        return F.max_pool2d(x, 2, stride=2, ceil_mode=True)


def _halved(cells: int) -> int:
    return -(-cells // 2)

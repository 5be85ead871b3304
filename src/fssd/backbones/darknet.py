"""Darknet-19, the backbone of YOLOv2 (Redmon and Farhadi 2017, Table 6; pjreddie/darknet, darknet19.cfg)."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any, ClassVar

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from fssd.backbones.backbone import Backbone, MapShape
from fssd.backbones.darknet_weights import count, cut, darknet_order, is_darknet, read_darknet
from fssd.errors import CheckpointError
from fssd.layers.blocks import ConvNormLeaky
from fssd.layers.first_weights import he
from fssd.layers.folding import fold_sequences

# (outputs, kernel) of each convolution; a pool lies between stages.
STAGES = (
    ((32, 3),),
    ((64, 3),),
    ((128, 3), (64, 1), (128, 3)),
    ((256, 3), (128, 1), (256, 3)),
    ((512, 3), (256, 1), (512, 3), (256, 1), (512, 3)),
    ((1024, 3), (512, 1), (1024, 3), (512, 1), (1024, 3)),
)
TAPS = {4: "C3", 5: "C4", 6: "C5"}  # stage -> its last map
CLASSIFIER = 1000 * (1024 + 1)  # floats of the ImageNet classifier after the last convolution
# Floats of YOLOv2 between the backbone and its last convolution, with the passthrough of 2017 and of 2016.
DETECTORS = (30_716_160, 47_198_208)
PREDICTION = 1024 + 1  # floats of each output of YOLOv2's last convolution


class Darknet19(Backbone):
    """Images to C3, C4 and C5: convolutions 8, 13 and 18, the last ones at stride 8, 16 and 32.

    At 416 x 416: C3 (B, 256, 52, 52), C4 (B, 512, 26, 26), C5 (B, 1024, 13, 13). The pools round up, as
    current darknet's do, which pads one cell at the end: 300 pixels become 38, 19 and 10 cells.
    """

    std = (255.0, 255.0, 255.0)
    # YOLO9000, 3 and 5: 160 epochs from 1e-3, a tenth of it from epoch 60 on and a hundredth from 90 on.
    # Darknet's files let the rate rise over 1,000 updates.
    recipe: ClassVar[Mapping[str, Any]] = {
        "epochs": 160.0,
        "lr": 1e-3,
        "schedule": "multistep",
        "step_shares": (60 / 160, 90 / 160),
        "warmup": 1000,
        "ema": 0.0,
        "clip_norm": 0.0,
    }

    def __init__(self) -> None:
        super().__init__()
        inputs, number = 3, 0
        for stage in STAGES:
            for outputs, kernel in stage:
                number += 1
                self.add_module(f"conv{number}", ConvNormLeaky(inputs, outputs, kernel))
                inputs = outputs

    def forward(self, images: Tensor) -> dict[str, Tensor]:
        """(B, 3, H, W) float RGB in 0..1, to named feature maps."""
        x, features = images, {}
        for number, stage in enumerate(self.stages(), start=1):
            if number > 1:
                x = F.max_pool2d(x, 2, stride=2, ceil_mode=True)
            for conv in stage:
                x = conv(x)
            if number in TAPS:
                features[TAPS[number]] = x
        return features

    def shapes(self, width: int, height: int) -> dict[str, MapShape]:
        """See `Backbone`. Every pooling halves and rounds up."""
        return {
            name: MapShape(
                STAGES[stage - 1][-1][0], *(-(-side // 2 ** (stage - 1)) for side in (height, width))
            )
            for stage, name in TAPS.items()
        }

    def stages(self) -> list[list[nn.Module]]:
        """The convolutions between pools, six stages."""
        convs = iter(self.children())
        return [[next(convs) for _ in stage] for stage in STAGES]

    def read(self, file: Path) -> Mapping[str, Tensor] | None:
        """See `Backbone`: darknet's `.weights` of these 18 convolutions (darknet19_448.conv.23), of the whole
        classifier, or of a YOLOv2.

        Raises CheckpointError for a file of another length.
        """
        if not is_darknet(file):
            return None
        shapes = darknet_order(self, (name for name, _ in self.named_children()))
        found = read_darknet(file)
        rest = len(found.floats) - count(shapes)
        outputs = [(rest - floats) // PREDICTION for floats in DETECTORS if not (rest - floats) % PREDICTION]
        if rest not in (0, CLASSIFIER) and not any(number > 0 for number in outputs):
            raise CheckpointError(
                f"{file}: has {found.bytes:,} bytes; the 18 convolutions of Darknet-19 take"
                f" {found.header + 4 * count(shapes):,}, and what follows them is neither its classifier nor"
                " the rest of a YOLOv2, so these are weights of another network or part of a file"
            )
        return cut(found.floats, shapes)

    def initialise(self) -> None:
        """See `Backbone`: by darknet's rule."""
        he(self)

    def fold(self, std: Tensor) -> Tensor:
        """Norms into convolutions, and the division by `std` into the first one; see `Backbone`.

        The mean stays outside: padding is 0 after it was subtracted, not before.
        """
        fold_sequences(self)
        first = self.get_submodule("conv1.0")
        assert isinstance(first, nn.Conv2d)
        with torch.no_grad():
            first.weight.div_(std)
        return torch.ones_like(std)

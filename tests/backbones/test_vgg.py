"""VGG16-reduced: the sizes of its maps, which it computes without a pass."""

from __future__ import annotations

import pytest
import torch

from fssd.backbones.backbone import probe_shapes
from fssd.backbones.vgg import VGG16Reduced


@pytest.mark.parametrize("size", [(300, 300), (512, 512), (321, 321), (416, 225), (257, 130)])
def test_shapes_are_those_of_a_pass(size: tuple[int, int]) -> None:
    with torch.device("meta"):
        backbone = VGG16Reduced()
        shapes = backbone.shapes(*size)
        assert shapes == probe_shapes(backbone, *size)
    if size == (300, 300):
        assert shapes == {"conv3_3": (256, 75, 75), "conv4_3": (512, 38, 38), "fc7": (1024, 19, 19)}

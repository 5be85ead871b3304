"""DS: its maps, its stages, and a form of one's own."""

from __future__ import annotations

import pytest
import torch

from fssd.backbones.backbone import backbone_stages, probe_shapes
from fssd.backbones.ds import DS, DSSmall


class Halving(DS):
    """DS/32-64-12-0.5 of the paper's ablation, with its four numbers."""

    first = 32
    bottleneck = 64
    growth = 12
    theta = 0.5


@pytest.mark.parametrize("kind", [DS, DSSmall, Halving])
@pytest.mark.parametrize("size", [(300, 300), (512, 512), (321, 130)], ids=str)
def test_shapes_are_those_of_a_pass(kind: type[DS], size: tuple[int, int]) -> None:
    with torch.device("meta"):
        backbone = kind()
        assert backbone.shapes(*size) == probe_shapes(backbone, *size)


def test_widths_of_the_released_network() -> None:
    with torch.device("meta"):
        assert DS().shapes(300, 300) == {"stride8": (800, 38, 38), "stride16": (1568, 19, 19)}
        # 64 + 72 -> 68, + 96 -> 82; + 96 -> 89; + 96
        assert Halving().shapes(300, 300) == {"stride8": (82, 38, 38), "stride16": (185, 19, 19)}


def test_stages_hold_every_parameter_once() -> None:
    with torch.device("meta"):
        backbone = DS()
    stages = backbone_stages(backbone)
    assert len(stages) == 5
    listed = [id(p) for stage in stages for module in stage for p in module.parameters()]
    assert sorted(listed) == sorted(id(p) for p in backbone.parameters())

"""Multiply-adds and parameters against counts by hand."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor, nn

from fssd.model.build import build_model
from fssd.model.cost import multiply_adds, parameters


class Small(nn.Module):
    """Three convolutions on 32 x 32 pixels, with what `multiply_adds` asks of a network."""

    def __init__(self) -> None:
        super().__init__()
        self.image_size = (32, 32)
        self.device = torch.device("cpu")
        self.plain = nn.Conv2d(3, 8, 3, stride=2, padding=1)  # to 16 x 16
        self.norm = nn.BatchNorm2d(8)
        self.depthwise = nn.Conv2d(8, 8, 5, padding=2, groups=8, bias=False)
        self.dilated = nn.Conv2d(8, 12, 3, dilation=2)  # to 12 x 12
        self.frozen = nn.Parameter(torch.zeros(7), requires_grad=False)

    def forward(self, images: Tensor) -> Tensor:
        return self.dilated(self.depthwise(self.norm(self.plain(images))))


def test_multiply_adds_by_hand() -> None:
    expected = 16 * 16 * 8 * (3 * 3 * 3) + 16 * 16 * 8 * (5 * 5) + 12 * 12 * 12 * (8 * 3 * 3)
    assert multiply_adds(Small()) == expected == 230_912  # 55,296 + 51,200 + 124,416


def test_parameters_by_hand() -> None:
    assert parameters(Small()) == (8 * 27 + 8) + (8 + 8) + 8 * 25 + (12 * 8 * 9 + 12)


def test_counting_changes_nothing() -> None:
    net = Small().train()
    before = {key: value.clone() for key, value in net.state_dict().items()}
    multiply_adds(net)
    assert net.training
    assert all(torch.equal(before[key], value) for key, value in net.state_dict().items())
    multiply_adds(net.eval())
    assert not net.training


def test_fssd300_costs_what_its_layer_table_says() -> None:
    vgg = [
        (300, 3, 64), (300, 64, 64), (150, 64, 128), (150, 128, 128), (75, 128, 256), (75, 256, 256),
        (75, 256, 256), (38, 256, 512), (38, 512, 512), (38, 512, 512), (19, 512, 512), (19, 512, 512),
        (19, 512, 512), (19, 512, 1024),
    ]  # fmt: skip
    pyramid = [
        (38, 768, 512), (19, 512, 512), (10, 512, 256), (5, 256, 256), (3, 256, 256), (1, 256, 256)
    ]  # fmt: skip
    heads = [
        (size, outputs, anchors * 25)
        for (size, _, outputs), anchors in zip(pyramid, (4, 6, 6, 6, 4, 4), strict=True)
    ]
    three = sum(size * size * inputs * outputs * 9 for size, inputs, outputs in [*vgg, *pyramid, *heads])
    fc7 = 19 * 19 * 1024 * 1024
    extras = 19 * 19 * (1024 * 256 + 256 * 512 * 9 + 512 * 128) + 10 * 10 * 128 * 256 * 9
    reduces = 38 * 38 * 512 * 256 + 19 * 19 * 1024 * 256
    with torch.device("meta"):
        found = multiply_adds(build_model("fssd300-vgg16", 20))
    assert found == three + fc7 + extras + reduces
    assert found / 1e9 == pytest.approx(37.8, abs=0.05)


@pytest.mark.parametrize("name", ["fssd300-lite", "ssd300-lite", "fpn300-lite", "rssd300-lite"])
@pytest.mark.parametrize("classes", [20, 80])
def test_lite_models_stay_light(name: str, classes: int) -> None:
    with torch.device("meta"):
        found = multiply_adds(build_model(name, classes))
    assert 0.4e9 < found <= 1.3e9

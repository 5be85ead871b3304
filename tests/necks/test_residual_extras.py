"""SSD321 and SSD513: sizes of levels, centres of priors, and the appended blocks."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor, nn

from fssd.backbones.resnet import ResNet50Caffe
from fssd.errors import ConfigError
from fssd.model.build import build_model
from fssd.model.network import Network

# Size, cells, steps, first and last centres of the levels, in pixels: DSSD's scripts.
SCRIPTS = {
    321: (
        [40, 20, 10, 5, 3, 1],
        [8, 16, 32, 64, 64, 321],
        [2.5, 2.5, 10.5, 26.5, 90.5, 160.5],
        [314.5, 306.5, 298.5, 282.5, 218.5, 160.5],
    ),
    513: (
        [64, 32, 16, 8, 4, 2, 1],
        [8, 16, 32, 64, 128, 256, 513],
        [2.5, 2.5, 10.5, 26.5, 58.5, 122.5, 256.5],
        [506.5, 498.5, 490.5, 474.5, 442.5, 378.5, 256.5],
    ),
}


def meta(name: str, **options: Any) -> Network:
    with torch.device("meta"):
        return build_model(name, 20, **options)


@pytest.mark.parametrize("family", ["ssd", "dssd"])
@pytest.mark.parametrize("size", SCRIPTS)
def test_cells_stand_where_the_scripts_put_them(family: str, size: int) -> None:
    network = meta(f"{family}{size}-resnet101")
    cells, steps, first, last = SCRIPTS[size]
    assert network.neck.cells == [(n, n) for n in cells]
    assert network.neck.steps == [(step, step) for step in steps]
    levels = network.heads.levels
    for level, start, end in zip(levels, first, last, strict=True):
        assert level.anchors == 8
        share = level.centres[0]
        assert set(level.centres) == {share}
        assert share[0] * level.step[0] == pytest.approx(start)
        assert (level.columns - 1 + share[0]) * level.step[0] == pytest.approx(end)
        assert 0 < start <= end < size


class OneBlock(ResNet50Caffe):
    """A bottleneck a stage: the second sees 35 pixels."""

    blocks = (1, 1, 1, 1)


def test_centres_are_those_of_the_receptive_fields() -> None:
    torch.manual_seed(0)
    network = build_model("ssd321-resnet101", 1, size=128, backbone=OneBlock()).double().eval()
    images = torch.rand(4, 3, 128, 128, dtype=torch.float64, requires_grad=True)
    row, column = 6, 9
    network.backbone(images)["layer2"][:, :, row, column].sum().backward()
    assert images.grad is not None
    seen = images.grad.abs().sum((0, 1)).nonzero()
    first, last = seen.amin(0), seen.amax(0)
    assert (last - first + 1).tolist() == [35, 35]
    step, start = network.neck.steps[0][0], network.neck.starts[0][0]
    assert ((first + last + 1) / 2).tolist() == [start + row * step, start + column * step]


@pytest.mark.parametrize(
    ("options", "cells"),
    [
        ({"size": 128}, [(16, 16), (8, 8), (4, 4), (2, 2), (1, 1)]),
        ({"size": 400}, [(50, 50), (25, 25), (12, 12), (6, 6), (3, 3), (1, 1)]),
        ({"size": [320, 160]}, [(20, 40), (10, 20), (5, 10), (3, 5), (1, 3)]),
        # torchvision's layout: stride 32 is a level too, and sizes round up.
        ({"backbone": "resnet50"}, [(41, 41), (21, 21), (11, 11), (5, 5), (3, 3), (1, 1)]),
        ({"backbone": "vgg16"}, [(41, 41), (21, 21), (10, 10), (5, 5), (3, 3), (1, 1)]),
    ],
    ids=str,
)
def test_other_sizes_and_backbones(options: dict[str, Any], cells: list[tuple[int, int]]) -> None:
    network = meta("ssd321-resnet101", **options).eval()
    assert network.neck.cells == cells
    width, height = network.image_size
    features = network.backbone(torch.zeros(2, 3, height, width, device="meta"))
    assert [tuple(x.shape[-2:]) for x in network.neck(features)] == cells
    for step, (rows, columns) in zip(network.neck.steps, cells, strict=True):
        assert step[0] * columns <= width + step[0] and step[1] * rows <= height + step[1]
    dssd = meta("dssd321-resnet101", **options).eval()
    assert [tuple(x.shape[-2:]) for x in dssd.neck(features)] == cells  # every deconvolution fits


def test_priors_of_a_backbone_that_does_not_tell_stand_evenly() -> None:
    network = meta("ssd321-resnet101", backbone="vgg16")
    assert network.neck.starts is None
    assert network.neck.steps[0] == (321 / 41, 321 / 41)
    assert all(level.centres is None for level in network.heads.levels)


@pytest.mark.parametrize(("size", "count"), [(321, 17_080), (513, 43_688)])
def test_counts_of_priors_are_those_of_table_3(size: int, count: int) -> None:
    for family in ("ssd", "dssd"):
        assert len(meta(f"{family}{size}-resnet101").heads.priors) == count


def test_blocks_start_as_in_the_code_of_dssd() -> None:
    torch.manual_seed(0)
    network = build_model("ssd321-resnet101", 1, size=128, backbone="resnet50-caffe")
    block = network.neck.extras["res6"]
    assert float(block.body[1][0].weight.detach().std()) == pytest.approx(0.01, rel=0.02)
    assert block.body[1][1].eps == 1e-3
    assert block.body[1][1].fraction == 0.999
    head = network.heads.loc[0]
    assert float(head.weight.detach().abs().max()) == pytest.approx(
        (3 / (1024 * 25)) ** 0.5, rel=1e-3
    )  # Xavier
    assert not head.bias.any()


def test_other_necks_take_residual_extras_too() -> None:
    for neck in ("fpn", "rssd"):
        network = meta("ssd321-resnet101", neck=neck)
        assert network.neck.cells == [(n, n) for n in SCRIPTS[321][0]]
    assert len(meta("fpn300-vgg16", extras="residual").neck.cells) == 6


class TooFine(nn.Module):
    def forward(self, images: Tensor) -> dict[str, Tensor]:
        return {"fine": images[:, :, :20, :20]}


def test_maps_that_are_too_fine() -> None:
    with pytest.raises(ConfigError, match="at most 16 x 16 cells; the backbone has fine of 20 x 20"):
        build_model("ssd321-resnet101", 1, size=128, backbone=TooFine())

"""BlitzNet and its ResSkip neck: counts from the layer table, priors and resizing by hand, a whole life."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from fssd.errors import ConfigError
from fssd.inference.detector import Detector
from fssd.layers.enlarge import resize_asymmetric
from fssd.model.build import build_model
from fssd.model.cost import multiply_adds, parameters
from fssd.model.fold import fold
from fssd.model.network import Network

SIDES = {
    ("300", True): [75, 38, 19, 10, 5, 3, 1],
    ("300", False): [38, 19, 10, 5, 3, 1],
    ("512", False): [64, 32, 16, 8, 4, 2, 1],
    ("512", True): [128, 64, 32, 16, 8, 4, 2, 1],
}
# In pixels, with the next one after the last.
SIZES = {
    ("300", True): [12, 30, 81, 132, 183, 234, 285, 336],
    ("300", False): [30, 60, 116.25, 172.5, 228.75, 285, 341.25],
    ("512", False): [20.48, 51.2, 138.24, 225.28, 312.32, 399.36, 486.4, 573.44],
    ("512", True): [10.24, 40.96, 115.2, 189.44, 263.68, 337.92, 412.16, 486.4, 560.64],
}


def meta(name: str, classes: int = 20, **options: Any) -> Network:
    with torch.device("meta"):
        return build_model(name, classes, **options)


@pytest.mark.parametrize(
    ("name", "classes", "options", "expected", "giga"),
    [
        ("blitznet300-resnet50", 20, {}, 59_065_434, 15.3),
        ("blitznet300-resnet50", 20, {"x4": False}, 58_061_252, 9.6),
        ("blitznet512-resnet50", 20, {}, 68_219_994, 26.7),
        ("blitznet300-resnet50", 80, {}, 70_680_114, None),
        ("blitznet300-resnet50", 80, {"x4": False}, 68_016_692, None),
        ("blitznet512-resnet50", 80, {}, 79_834_674, None),
    ],
)
def test_parameters_and_work(
    name: str, classes: int, options: dict[str, Any], expected: int, giga: float | None
) -> None:
    network = meta(name, classes, **options)
    assert parameters(network) == expected
    assert giga is None or round(multiply_adds(network) / 1e9, 1) == giga


@pytest.mark.parametrize(("side", "x4", "count"), [("300", True, 45_390), ("300", False, 11_640)])
@pytest.mark.parametrize("size", ["", "512"])
def test_levels_and_priors(side: str, x4: bool, count: int, size: str) -> None:
    side, count = (size, {True: 131_070, False: 32_766}[x4]) if size else (side, count)
    network = meta(f"blitznet{side}-resnet50", x4=x4)
    assert network.neck.cells == [(n, n) for n in SIDES[side, x4]]
    assert network.neck.channels == [512] * len(SIDES[side, x4])
    assert len(network.heads.priors) == count
    with torch.device("meta"):
        raw = network.eval()(torch.zeros(1, 3, int(side), int(side)))
    assert raw.offsets.shape == (1, count, 4)
    sizes = SIZES[side, x4]
    for level, least, most in zip(network.heads.levels, sizes, sizes[1:], strict=False):
        two, three, middle = math.sqrt(2), math.sqrt(3), math.sqrt(least * most)
        expected = [(least, least), (least * two, least / two), (least / two, least * two)]
        expected += [(least * three, least / three), (least / three, least * three), (middle, middle)]
        for found, wanted in zip(level.shapes, expected, strict=True):
            assert found == pytest.approx(wanted, rel=1e-6)


def test_centres_lie_in_the_middle_of_the_cells() -> None:
    with torch.device("cpu"):
        heads = build_model("blitznet300-resnet50", 1).heads
    boxes = heads.priors[: 75 * 75 * 6].reshape(75, 75, 6, 4)
    middle = (boxes[..., :2] + boxes[..., 2:]) / 2
    for row, column in ((0, 0), (3, 74)):
        wanted = torch.tensor([(column + 0.5) * 4, (row + 0.5) * 4]).expand(6, 2)
        torch.testing.assert_close(middle[row, column], wanted)


def test_the_backbone_is_that_of_caffes_layout_and_reads_blitznets_mean() -> None:
    network = build_model("blitznet300-resnet50", 1)
    assert network.backbone.layer2[0].conv1.stride == (2, 2)
    assert network.mean.flatten().tolist() == pytest.approx([123.15, 115.9, 103.06])
    assert network.std.flatten().tolist() == [1, 1, 1]
    assert network.backbone.shapes(300, 300)["layer1"].cells == (75, 75)


# ---------------------------------------------------------------- the way up


@pytest.mark.parametrize(("cells", "target"), [(2, 3), (3, 5), (5, 10), (10, 19), (19, 38), (38, 75), (4, 2)])
def test_asymmetric_resizing_by_hand(cells: int, target: int) -> None:
    values = torch.rand(cells, generator=torch.Generator().manual_seed(cells))
    out = resize_asymmetric(values.reshape(1, 1, 1, cells).expand(1, 2, 3, cells), (3, target))
    for i in range(target):
        place = i * cells / target
        low = math.floor(place)
        wanted = values[low] * (1 - place + low) + values[min(low + 1, cells - 1)] * (place - low)
        torch.testing.assert_close(out[..., i], wanted.expand(1, 2, 3))
    turned = resize_asymmetric(values.reshape(1, 1, cells, 1), (target, 1))
    torch.testing.assert_close(turned[0, 0, :, 0], out[0, 0, 0])


def normed(x: Tensor, layers: nn.Sequential, index: int) -> Tensor:
    """Convolution and batch norm in evaluation, of a Sequential's layers at `index`."""
    conv, norm = layers[index], layers[index + 1]
    y = F.conv2d(x, conv.weight, padding=conv.padding, stride=conv.stride)
    scale = norm.weight / (norm.running_var + norm.eps).sqrt()
    return (y - norm.running_mean[:, None, None]) * scale[:, None, None] + norm.bias[:, None, None]


@pytest.mark.parametrize("resize", ["asymmetric", "bilinear"])
def test_a_way_up_by_hand(resize: str) -> None:
    """The light neck against the formulas of the paper's figure, level by level."""
    torch.manual_seed(0)
    neck = build_model("resskip300-lite", 1, size=128, resize=resize).neck.eval()
    for norm in (m for m in neck.rev.modules() if isinstance(m, nn.BatchNorm2d)):
        for tensor in (norm.running_mean, norm.running_var, norm.weight.data, norm.bias.data):
            tensor.uniform_(0.5, 1.5)
    maps = {"stride8": (240, 16), "stride16": (672, 8), "stride32": (320, 4)}
    features = {name: torch.randn(2, width, side, side) for name, (width, side) in maps.items()}
    with torch.no_grad():
        found = neck(features)
        down = list((features | neck.extras(features["stride32"])).values())
        x, levels = down[-1], []
        for block, skip in zip(neck.rev, down[-2::-1], strict=True):
            side = skip.shape[-1]
            if resize == "bilinear":
                up = F.interpolate(x, (side, side), mode="bilinear", align_corners=True)
            else:
                up = resize_asymmetric(x, (side, side))
            shortcut = normed(up, block.shortcut, 0) if len(block.shortcut) else up
            inner = normed(torch.cat((up, skip), 1), block.residual, 0).clamp(min=0)
            inner = normed(inner, block.residual, 3).clamp(min=0)
            if not levels:
                levels.append(shortcut.mean((2, 3), keepdim=True))
            x = (shortcut + normed(inner, block.residual, 6)).clamp(min=0)
            levels.append(x)
    assert [x.shape[-1] for x in found] == [16, 8, 4, 2, 1]
    for ours, theirs in zip(found, levels[::-1], strict=True):
        torch.testing.assert_close(ours, theirs, rtol=1e-4, atol=1e-4)


def test_a_block_down_by_hand() -> None:
    torch.manual_seed(0)
    block = build_model("blitznet300-resnet50", 1, size=128).neck.extras["block5"].eval()
    x = torch.randn(1, 2048, 5, 5)
    with torch.no_grad():
        for layer, cells in zip(block, (x[..., ::2, ::2], None), strict=True):
            inner = normed(x, layer.residual, 0).clamp(min=0)
            inner = normed(inner, layer.residual, 3).clamp(min=0)
            skip = x if cells is None else cells
            wanted = (skip + normed(inner, layer.residual, 6)).clamp(min=0)
            x = layer(x)
            torch.testing.assert_close(x, wanted, rtol=1e-4, atol=1e-3)
    assert x.shape == (1, 2048, 3, 3)


def rev(above: int, skip: int, width: int) -> int:
    """Parameters of a block of the way up, with its norms."""
    narrow = width // 4
    shortcut = (above + 2) * width if above != width else 0
    return shortcut + (above + skip + 2) * narrow + (9 * narrow + 2) * narrow + (narrow + 2) * width


def test_parameters_on_vgg16() -> None:
    """SSD300's 26,285,486 with its heads replaced by those of 512 channels."""
    widths = [512, 1024, 512, 256, 256, 256]
    anchors = [4, 6, 6, 6, 4, 4]
    up = (
        rev(256, 256, 512)
        + rev(512, 256, 512)
        + rev(512, 512, 512)
        + rev(512, 1024, 512)
        + rev(512, 512, 512)
    )
    heads = sum((9 * (512 - w)) * a * 25 for w, a in zip(widths, anchors, strict=True))
    network = meta("resskip300-vgg16")
    assert parameters(network) == 26_285_486 + up + heads
    assert torch.equal(
        build_model("resskip300-vgg16", 1).heads.priors, build_model("ssd300-vgg16", 1).heads.priors
    )


@pytest.mark.parametrize(
    ("name", "options", "cells"),
    [
        ("resskip300-lite", {"size": [192, 136]}, [(17, 24), (9, 12), (5, 6), (3, 3), (1, 1)]),
        ("resskip512-resnet50", {}, [(n, n) for n in (64, 32, 16, 8, 4, 2, 1)]),
        ("resskip300-densenet121", {}, [(n, n) for n in (37, 18, 9, 5, 3, 1)]),
        (
            "blitznet300-resnet50",
            {"size": [416, 224]},
            [(56, 104), (28, 52), (14, 26), (7, 13), (4, 7), (2, 4), (1, 2), (1, 1)],
        ),
        ("blitznet300-mobilenetv1", {"size": 128}, [(16, 16), (8, 8), (4, 4), (2, 2), (1, 1)]),
    ],
)
def test_other_sizes_and_backbones(name: str, options: dict[str, Any], cells: list[tuple[int, int]]) -> None:
    network = meta(name, **options)
    width, height = network.image_size
    with torch.device("meta"):
        raw = network.eval()(torch.zeros(1, 3, height, width))
        maps = network.neck(network.backbone(torch.zeros(1, 3, height, width)))
    assert [tuple(x.shape[-2:]) for x in maps] == network.neck.cells == cells
    assert raw.offsets.shape[1] == len(network.heads.priors)


@pytest.mark.parametrize(
    ("name", "options", "message"),
    [
        ("blitznet300-resnet50", {"x4": 1}, "x4 is 1; it is true or false"),
        ("blitznet300-resnet50", {"resize": "nearest"}, "there is no resize 'nearest'"),
        ("resskip300-lite", {"x4": True}, "resskip300-lite has no option 'x4'"),
        ("blitznet300-lite", {}, "blocks of full width; use the neck resskip, or light: false"),
        (
            "blitznet300-densenet121",
            {"x4": True},
            "x4 needs a map of 75 x 75 cells; the backbone has C3 37 x 37",
        ),
        ("blitznet300-resnet50", {"ratios": [[2]] * 7}, "ratios belongs to a table of priors"),
    ],
    ids=str,
)
def test_wrong_options(name: str, options: dict[str, Any], message: str) -> None:
    with pytest.raises(ConfigError) as caught:
        meta(name, **options)
    assert message in str(caught.value)


def test_a_table_of_priors_takes_the_place_of_blitznets() -> None:
    table = meta("blitznet300-resnet50", x4=False, priors="voc").heads.levels
    assert [level.shapes for level in table] == [level.shapes for level in meta("ssd300-vgg16").heads.levels]


# ---------------------------------------------------------------- training and files


def test_every_layer_learns_and_folding_changes_nothing() -> None:
    torch.manual_seed(0)
    network = build_model("blitznet300-resnet50", 2, size=128)
    images = torch.rand(2, 3, 128, 128) * 255
    raw = network(images)
    (raw.offsets.square().sum() + raw.logits.square().sum()).backward()
    assert [k for k, p in network.named_parameters() if p.grad is None or not p.grad.any()] == []
    with torch.no_grad():
        folded = fold(network.eval())
        for ours, theirs in zip(network(images), folded(images), strict=True):
            torch.testing.assert_close(theirs, ours, rtol=1e-3, atol=1e-3 * float(ours.abs().max()))
    assert not any(isinstance(m, nn.BatchNorm2d) for m in folded.modules())


def test_new_layers_are_those_that_an_ssd_lacks() -> None:
    def names(network: Network) -> set[str]:
        fresh = {id(p) for module in network.neck.fresh() for p in module.parameters()}
        return {key.split(".")[0] for key, p in network.neck.named_parameters() if id(p) in fresh}

    assert names(meta("resskip300-vgg16")) == {"rev"}
    assert names(meta("blitznet300-resnet50")) == {"extras", "rev"}


def test_it_trains_evaluates_exports_and_opens(whole_life: Callable[..., Detector]) -> None:
    assert whole_life("resskip300-lite", size=128).network.neck.channels == [160] * 5

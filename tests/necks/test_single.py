"""One map at one scale: every prior of an SSD on one map's cells."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch

from fssd.errors import ConfigError
from fssd.heads.multibox.priors import Level
from fssd.inference.detector import Detector
from fssd.layers.norms import L2Norm
from fssd.model.build import build_model
from fssd.model.cost import parameters
from fssd.model.network import Network


def meta(name: str, classes: int = 20, **options: Any) -> Network:
    with torch.device("meta"):
        return build_model(name, classes, **options)


def shapes(levels: tuple[Level, ...]) -> list[tuple[float, float]]:
    return [shape for level in levels for shape in level.shapes]


@pytest.mark.parametrize("width", ["vgg16", "lite"])
def test_it_has_the_prior_shapes_of_ssd300_on_one_map(width: str) -> None:
    single, ssd = build_model(f"single300-{width}", 1).heads, build_model(f"ssd300-{width}", 1).heads
    assert shapes(single.levels) == shapes(ssd.levels)
    assert [level.anchors for level in single.levels] == [4 + 6 + 6 + 6 + 4 + 4]
    assert len(single.priors) == 30 * 19 * 19
    centres = (single.priors[:, :2] + single.priors[:, 2:]) / 2
    step = 300 / 19
    expected = torch.tensor([[(column + 0.5) * step, 0.5 * step] for column in range(19)])
    torch.testing.assert_close(centres[: 30 * 19], expected.repeat_interleave(30, dim=0))


def test_vgg16_is_its_backbone_and_two_convolutions() -> None:
    body = 14_714_688 + 5_769_216  # VGG16's convolutions, fc6 and fc7
    heads = sum(1024 * 9 * outputs + outputs for outputs in (30 * 4, 30 * 21))
    assert parameters(meta("single300-vgg16")) == body + heads


@pytest.mark.parametrize(
    ("name", "options", "source", "priors"),
    [
        ("single300-vgg16", {}, "fc7", 30 * 19 * 19),
        ("single300-lite", {}, "stride16", 30 * 19 * 19),
        ("single300-densenet121", {}, "C3", 30 * 37 * 37),  # its pools round down: C4 has 18 cells
        ("single300-lite", {"source": "stride32"}, "stride32", 30 * 10 * 10),
        ("single512-vgg16", {}, "fc7", 36 * 32 * 32),
        ("single300-lite", {"size": [416, 224]}, "stride16", 30 * 26 * 14),
        ("single300-vgg16", {"ratios": [[2]] * 6}, "fc7", 24 * 19 * 19),
    ],
)
def test_map_and_priors(name: str, options: dict[str, Any], source: str, priors: int) -> None:
    network = meta(name, **options)
    assert (network.neck.source, len(network.heads.priors)) == (source, priors)
    rows, columns = network.neck.cells[0]
    width, height = network.image_size
    (level,) = network.neck.eval()(network.backbone.eval()(torch.zeros(1, 3, height, width, device="meta")))
    assert tuple(level.shape[2:]) == (rows, columns)


def test_conv4_3_is_scaled_as_in_ssd() -> None:
    assert isinstance(meta("single300-vgg16", source="conv4_3").neck.scale, L2Norm)
    assert not list(meta("single300-vgg16").neck.parameters())


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"source": "conv43"}, "no feature map 'conv43' to predict from; did you mean 'conv4_3'"),
        ({"shared_head": True}, "this network has one, so leave it out"),
        ({"ratios": [[2]]}, "ratios lists 1 levels"),
        ({"merge": "sum"}, "single300-vgg16 has no option 'merge'"),
    ],
)
def test_wrong_options(options: dict[str, Any], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        meta("single300-vgg16", **options)


def test_priors_can_be_fitted_to_its_one_level() -> None:
    heads = build_model("single300-lite", 1, size=128).heads
    boxes = torch.rand(300, 2).mul(80).repeat(1, 2)
    boxes[:, 2:] += torch.rand(300, 2) * 40 + 4
    fitted = heads.fitted(boxes.numpy())
    network = build_model("single300-lite", 1, size=128, **fitted)
    assert [level.anchors for level in network.heads.levels] == [level.anchors for level in heads.levels]


def test_it_trains_evaluates_exports_and_opens(whole_life: Callable[..., Detector]) -> None:
    detector = whole_life("single300-lite")
    assert detector.network.neck.cells == [(10, 10)]

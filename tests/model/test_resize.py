"""The same layers at another input size: what is shared, what moves, and where it cannot be."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import nn

from fssd.errors import ConfigError
from fssd.heads.multibox.priors import make_priors
from fssd.model.build import build_model
from fssd.model.network import Network
from fssd.model.resize import resized, scaled_size
from fssd.necks.neck import Blueprint, Neck, even_steps


def meta(name: str, **options: Any) -> Network:
    with torch.device("meta"):
        return build_model(name, 2, **options)


# Cells of 300 px networks by their kernels: three halvings that round up, then 3x3 without padding twice.
@pytest.mark.parametrize("neck", ["ssd", "fssd", "fpn"])
@pytest.mark.parametrize(
    ("size", "cells"),
    [
        ((400, 400), [(50, 50), (25, 25), (13, 13), (7, 7), (5, 5), (3, 3)]),
        ((500, 500), [(63, 63), (32, 32), (16, 16), (8, 8), (6, 6), (4, 4)]),
        ((512, 300), [(38, 64), (19, 32), (10, 16), (5, 8), (3, 6), (1, 4)]),
    ],
    ids=str,
)
def test_levels_of_another_size(neck: str, size: tuple[int, int], cells: list[tuple[int, int]]) -> None:
    network = build_model(f"{neck}300-lite", 2)
    other = resized(network, size)
    assert other.image_size == size and other.neck.cells == cells
    assert network.image_size == (300, 300) and len(network.heads.priors) == 8732
    with torch.no_grad():
        raw = other(torch.rand(1, 3, size[1], size[0]) * 255)
    count = sum(r * c * a for (r, c), a in zip(cells, (4, 6, 6, 6, 4, 4), strict=True))
    assert raw.offsets.shape == (1, count, 4) == (1, *other.heads.priors.shape)
    assert not other.training and network.training


STRIDES = (8, 16, 32, 64, 64, 64)  # of what the cells of a 300 px network see: the last two have stride 1
# The first centres by hand: mean centre of the 38, 19, 10, 5, 3 and 1 cells of 300 px, less half their span.
FIRST = {
    "ssd300-vgg16": (4, 8, 16, 32, 86, 150),  # as released: 8 * 19 - 8 * 18.5, ...
    "fssd300-vgg16": (2, 6, 6, 22, 86, 150),  # even: 150 - 8 * 18.5, 150 - 16 * 9, ...
}


@pytest.mark.parametrize("name", FIRST)
def test_priors_stand_where_the_layers_have_learned_them(name: str) -> None:
    network = build_model(name, 2)
    levels = resized(network, (400, 400)).heads.levels
    for level, own, stride, first in zip(levels, network.heads.levels, STRIDES, FIRST[name], strict=True):
        assert level.shapes == own.shapes  # in pixels
        priors = make_priors((level,)).reshape(level.rows, level.columns, level.anchors, 4)
        x, y = (priors[..., :2] + priors[..., 2:]).div(2).unbind(dim=-1)
        expected = first + stride * torch.arange(level.columns)
        torch.testing.assert_close(x[0, :, 0], expected.float(), rtol=0, atol=1e-3)
        torch.testing.assert_close(y[:, 0, -1], expected.float(), rtol=0, atol=1e-3)


def test_a_neck_of_the_users_own_size_keeps_it() -> None:
    """Its maps have fixed sizes, whose cells share the image."""

    class Fixed(Neck):
        @classmethod
        def build(cls, blueprint: Blueprint) -> Fixed:
            neck = cls([8], [(5, 5)], even_steps(blueprint.image_size, [(5, 5)]))
            neck.prior_scales = [3]
            return neck

        def forward(self, features: dict[str, torch.Tensor]) -> list[torch.Tensor]:
            return [F.adaptive_avg_pool2d(features["fine"][:, :8], (5, 5))]

    network = build_model("single300-vgg16", 1, backbone=Maps(), size=250)
    blueprint = Blueprint("own", (250, 250), {}, False, {})
    network.neck = Fixed.build(blueprint)
    (level,) = resized(network, (400, 400)).heads.levels
    assert (level.rows, level.columns, level.step) == (5, 5, (80, 80))


class Maps(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.conv = nn.Conv2d(3, 8, 16, 16)

    def forward(self, images: torch.Tensor) -> dict[str, torch.Tensor]:
        return {"fine": self.conv(images)}


def test_taps_that_have_only_met_padding_are_left_out() -> None:
    """On one cell a padded 3x3 has learned its middle alone, on 2 x 2 a padded 4x4 its inner 2 x 2."""
    network = build_model("ssd512-vgg16", 1)
    own, other = dict(network.named_parameters()), dict(resized(network, (600, 600)).named_parameters())
    changed = {key for key in own if own[key] is not other[key]}
    assert changed == {"neck.extras.conv10_2.0.weight", "heads.loc.6.weight", "heads.conf.6.weight"}
    for key in changed:
        inner = slice(1, -1)
        assert torch.equal(other[key][..., inner, inner], own[key][..., inner, inner])
        rest = other[key].clone()
        rest[..., inner, inner] = 0
        assert not rest.any() and own[key].all()


def test_a_head_for_all_levels_keeps_what_any_of_them_taught_it() -> None:
    """Only the last level has one cell; all the others use the outer taps."""
    network = build_model("fpn300-vgg16", 1, shared_head=True)
    own, other = dict(network.named_parameters()), dict(resized(network, (332, 332)).named_parameters())
    for key in ("heads.loc.0.weight", "heads.conf.0.weight"):
        assert torch.equal(other[key], own[key])


@pytest.mark.parametrize(
    ("name", "cells"),
    [("single300-vgg16", [(25, 25)]), ("dsod300", [(50, 50), (25, 25), (13, 13), (7, 7), (4, 4), (2, 2)])],
)
def test_other_necks(name: str, cells: list[tuple[int, int]]) -> None:
    network = meta(name)
    assert resized(network, (400, 400)).neck.cells == cells


def test_clipped_priors_are_clipped_at_the_new_border() -> None:
    network = build_model("ssd300-lite", 1, clip="all")
    priors = resized(network, (400, 400)).heads.priors
    centres = (priors[:, :2] + priors[:, 2:]) / 2
    assert 300 < float(centres.max()) <= 400


def test_a_size_at_which_maps_vanish_is_refused_with_those_that_work() -> None:
    """33 cells are 17, 9, 5, 3 and 1; 32 are 16, 8, 4, 2 and none: it works from 257 px on."""
    with pytest.raises(ConfigError) as caught:
        resized(meta("fssd300-vgg16"), (256, 256))
    message = str(caught.value)
    assert "fssd300-vgg16 of 300 x 300 px cannot run on 256 x 256 px" in message
    assert message.endswith("it works with sides of 257 to 1024 px")
    resized(meta("fssd300-vgg16"), (257, 257))


def test_deconvolutions_fit_few_sizes() -> None:
    """Their kernels are for 38, 19, 10, 5, 3 and 1 cells, which are those of 297 to 304 px."""
    with pytest.raises(ConfigError, match="it works with sides of 297 to 304 px"):
        resized(meta("rssd300-vgg16"), (400, 400))


def test_a_backbone_with_multiples() -> None:
    class Steps(Maps):
        multiple = 32

    network = build_model("single300-vgg16", 1, size=256, backbone=Steps())
    assert resized(network, (320, 320)).neck.cells == [(20, 20)]
    with pytest.raises(ConfigError, match=r"300 x 300 px.* with sides of 128 to 1024 px, in steps of 32"):
        resized(network, (300, 300))


def test_yolov2_takes_every_32nd_size() -> None:
    """Its cells have 32 px at any size, which it is trained at."""
    network = build_model("yolov2-416", 2, width=8)
    other = resized(network, (480, 480))
    assert other.heads.grid == network.heads.grid._replace(rows=15, columns=15, image_size=(480, 480))
    with torch.no_grad():
        (raw,) = other(torch.rand(1, 3, 480, 480) * 255)
    assert raw.shape[2:] == (15, 15)
    with pytest.raises(ConfigError, match="with sides of 128 to 1024 px, in steps of 32"):
        resized(network, (400, 400))


def test_yolov2_on_a_backbone_that_rounds_up_is_refused_between() -> None:
    """13 cells of 32 px are 416 px; 410 px would put the centres of cells beside those of the layers."""
    network = build_model("yolov2-416", 2, backbone="mobilenetv1", width=8)
    with pytest.raises(ConfigError, match="410 x 410 px"):
        resized(network, (410, 410))


def test_a_module_that_looks_at_values(tiny_backbone: Callable[[], nn.Module]) -> None:
    class Looks(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.inner = tiny_backbone()

        def forward(self, images: torch.Tensor) -> dict[str, torch.Tensor]:
            assert float(images.mean()) < 1e9
            return self.inner(images)  # type: ignore[no-any-return]

    network = build_model("fssd300-lite", 1, backbone=Looks())
    assert resized(network, (400, 400)).neck.cells[0] == (50, 50)


@pytest.mark.parametrize(
    ("size", "side", "scaled"),
    [((300, 300), 400, (400, 400)), ((416, 224), 208, (208, 112)), ((224, 416), 832, (448, 832))],
)
def test_the_longer_side_is_scaled(size: tuple[int, int], side: int, scaled: tuple[int, int]) -> None:
    assert scaled_size(size, side) == scaled

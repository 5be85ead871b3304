"""FPN on SSD: a top-down path through SSD's levels (FSSD paper, Fig. 1 c; Lin et al. 2017).

Neither paper gives this network; the choices here are ours, see docs/paper-to-code.md.
"""

from __future__ import annotations

from collections.abc import Iterable

import torch.nn.functional as F
from torch import Tensor, nn

from fssd.errors import ConfigError, nearest
from fssd.layers.blocks import ConvReLU, LiteBlock
from fssd.layers.enlarge import resize_bilinear
from fssd.layers.norms import light_norm
from fssd.necks.neck import Blueprint
from fssd.necks.pyramid import LIGHT_WIDTHS
from fssd.necks.ssd import SSD, AnySSD

WIDTH = 256  # channels of every level
RESIZES = ("nearest", "bilinear")


class FPN(SSD):
    """p_i = lateral_i(level i of SSD) + p_(i + 1) resized to its size; level i is smooth_i(p_i).

    resize: "nearest", or "bilinear" with aligned corners as in FSSD's fusion.
    """

    known_options = SSD.known_options | {"resize", "relu"}
    lateral: nn.ModuleList
    smooth: nn.ModuleList
    resize: str

    @classmethod
    def build(cls: type[AnySSD], blueprint: Blueprint) -> AnySSD:
        """1x1 and 3x3 convolutions of 256 channels; at light width 1x1 with batch norm and light blocks.

        Options: resize, see the class. relu: whether a ReLU follows each 3x3; without it, as in the FPN of
        Lin et al., neck and head together are one linear map.
        """
        resize, relu = blueprint.options.get("resize", "nearest"), blueprint.options.get("relu", True)
        if resize not in RESIZES:
            raise ConfigError(f"there is no resize {resize!r}{nearest(str(resize), RESIZES)}")
        if not isinstance(relu, bool):
            raise ConfigError(f"relu is {relu!r}; it is true or false")
        if blueprint.light and not relu:
            raise ConfigError("the light blocks of this FPN end in ReLU6; leave out relu")
        neck = super().build(blueprint)
        width = LIGHT_WIDTHS[-1] if blueprint.light else WIDTH
        make_lateral = _light_lateral if blueprint.light else _lateral
        make_smooth = LiteBlock if blueprint.light else ConvReLU if relu else _conv
        neck.lateral = nn.ModuleList(make_lateral(inputs, width) for inputs in neck.channels)
        neck.smooth = nn.ModuleList(make_smooth(width, width, 3, 1, 1) for _ in neck.channels)
        neck.channels = [width] * len(neck.channels)
        neck.resize = resize
        return neck

    def forward(self, features: dict[str, Tensor]) -> list[Tensor]:
        """See `Neck`."""
        sides = [lateral(x) for lateral, x in zip(self.lateral, super().forward(features), strict=True)]
        merged = sides[-1:]  # coarsest first
        for side in reversed(sides[:-1]):
            merged.append(side + self._enlarge(merged[-1], (side.shape[-2], side.shape[-1])))
        return [smooth(x) for smooth, x in zip(self.smooth, reversed(merged), strict=True)]

    def _enlarge(self, x: Tensor, size: tuple[int, int]) -> Tensor:
        if self.resize == "bilinear":
            return resize_bilinear(x, size)
        return F.interpolate(x, size, mode="nearest")  # source = floor(target * in / out): 10 to 19 too

    def level_sources(self) -> list[tuple[str, ...]]:
        """See `Neck`: SSD's map of the level and all coarser ones."""
        return [tuple(self.taken[level:]) for level, _ in enumerate(self.taken)]

    def fresh(self) -> Iterable[nn.Module]:
        """See `Neck`."""
        return (self.lateral, self.smooth)


def _lateral(inputs: int, width: int) -> nn.Module:
    return nn.Conv2d(inputs, width, 1)


def _light_lateral(inputs: int, width: int) -> nn.Module:
    return nn.Sequential(nn.Conv2d(inputs, width, 1, bias=False), light_norm(width))


def _conv(inputs: int, outputs: int, kernel: int, stride: int, padding: int) -> nn.Module:
    return nn.Sequential(nn.Conv2d(inputs, outputs, kernel, stride, padding))

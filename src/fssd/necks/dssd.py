"""DSSD: SSD's levels, coarsest first, deconvolved and merged with the next finer one (Fu et al. 2017).

Source: chengyangfu/caffe, branch dssd, CombineFeature and AddDeconvLayers; the paper's Fig. 3.
"""

from __future__ import annotations

from collections.abc import Iterable

from torch import Tensor, nn

from fssd.errors import ConfigError, nearest
from fssd.layers.blocks import ConvNorm
from fssd.layers.depthwise import DepthwiseConv2d
from fssd.layers.enlarge import enlarging_window
from fssd.layers.norms import light_norm
from fssd.necks.neck import Blueprint, Cells
from fssd.necks.pyramid import LIGHT_WIDTHS
from fssd.necks.ssd import SSD, AnySSD

WIDTH = 512  # channels of every merged level
MERGES = ("product", "sum")


class Deconvolution(nn.Module):
    """ReLU(above(enlarge(coarse)) * side(fine)), or of their sum."""

    def __init__(self, enlarge: nn.Module, above: nn.Module, side: nn.Module, merge: str) -> None:
        super().__init__()
        self.enlarge, self.above, self.side = enlarge, above, side
        self.merge = merge

    def forward(self, coarse: Tensor, fine: Tensor) -> Tensor:
        """Maps (B, C, H, W) to one of the size of `fine`."""
        above: Tensor = self.above(self.enlarge(coarse))
        side: Tensor = self.side(fine)
        return (above * side if self.merge == "product" else above + side).relu()


class DSSD(SSD):
    """deconvolutions[i] makes level i of the merged level i + 1 and SSD's level i; the last is SSD's own."""

    known_options = SSD.known_options | {"merge"}
    deconvolutions: nn.ModuleList

    @classmethod
    def build(cls: type[AnySSD], blueprint: Blueprint) -> AnySSD:
        """512 channels a level, or the light width.

        Options: merge: "product", or "sum", which the paper compares it with. extras: see `SSD.build`.
        """
        merge = blueprint.options.get("merge", MERGES[0])
        if merge not in MERGES:
            raise ConfigError(f"DSSD has no merge {merge!r}{nearest(str(merge), MERGES)}")
        neck = super().build(blueprint)
        width = LIGHT_WIDTHS[-1] if blueprint.light else WIDTH
        make = _light if blueprint.light else _full
        merged = [*[width] * (len(neck.channels) - 1), neck.channels[-1]]
        neck.deconvolutions = nn.ModuleList(
            make(merged[i + 1], fine, width, (neck.cells[i + 1], neck.cells[i]), merge)
            for i, fine in enumerate(neck.channels[:-1])
        )
        neck.channels = merged
        return neck

    def forward(self, features: dict[str, Tensor]) -> list[Tensor]:
        """See `Neck`."""
        *finer, last = super().forward(features)
        merged = [last]  # coarsest first
        for deconvolution, fine in zip(reversed(self.deconvolutions), reversed(finer), strict=True):
            merged.append(deconvolution(merged[-1], fine))
        return merged[::-1]

    def level_sources(self) -> list[tuple[str, ...]]:
        """See `Neck`: SSD's map of the level and all coarser ones."""
        return [tuple(self.taken[level:]) for level, _ in enumerate(self.taken)]

    def fresh(self) -> Iterable[nn.Module]:
        """See `Neck`."""
        return (self.deconvolutions,)

    def shared_levels(self) -> Iterable[int]:
        """See `Neck`: the last, which nothing is merged into."""
        return (len(self.channels) - 1,)


def _windows(coarse: Cells, fine: Cells) -> tuple[Cells, Cells, Cells]:
    """Kernel, stride and padding, vertical and horizontal, of a deconvolution between two levels."""
    rows, columns = (_window(*sides) for sides in zip(coarse, fine, strict=True))
    kernel, stride, padding = zip(rows, columns, strict=True)
    return kernel, stride, padding


def _window(coarse: int, fine: int) -> tuple[int, int, int]:
    """Kernel, stride and padding that make `fine` cells of `coarse`: (coarse - 1) * s + k - 2 p.

    A single cell is spread by the kernel alone. Twice the cells take a stride of 2; so does one less (a level
    that rounded up), with padding, or one more. Two more take a kernel of 3, as 3 to 5 in DSSD321.
    """
    if coarse == 1:
        return fine, 1, 0
    if fine == coarse + 2 and fine != 2 * coarse:
        return 3, 1, 0
    return enlarging_window(coarse, fine)


def _full(coarse: int, fine: int, width: int, sizes: tuple[Cells, Cells], merge: str) -> Deconvolution:
    """The paper's: a deconvolution with bias and a 3x3; two 3x3, a ReLU between. Batch norm on each 3x3."""
    return Deconvolution(
        nn.ConvTranspose2d(coarse, width, *_windows(*sizes)),
        ConvNorm(width, width, 3, padding=1, relu=False),
        nn.Sequential(ConvNorm(fine, width, 3, padding=1), ConvNorm(width, width, 3, padding=1, relu=False)),
        merge,
    )


def _light(coarse: int, fine: int, width: int, sizes: tuple[Cells, Cells], merge: str) -> Deconvolution:
    """Ours: a depthwise deconvolution, then a 1x1; a separable convolution. All with batch norm."""
    return Deconvolution(
        nn.ConvTranspose2d(coarse, coarse, *_windows(*sizes), groups=coarse),
        nn.Sequential(nn.Conv2d(coarse, width, 1, bias=False), light_norm(width)),
        nn.Sequential(
            DepthwiseConv2d(fine, 3, padding=1),
            light_norm(fine),
            nn.ReLU6(inplace=True),
            nn.Conv2d(fine, width, 1, bias=False),
            light_norm(width),
        ),
        merge,
    )

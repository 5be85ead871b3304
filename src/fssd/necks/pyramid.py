"""The pyramid extractor of FSSD: paper 3.1, equation 2, X'_p = phi_p(X_f), and its three forms of Fig. 3."""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

from torch import Tensor, nn

from fssd.necks.neck import Cells
from fssd.necks.windows import HALVE, SAME, Window, windows_below

Block = Callable[[int, int, int, int, int], nn.Module]  # (inputs, outputs, kernel, stride, padding)
WIDTHS = (512, 512, 256)  # output channels of the first blocks; all further blocks have the last
LIGHT_WIDTHS = (160,)  # one width, so that only the first shortcut needs a 1x1


class Row(NamedTuple):
    """One block of the pyramid. `name` counts strides from the fused map, as the released layers do."""

    name: str
    outputs: int
    window: Window


def pyramid_rows(finest: Cells, widths: tuple[int, ...] = WIDTHS, halved: bool = False) -> tuple[Row, ...]:
    """ds_1, ds_2, ds_4, ... from a first level of so many rows and columns down to one cell.

    halved: the fused map has twice the rows and columns of the first level, else as many.
    """
    windows = [HALVE if halved else SAME, *windows_below(finest)]
    return tuple(
        Row(f"ds_{2**index}", widths[min(index, len(widths) - 1)], window)
        for index, window in enumerate(windows)
    )


class Pyramid(nn.Module):
    """A chain of blocks on the fused map; every block's output is a level.

    with_fused: the fused map itself is the first level and ds_1 is left out, Fig. 3 (a); otherwise the
    levels come after it, Fig. 3 (b), or (c) when `block` is a bottleneck.
    """

    def __init__(self, inputs: int, rows: tuple[Row, ...], block: Block, with_fused: bool = False) -> None:
        super().__init__()
        self.with_fused = with_fused
        rows = rows[1:] if with_fused else rows
        self.channels = [inputs] if with_fused else []
        self.blocks = nn.ModuleDict()
        for row in rows:
            self.blocks[row.name] = block(inputs, row.outputs, *row.window)
            inputs = row.outputs
            self.channels.append(inputs)

    def forward(self, fused: Tensor) -> list[Tensor]:
        """(B, C, H, W) to one map a level, finest first."""
        levels = [fused] if self.with_fused else []
        x = fused
        for block in self.blocks.values():
            x = block(x)
            levels.append(x)
        return levels

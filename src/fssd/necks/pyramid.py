"""The pyramid extractor of FSSD: paper 3.1, equation 2, X'_p = phi_p(X_f), and its three forms of Fig. 3."""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

from torch import Tensor, nn

Block = Callable[[int, int, int, int, int], nn.Module]  # (inputs, outputs, kernel, stride, padding)


class Row(NamedTuple):
    """One block of the pyramid. `name` counts strides from the fused map, as the released layers do."""

    name: str
    outputs: int
    kernel: int
    stride: int
    padding: int


_FIRST = (
    Row("ds_1", 512, 3, 1, 1),
    Row("ds_2", 512, 3, 2, 1),
    Row("ds_4", 256, 3, 2, 1),
    Row("ds_8", 256, 3, 2, 1),
)

PYRAMIDS = {
    # 5 -> 3 -> 1 without stride or padding: the paper's text says stride 2, the released network does this.
    300: (*_FIRST, Row("ds_16", 256, 3, 1, 0), Row("ds_32", 256, 3, 1, 0)),
    512: (*_FIRST, Row("ds_16", 256, 3, 2, 1), Row("ds_32", 256, 3, 2, 1), Row("ds_64", 256, 4, 1, 1)),
}

LITE_PYRAMID = (  # one width, so that no shortcut but the first needs a 1x1
    Row("ds_1", 160, 3, 1, 1),
    Row("ds_2", 160, 3, 2, 1),
    Row("ds_4", 160, 3, 2, 1),
    Row("ds_8", 160, 3, 2, 1),
    Row("ds_16", 160, 3, 1, 0),
    Row("ds_32", 160, 3, 1, 0),
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
            self.blocks[row.name] = block(inputs, row.outputs, row.kernel, row.stride, row.padding)
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

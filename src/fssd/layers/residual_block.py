"""The residual block of DSSD: its appended layers and its prediction modules are made of it."""

from __future__ import annotations

from torch import Tensor, nn

from fssd.layers.blocks import ConvNorm

Pair = tuple[int, int]  # vertical, horizontal


class ResidualBlock(nn.Module):
    """1x1 to `width`, `middle` x `middle`, 1x1 to `outputs`, added to the skip, then ReLU.

    kernel, stride: of the first convolution and of that on the skip, without padding. projected: whether
    there is one on the skip; without, the input itself is added. Source: chengyangfu/caffe, branch dssd,
    ResBody (DSSD's figure shows a 1x1 in the middle, the code has a 3x3).
    """

    def __init__(
        self,
        inputs: int,
        width: int,
        outputs: int,
        kernel: Pair = (1, 1),
        stride: Pair = (1, 1),
        middle: int = 3,
        projected: bool = True,
    ) -> None:
        super().__init__()
        self.skip: nn.Module = nn.Identity()
        if projected:
            self.skip = ConvNorm(inputs, outputs, kernel, stride, relu=False)
        self.body = nn.Sequential(
            ConvNorm(inputs, width, kernel, stride),
            ConvNorm(width, width, middle, padding=middle // 2),
            ConvNorm(width, outputs, 1, relu=False),
        )

    def forward(self, x: Tensor) -> Tensor:
        """(B, inputs, H, W) to (B, outputs, H', W')."""
        out: Tensor = (self.skip(x) + self.body(x)).relu()
        return out

"""The multibox heads: paper 3.1, equation 3. Per level one predictor of offsets and one of class scores."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import torch
from torch import Tensor, nn

Predictor = Callable[[int, int], nn.Module]  # (inputs, outputs)


def conv_predictor(inputs: int, outputs: int) -> nn.Module:
    """3x3 convolution with bias, no activation."""
    return nn.Conv2d(inputs, outputs, 3, padding=1)


class Heads(nn.Module):
    """channels: width of each level's map. anchors: priors a cell of each level. classes: with background."""

    def __init__(
        self,
        channels: Sequence[int],
        anchors: Sequence[int],
        classes: int,
        predictor: Predictor = conv_predictor,
    ) -> None:
        super().__init__()
        self.classes = classes
        self.loc = nn.ModuleList(predictor(c, a * 4) for c, a in zip(channels, anchors, strict=True))
        self.conf = nn.ModuleList(predictor(c, a * classes) for c, a in zip(channels, anchors, strict=True))

    def class_layers(self) -> list[str]:
        """Names, from here, of the convolutions that put out class scores: the last of each predictor."""
        return [
            [name for name, m in predictor.named_modules(prefix=f"conf.{i}") if isinstance(m, nn.Conv2d)][-1]
            for i, predictor in enumerate(self.conf)
        ]

    def forward(self, levels: list[Tensor]) -> tuple[Tensor, Tensor]:
        """Level maps to offsets (B, P, 4) and logits (B, P, classes), in the order of the priors."""
        offsets = [_flatten(head(x), 4) for head, x in zip(self.loc, levels, strict=True)]
        logits = [_flatten(head(x), self.classes) for head, x in zip(self.conf, levels, strict=True)]
        return torch.cat(offsets, dim=1), torch.cat(logits, dim=1)


def _flatten(x: Tensor, last: int) -> Tensor:
    # (B, A * last, H, W) -> (B, H * W * A, last): cell by cell, then anchor, as the priors are listed.
    return x.permute(0, 2, 3, 1).reshape(x.shape[0], -1, last)

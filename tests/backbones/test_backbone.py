"""What a backbone's maps are like, found by running it."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
from torch import Tensor, nn

from fssd.backbones.backbone import MapShape, probe_shapes


class LooksAtValues(nn.Module):
    def __init__(self, look: Callable[[Tensor], object]) -> None:
        super().__init__()
        self.conv = nn.Conv2d(3, 8, 3, stride=2, padding=1)
        self.look = look

    def forward(self, x: Tensor) -> dict[str, Tensor]:
        maps = self.conv(x)
        self.look(maps)
        return {"half": maps}


@pytest.mark.parametrize(
    "look", [lambda x: x.numpy(), lambda x: x.max().item(), lambda x: x + torch.zeros(8, 1, 1)]
)
def test_one_that_looks_at_values_is_run_on_an_image(look: Callable[[Tensor], object]) -> None:
    assert probe_shapes(LooksAtValues(look), 64, 32) == {"half": MapShape(8, 16, 32)}

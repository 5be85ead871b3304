"""The slopes that a fit goes down, beside those that autograd finds for the loss written down plainly."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

from fssd.heads.multibox.missed import Slots, missed_slopes


def overlaps(middles: Tensor, shapes: Tensor, centres: Tensor, slots: Slots) -> Tensor:
    """(N, A) IoU of each box with each prior in the nearest cell on each axis."""
    shared = torch.ones(len(middles), len(shapes))
    for axis in (0, 1):
        middle, size = middles[:, axis, None], middles[:, axis + 2, None]
        step, cells, centre, prior = (value[:, axis] for value in (*slots, centres, shapes))
        cell = torch.minimum((middle / step - centre).round().clamp(min=0), cells - 1).detach()
        distance = (middle - (cell + centre) * step).abs()
        whole, part = torch.minimum(size, prior), (size + prior) / 2 - distance
        shared = shared * torch.minimum(whole, part).clamp(min=0)
    areas = middles[:, 2:3] * middles[:, 3:4] + shapes[:, 0] * shapes[:, 1]
    return shared / (areas - shared)


@pytest.mark.parametrize("softness", [0.1, 0.02])
def test_slopes_are_autograds_to_the_last_bit(softness: float) -> None:
    generator = torch.Generator().manual_seed(0)

    def draw(*shape: int) -> Tensor:
        return torch.rand(*shape, generator=generator)

    slots = Slots(5 + 30 * draw(30, 2), torch.randint(1, 40, (30, 2), generator=generator).float())
    middles = torch.cat((300 * draw(900, 2), 2 + 100 * draw(900, 2)), dim=1)
    shapes, centres = 2 + 100 * draw(30, 2), draw(30, 2)
    shapes[:5] = middles[:5, 2:]  # as large as a box, as at the start of a fit
    middles[:5, :2] = centres[:5] * slots.step[:5]  # and in the same place
    shapes.requires_grad_()
    centres.requires_grad_()
    margins = overlaps(middles, shapes, centres, slots) - 0.5 - softness / 2
    missed = torch.nn.functional.logsigmoid(-margins / softness).sum(dim=1).exp()
    missed.mean().backward()  # type: ignore[no-untyped-call]
    of_shapes, of_centres = missed_slopes(middles, shapes.detach(), centres.detach(), slots, softness)
    assert torch.equal(of_shapes, shapes.grad)
    assert torch.equal(of_centres, centres.grad)

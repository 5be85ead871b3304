"""How the share of boxes that no prior covers falls as priors change: the slopes that `fit` goes down.

Worked out by hand, as a fit takes 800 of them and autograd needs more than twice as long for each. Every step
is the one that autograd takes, so that the priors are the same to the last bit.
"""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor

from fssd.heads.multibox.match import MATCHED


class Slots(NamedTuple):
    """The grid of each of A priors, x before y: step (A, 2) in pixels, cells (A, 2)."""

    step: Tensor
    cells: Tensor


class _Axis(NamedTuple):
    """Of each of N boxes and A priors on one axis, all (N, A).

    shared: pixels that both have, with the prior in the best cell for the box. overlapping: 1 where that is
    not negative, else 0. partly: 1 where neither holds the other, 0 where one does, 0.5 between the two.
    smaller: 1 where the prior is the smaller, 0 where the box is, 0.5 where they are equal. pull: by how many
    pixels a prior comes nearer as its centre moves by a cell.
    """

    shared: Tensor
    overlapping: Tensor
    partly: Tensor
    smaller: Tensor
    pull: Tensor


def missed_slopes(
    middles: Tensor, shapes: Tensor, centres: Tensor, slots: Slots, softness: float
) -> tuple[Tensor, Tensor]:
    """The slopes of the expected share of boxes that no prior covers: for shapes (A, 2) and centres (A, 2).

    Prior a covers a box with probability sigmoid((IoU - 0.5) / softness), independently of the others, from
    the best cell for it. middles: (N, 4) x and y of the middle, width and height of the boxes. shapes: width
    and height in pixels. centres: in shares of the cell.
    """
    x, y = (
        _axis(
            middles[:, axis, None],
            middles[:, axis + 2, None],
            *(value[:, axis].contiguous() for value in (*slots, centres, shapes)),
        )
        for axis in (0, 1)
    )
    width, height = shapes.unbind(dim=1)
    shared = x.shared * y.shared
    union = (middles[:, 2:3] * middles[:, 3:4] + width * height).sub_(shared)
    overlap = shared.div_(union)
    slope = _overlap_slope(overlap, softness)
    union_slope = overlap.div_(union).mul_(slope).neg_()
    shared_slope = slope.div_(union).sub_(union_slope)
    area = union_slope.sum(dim=0)
    widths, columns = _axis_slopes(x, shared_slope * y.shared)
    heights, rows = _axis_slopes(y, shared_slope.mul_(x.shared))
    shape_slopes = torch.stack((widths + area * height, heights + area * width), dim=1)
    return shape_slopes, torch.stack((columns, rows), dim=1)


def _axis(middle: Tensor, size: Tensor, step: Tensor, cells: Tensor, centre: Tensor, prior: Tensor) -> _Axis:
    """middle, size: of the boxes, (N, 1). The others: of the priors, (A,).

    The best cell is the nearest one on each axis, because overlap never grows with distance.
    """
    cell = torch.minimum((middle / step).sub_(centre).round_().clamp_(min=0), cells - 1)
    away = middle - cell.add_(centre).mul_(step)
    least = torch.minimum(size, prior)
    part = (size + prior).div_(2).sub_(away.abs())
    shared = torch.minimum(least, part)
    overlapping = torch.ge(shared, 0, out=torch.empty_like(shared))
    partly, smaller = _less(part, least), _less(prior, size)
    return _Axis(shared.clamp_(min=0), overlapping, partly, smaller, away.sgn_().mul_(step))


def _less(one: Tensor, other: Tensor) -> Tensor:
    """1 where one is less than the other, 0 where it is more, 0.5 where they are equal: of a minimum's slope.

    The comparisons give numbers at once, as truth values are slow to turn into them.
    """
    strictly = torch.lt(one, other, out=other.new_empty(0))
    return torch.le(one, other, out=other.new_empty(0)).add_(strictly).div_(2)


def _overlap_slope(overlap: Tensor, softness: float) -> Tensor:
    """(N, A) slope of the mean over boxes of the chance that all priors miss, by the IoU of each."""
    excess = (overlap - MATCHED).sub_(softness / 2).div_(-softness)
    logs, memory = torch.ops.aten.log_sigmoid_forward(excess)
    missed = logs.sum(dim=1).exp_()
    by_log = torch.ones_like(missed).div_(len(missed)).mul_(missed)[:, None].expand_as(excess)
    slope: Tensor = torch.ops.aten.log_sigmoid_backward(by_log, excess, memory)
    return slope.div_(-softness)


def _axis_slopes(axis: _Axis, slope: Tensor) -> tuple[Tensor, Tensor]:
    """From (N, A) of what is shared on an axis, (A,) of the priors' sizes and (A,) of their centres."""
    slope = slope.mul_(axis.overlapping)
    part = slope * axis.partly
    whole = (1 - axis.partly).mul_(slope).mul_(axis.smaller)
    centres = (part * axis.pull).sum(dim=0)
    return whole.sum(dim=0) + part.div_(2).sum(dim=0), centres

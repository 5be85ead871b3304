"""Adaptive training sample selection: every object has its own IoU threshold (Zhang et al. 2020, 3.2)."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
import numpy.typing as npt

from fssd.heads.multibox.match import Floats, Owners, bipartite_pairs, overlap

NEAREST = 9  # candidates of each level and shape (the paper's k)


class PriorGroup(NamedTuple):
    """The priors of one level, cell by cell. cells, shapes: how many there are; shapes in each cell."""

    cells: int
    shapes: int


def match_atss(boxes: Floats, priors: Floats, groups: Sequence[PriorGroup]) -> Owners:
    """Match objects to priors of one image.

    boxes: (G, 4) xyxy. priors: (P, 4) xyxy in the same unit, level by level as `groups` says. Returns (P,)
    int64: the object of each prior, or -1 for background.

    Candidates of an object are on each level, of each shape of prior, the nine whose centres lie nearest to
    the object's; of equally near ones the first. (The authors' code takes nine times as many candidates where
    a cell has several shapes.) Those become positive whose IoU with the object is at least the mean plus the
    standard deviation (n - 1, as in that code) of all of them, and whose centre lies in the object. A prior
    that several objects want goes to the one that it overlaps most.

    An object that gets no prior so, as most do that are smaller than a cell, takes the free prior that
    overlaps it most, as in SSD; the paper leaves it out.
    """
    owner = np.full(len(priors), -1, np.int64)
    if len(boxes) == 0:
        return owner
    centres = (priors[:, :2] + priors[:, 2:]) * np.float32(0.5)  # (P, 2)
    wanted = np.concatenate([_nearest(boxes, centres, group) for group in _spans(groups)], axis=1)  # (G, K)
    shares = _candidate_overlaps(boxes, priors[wanted])  # (G, K) float64
    spread = shares.std(axis=1, ddof=1) if shares.shape[1] > 1 else 0.0
    good = shares >= (shares.mean(axis=1) + spread)[:, None]
    x, y = np.moveaxis(centres[wanted], -1, 0)  # (G, K) each
    x1, y1, x2, y2 = boxes.T[:, :, None]
    good &= (x > x1) & (x < x2) & (y > y1) & (y < y2)
    best = np.zeros(len(priors))
    for g in range(len(boxes)):
        rows = good[g]
        own, share = wanted[g, rows], shares[g, rows]
        better = share > best[own]
        owner[own[better]] = g
        best[own[better]] = share[better]
    lost = np.setdiff1d(np.arange(len(boxes)), owner)
    if len(lost):
        left = np.where(owner < 0, overlap(boxes[lost], priors), np.float32(0))
        for g, p in bipartite_pairs(left):
            owner[p] = lost[g]
    return owner


class _Span(NamedTuple):
    first: int
    group: PriorGroup


def _spans(groups: Sequence[PriorGroup]) -> list[_Span]:
    """Each group with the index of its first prior."""
    firsts = np.cumsum([0, *(group.cells * group.shapes for group in groups)])
    return [_Span(int(first), group) for first, group in zip(firsts, groups, strict=False)]


def _nearest(boxes: Floats, centres: Floats, span: _Span) -> npt.NDArray[np.intp]:
    """Indices (G, K) of the candidates in one group. boxes: (G, 4). centres: (P, 2) of all priors."""
    first, (cells, shapes) = span
    count = min(NEAREST, cells)
    x, y = np.ascontiguousarray(centres[first : first + cells * shapes].T).reshape(2, cells, shapes)
    if (x == x[:, :1]).all() and (y == y[:, :1]).all():  # all shapes of a cell at one point: look once
        x, y = x[:, :1], y[:, :1]
    own_x, own_y = ((boxes[:, k] + boxes[:, k + 2]) * np.float32(0.5) for k in (0, 1))
    distance = np.square(x.T - own_x[:, None, None]) + np.square(
        y.T - own_y[:, None, None]
    )  # (G, shapes or 1, cells)
    cell = _smallest(distance, count)  # (G, shapes or 1, count)
    place = first + cell * shapes + np.arange(shapes)[:, None]  # (G, shapes, count)
    return np.asarray(place.reshape(len(boxes), -1))


def _smallest(values: Floats, count: int) -> npt.NDArray[np.intp]:
    """Indices of the `count` smallest of the last axis, ascending; of equal values the first.

    argpartition would choose among equal ones by the processor's instructions.
    """
    limit = np.partition(values, count - 1, axis=-1)[..., count - 1 : count]
    below = values < limit
    equal = values == limit
    rank = np.cumsum(equal, axis=-1) + np.count_nonzero(below, axis=-1)[..., None]
    chosen = below | (equal & (rank <= count))
    return np.nonzero(chosen)[-1].reshape(*values.shape[:-1], count)


def _candidate_overlaps(boxes: Floats, priors: Floats) -> npt.NDArray[np.float64]:
    """IoU of boxes (G, 4), each with its own priors (G, K, 4): (G, K)."""
    own, other = boxes.astype(np.float64)[:, None], priors.astype(np.float64)
    low, high = np.maximum(own[..., :2], other[..., :2]), np.minimum(own[..., 2:], other[..., 2:])
    shared = (high - low).clip(0).prod(axis=-1)
    union = (own[..., 2:] - own[..., :2]).prod(axis=-1) + (other[..., 2:] - other[..., :2]).prod(axis=-1)
    union -= shared
    return np.asarray(np.divide(shared, union, out=np.zeros_like(shared), where=union > 0))

"""Prior boxes that fit a data set: shapes and centres that give most training boxes a prior at IoU >= 0.5.

The IoU is taken with the priors at their positions on the grid, not with shapes at a common centre: an object
that is small beside the cell step can lie between the centres. Shapes and centres are therefore optimised
together, by Adam on a smooth form of the coverage, starting from random training boxes. Copies of one small
shape then spread over the cell, which shortens the effective step.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from functools import lru_cache

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from fssd.boxes import Floats, iou, to_center_size
from fssd.errors import ConfigError
from fssd.heads.multibox.kept_fits import kept_fit
from fssd.heads.multibox.match import MATCHED
from fssd.heads.multibox.missed import Slots, missed_slopes
from fssd.heads.multibox.priors import Level, make_priors

# Range of a prior's side (square root of its area) in cell steps; the finest level starts at FINEST.
SMALLEST, LARGEST, FINEST = 0.75, 6.0, 0.25
CHUNK = 256  # boxes at a time, so that the overlaps with 24,564 priors take 25 MB
LEAST_SHARE = 0.01  # a level with fewer boxes in its range keeps its default priors
UPDATES, BATCH, RATE = 800, 900, 0.03
SOFTNESS = (0.1, 0.02)  # width of the smooth threshold in IoU, at the first and the last update
SIZE_NOISE = 0.05  # standard deviation of the log of a box side
MORE, MOST_ANCHORS = 2, 24  # priors a cell that a level gets at a time, and at most
LOOKED_AT = 5000  # boxes of which the coverage is taken


def fit_priors(boxes: Floats, levels: Sequence[Level], seed: int = 0) -> tuple[Level, ...]:
    """The levels with the shapes and centres that cover most boxes, in ascending order of area.

    boxes: (N, 4) xyxy in pixels of the network's input; boxes without an area are ignored. levels: with
    the wanted number of priors per cell. The same boxes, levels and seed give the same priors.

    The side of a prior (square root of its area) is 0.75 to 6 cell steps, on the finest level 0.25 to 6, so
    that coarse levels get the large shapes. A level keeps its priors where less than 1 % of the boxes are in
    its range.
    """
    return _fit_priors(boxes.tobytes(), boxes.dtype.str, tuple(levels), seed)


@lru_cache(maxsize=16)  # rows and seeds of an ablation ask for the same
def _fit_priors(values: bytes, dtype: str, levels: tuple[Level, ...], seed: int) -> tuple[Level, ...]:
    """values, dtype: of the (N, 4) boxes."""
    middles = _middles(_boxes(values, dtype)).float()
    generator = torch.Generator().manual_seed(seed)
    finest = min(math.prod(level.step) for level in levels)
    ranges = [_side_range(level, math.prod(level.step) == finest) for level in levels]
    starts = [
        _start(middles[:, 2:], level.anchors, span, generator)
        for level, span in zip(levels, ranges, strict=True)
    ]
    counts = [len(start) for start in starts]
    if not any(counts):
        return tuple(levels)
    spans = torch.tensor(ranges).repeat_interleave(torch.tensor(counts), dim=0)
    with _one_thread():
        shapes, centres = _optimise(middles, torch.cat(starts), _slots(levels, counts), spans, generator)
    parts = zip(levels, torch.split(shapes, counts), torch.split(centres, counts), strict=True)
    return tuple(_fitted(*part) if len(part[1]) else part[0] for part in parts)


def fit_to_coverage(boxes: Floats, levels: Sequence[Level], share: float) -> tuple[Level, ...]:
    """Fitted levels that give at least `share` (0..1) of the boxes a prior at IoU 0.5.

    As `fit_priors`, but the level on which most of the uncovered boxes belong by their size gets two more
    priors a cell, and all are fitted again, until the share is reached. What was fitted is kept in the
    user's cache folder. Raises ConfigError if the share is not reached with 24 a cell.
    """
    return _fit_to_coverage(boxes.tobytes(), boxes.dtype.str, tuple(levels), share)


@lru_cache(maxsize=16)
def _fit_to_coverage(values: bytes, dtype: str, levels: tuple[Level, ...], share: float) -> tuple[Level, ...]:
    """As `_fit_priors`."""
    return kept_fit(values, dtype, levels, share, lambda: _search(_boxes(values, dtype), levels, share))


def _search(boxes: Floats, levels: tuple[Level, ...], share: float) -> tuple[Level, ...]:
    """Fit again and again, with more priors, until the share is reached."""
    kept = np.random.default_rng(0).permutation(len(boxes))[:LOOKED_AT]
    looked_at = np.asarray(boxes, dtype=np.float32)[np.sort(kept)]
    looked_at = looked_at[(looked_at[:, 2:] > looked_at[:, :2]).all(axis=1)]
    while True:
        fitted = fit_priors(boxes, levels)
        covered = best_overlaps(looked_at, make_priors(fitted)) >= MATCHED
        if not len(covered) or covered.mean() >= share:
            return fitted
        level = _neediest(looked_at[~covered], levels)
        if levels[level].anchors + MORE > MOST_ANCHORS:
            raise ConfigError(
                f"prior_coverage {share:g} is out of reach: {levels[level].anchors} priors a cell cover"
                f" {covered.mean():.3f} of the boxes; ask for less, or take a larger --size"
            )
        levels = tuple(_enlarged(row) if index == level else row for index, row in enumerate(levels))


def _boxes(values: bytes, dtype: str) -> Floats:
    boxes: Floats = np.frombuffer(values, dtype=dtype).reshape(-1, 4).copy()
    return boxes


def _neediest(boxes: Floats, levels: Sequence[Level]) -> int:
    """The index of the level in the middle of whose range of sides most of the boxes lie."""
    steps = [math.prod(level.step) for level in levels]
    ranges = np.array(
        [_side_range(level, step == min(steps)) for level, step in zip(levels, steps, strict=True)]
    )
    middles = np.log(ranges).mean(axis=1)
    sides = np.log((boxes[:, 2:] - boxes[:, :2]).prod(axis=1)) / 2
    nearest_levels = np.abs(sides[:, None] - middles).argmin(axis=1)
    return int(np.bincount(nearest_levels, minlength=len(levels)).argmax())


def _enlarged(level: Level) -> Level:
    """With more priors a cell; which shapes they have is up to the fit."""
    added = level.shapes[-1:] * MORE
    centres = None if level.centres is None else level.centres + level.centres[-1:] * MORE
    return level._replace(shapes=level.shapes + added, centres=centres)


def best_overlaps(boxes: Floats, priors: Tensor) -> npt.NDArray[np.float64]:
    """(N, 4) xyxy pixels of the network's input and priors (P, 4) -> (N,) largest IoU with any prior."""
    parts = [
        iou(torch.from_numpy(boxes[start : start + CHUNK]).float(), priors).max(dim=1).values.numpy()
        for start in range(0, len(boxes), CHUNK)
    ]
    return np.concatenate([np.zeros(0), *parts])


@contextmanager
def _one_thread() -> Iterator[None]:
    """Use one thread: small tensor operations are slower in several, and far slower on a busy machine."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        yield
    finally:
        torch.set_num_threads(threads)


def _middles(boxes: Floats) -> Tensor:
    """(N, 4) float64 x and y of the middle, width and height of the boxes that have an area."""
    middles = to_center_size(torch.as_tensor(np.asarray(boxes, dtype=np.float64).reshape(-1, 4)))
    return middles[(middles[:, 2:] > 0).all(dim=1)]


def _side_range(level: Level, finest: bool) -> tuple[float, float]:
    """Smallest and largest side of a level's priors in pixels."""
    step = math.sqrt(math.prod(level.step))
    return (FINEST if finest else SMALLEST) * step, LARGEST * step


def _start(sizes: Tensor, limit: int, span: tuple[float, float], generator: torch.Generator) -> Tensor:
    """(limit, 4): width and height in pixels of random boxes in range, random centres.

    (0, 4) where too few boxes are in range.
    """
    sides = sizes.prod(dim=1).sqrt()
    fitting = sizes[(sides >= span[0]) & (sides <= span[1])]
    if len(fitting) == 0 or len(fitting) < LEAST_SHARE * len(sizes):
        return sizes.new_zeros(0, 4)
    chosen = fitting[torch.randint(len(fitting), (limit,), generator=generator)]
    return torch.cat((chosen, torch.rand(limit, 2, generator=generator)), dim=1)


def _slots(levels: Sequence[Level], counts: Sequence[int]) -> Slots:
    """The grids of all priors, counts[i] of level i."""
    repeats = torch.tensor(counts)
    step = torch.tensor([level.step for level in levels], dtype=torch.float64)
    cells = torch.tensor([(level.columns, level.rows) for level in levels], dtype=torch.float64)
    return Slots(step.repeat_interleave(repeats, dim=0), cells.repeat_interleave(repeats, dim=0))


def _optimise(
    middles: Tensor, start: Tensor, slots: Slots, spans: Tensor, generator: torch.Generator
) -> tuple[Tensor, Tensor]:
    """Shapes (A, 2) in pixels and centres (A, 2) in shares of the cell, from `start` (A, 4).

    The loss is the expected share of boxes that no prior covers. spans: (A, 2) bounds of the sides in pixels.
    """
    slots = Slots(slots.step.float(), slots.cells.float())
    lowest, highest = spans.log().unbind(dim=1)
    logs, centres = start[:, :2].log(), start[:, 2:].clone()
    optimiser = torch.optim.Adam([logs, centres], lr=RATE, betas=(0.9, 0.99))
    for update in range(UPDATES):
        done = update / UPDATES
        optimiser.param_groups[0]["lr"] = RATE * (1 - done)
        softness = SOFTNESS[0] * (SOFTNESS[1] / SOFTNESS[0]) ** done
        batch = _vary(middles, slots, generator)
        shapes = logs.exp()
        slopes, centres.grad = missed_slopes(batch, shapes, centres, slots, softness)
        logs.grad = slopes.mul_(shapes)
        optimiser.step()
        centres.clamp_(0, 1)
        side = logs.mean(dim=1)
        logs.add_((side.clamp(lowest, highest) - side)[:, None])
    return logs.exp(), centres


def _vary(middles: Tensor, slots: Slots, generator: torch.Generator) -> Tensor:
    """(BATCH, 4) random boxes: mirrored or not, moved by up to a step of the finest level, resized a little.

    Without it the priors would fit the positions of these boxes instead of their sizes.
    """
    batch = middles[torch.randint(len(middles), (BATCH,), generator=generator)]
    mirrored = torch.rand(BATCH, generator=generator) < 0.5
    width = (slots.step * slots.cells)[0, 0]
    x = torch.where(mirrored, width - batch[:, 0], batch[:, 0])
    shift = (torch.rand(BATCH, 2, generator=generator) * 2 - 1) * slots.step.amin(dim=0)
    scale = (torch.randn(BATCH, 2, generator=generator) * SIZE_NOISE).exp()
    return torch.cat((torch.stack((x, batch[:, 1]), dim=1) + shift, batch[:, 2:] * scale), dim=1)


def _fitted(level: Level, shapes: Tensor, centres: Tensor) -> Level:
    """The level with (A, 2) shapes and centres, rounded to 0.01 pixels and 0.001 cells."""
    order = shapes.prod(dim=1).argsort(stable=True)
    return level._replace(
        shapes=tuple((round(width, 2), round(height, 2)) for width, height in shapes[order].tolist()),
        centres=tuple((round(x, 3), round(y, 3)) for x, y in centres[order].tolist()),
        furthest=None,
    )

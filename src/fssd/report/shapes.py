"""How well the priors of a model fit the boxes of a data set."""

from __future__ import annotations

from itertools import pairwise
from typing import NamedTuple

import numpy as np
import torch

from fssd.boxes import iou
from fssd.evaluation.pairing import Floats, Ints
from fssd.heads.multibox.priors import Level, cell_shapes, make_priors

MATCHED = 0.5  # overlap from which training takes a prior for an object (SSD 2.2)
BANDS = (0.0, 8.0, 16.0, 32.0, 64.0, 128.0, 256.0, np.inf)  # px of the network's input, lower limit included
CHUNK = 256  # boxes at a time: the overlaps with 24,564 priors then take 25 MB


class Share(NamedTuple):
    """boxes: how many. matched: share of them (0..1) that a prior overlaps by `MATCHED`; nan without any."""

    boxes: int
    matched: float


def best_overlaps(boxes: Floats, levels: tuple[Level, ...]) -> Floats:
    """(N, 4) xyxy pixels of the network's input -> (N,) largest IoU with any prior."""
    priors = make_priors(levels)
    parts = [
        iou(torch.from_numpy(boxes[start : start + CHUNK]).float(), priors).max(dim=1).values.numpy()
        for start in range(0, len(boxes), CHUNK)
    ]
    return np.concatenate([np.zeros(0), *parts])


def band_names() -> list[str]:
    """Names of the ranges of size, `under 8`, `8 to 16`, ..."""
    inner = [f"{low:.0f} to {high:.0f}" for low, high in pairwise(BANDS[1:-1])]
    return [f"under {BANDS[1]:.0f}", *inner, f"{BANDS[-2]:.0f} and more"]


def bands(boxes: Floats) -> Ints:
    """(N, 4) xyxy pixels -> (N,) range of size, by the side of a square of the same area."""
    return np.searchsorted(np.array(BANDS[1:-1]), sides(boxes), side="right").astype(np.int64)


def sides(boxes: Floats) -> Floats:
    """(N, 4) xyxy -> (N,) side of a square of the same area."""
    return np.asarray(np.sqrt((boxes[:, 2:] - boxes[:, :2]).clip(0).prod(axis=1)))


def shares(groups: Ints, overlap: Floats, count: int) -> list[Share]:
    """The share that is matched in each of `count` groups. groups, overlap: (N,)."""
    totals = np.bincount(groups, minlength=count)
    hits = np.bincount(groups, overlap >= MATCHED, minlength=count)
    return [
        Share(int(total), float(hit / total) if total else float("nan"))
        for total, hit in zip(totals, hits, strict=True)
    ]


def prior_shapes(levels: tuple[Level, ...]) -> Floats:
    """(S, 2) width and height in pixels of every kind of prior, level by level."""
    return np.array([shape for level in levels for shape in cell_shapes(level)], np.float64)

"""Which detection belongs to which track: the assignment of the greatest sum of overlaps."""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt

from fssd.boxes import overlaps
from fssd.errors import ConfigError, lacking

FAR = 1e5  # the cost of a pair that may not be


def associate(
    tracks: npt.NDArray[Any],
    found: npt.NDArray[Any],
    track_labels: npt.NDArray[np.int64],
    found_labels: npt.NDArray[np.int64],
    least: float,
) -> list[tuple[int, int]]:
    """Pairs (track, detection) of one class whose IoU is at least `least`; each is in one pair at most.

    tracks: (T, 4), found: (N, 4) xyxy. The sum of 1 - IoU over the pairs is the least there is among
    assignments of as many pairs as possible. Raises ConfigError without SciPy.
    """
    if not len(tracks) or not len(found):
        return []
    solve = solver()
    shared = overlaps(tracks.astype(np.float64), found.astype(np.float64))
    allowed = (track_labels[:, None] == found_labels[None]) & (shared >= least)
    rows, columns = solve(np.where(allowed, 1 - shared, FAR))
    pairs = zip(rows.tolist(), columns.tolist(), strict=True)
    return [pair for pair in pairs if allowed[pair]]


def solver() -> Any:
    """SciPy's Hungarian method. Raises ConfigError if it is not installed."""
    try:
        from scipy.optimize import linear_sum_assignment
    except ImportError as error:
        raise ConfigError(
            f'tracking needs SciPy{lacking("scipy.optimize", error)}; pip install "fssd[track]"'
        ) from error
    return linear_sum_assignment

"""Whether a network's input size and priors fit the boxes that it is to learn."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from fssd.heads.multibox.match import MATCHED
from fssd.model.network import Network

ENOUGH = 0.8  # share of boxes with such a prior below which there is advice
TINY = 8.0  # pixels of the input: the stride of the finest level
MANY = 0.1  # share of boxes under TINY from which there is advice
MOST = 5000  # boxes to look at


def matched_share(network: Network, boxes: npt.NDArray[np.float32]) -> float | None:
    """Share (0..1) of boxes (N, 4), xyxy pixels of the input, with a prior of IoU `MATCHED`.

    None without boxes, or for a head without priors.
    """
    overlaps = network.heads.best_overlaps(_some(boxes)) if len(boxes) else None
    return None if overlaps is None else float((overlaps >= MATCHED).mean())


def coverage_advice(network: Network, boxes: npt.NDArray[np.float32], fitted: bool = False) -> list[str]:
    """Sentences on boxes that the network can hardly learn, and what would help; none if there are few.

    fitted: whether the priors were already fitted to these boxes.
    """
    if not len(boxes):
        return []
    advice = []
    width, height = network.image_size
    larger = "--size 512" if max(width, height) < 512 else "a larger --size"
    share = matched_share(network, boxes)
    if share is not None and share < ENOUGH:
        help_by = larger if fitted else f"--priors fit, or {larger}"
        advice.append(
            f"{share:.0%} of the boxes have a prior with IoU {MATCHED} or more,"
            f" {network.heads.unmatched}; {help_by}, would help"
        )
    sides = np.sqrt((boxes[:, 2:] - boxes[:, :2]).clip(0).prod(axis=1))
    tiny = float((sides < TINY).mean())
    if tiny >= MANY:
        advice.append(
            f"{tiny:.0%} of the boxes are under {TINY:.0f} px in the input of {width} x {height} px,"
            f" less than a cell of the finest level; {larger}, or --tiles auto, would help"
        )
    return advice


def _some(boxes: npt.NDArray[np.float32]) -> npt.NDArray[np.float32]:
    if len(boxes) <= MOST:
        return boxes
    return boxes[np.random.default_rng(0).choice(len(boxes), MOST, replace=False)]

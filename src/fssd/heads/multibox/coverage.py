"""How well the priors of a network fit boxes."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from fssd.boxes import iou

CHUNK = 256  # boxes at a time: the overlaps with 24,564 priors then take 25 MB


def best_overlaps(boxes: npt.NDArray[np.floating], priors: Tensor) -> npt.NDArray[np.float64]:
    """(N, 4) xyxy pixels of the network's input and priors (P, 4) -> (N,) largest IoU with any prior."""
    parts = [
        iou(torch.from_numpy(boxes[start : start + CHUNK]).float(), priors).max(dim=1).values.numpy()
        for start in range(0, len(boxes), CHUNK)
    ]
    return np.concatenate([np.zeros(0), *parts])

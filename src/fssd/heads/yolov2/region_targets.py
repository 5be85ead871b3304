"""What YOLOv2 is trained on: the objects of an image as they are. Cells and anchors are found by the loss,
because the number of cells changes in training."""

from __future__ import annotations

import zlib
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import torch

from fssd.data.batch import Targets

MOST = 30  # objects of an image; of more a random choice
LEAST = 1e-3  # of width and height, shares of the image; smaller objects are left out


@dataclass(frozen=True)
class RegionTargets:
    """image_size: (width, height) of the input, pixels."""

    image_size: tuple[int, int]

    def __call__(self, boxes: npt.NDArray[np.float32], labels: npt.NDArray[np.int64]) -> Targets:
        """Boxes (N, 4) float32 xyxy pixels of the input and labels (N,) to `MOST` rows.

        "boxes": (MOST, 4) float32 centre, width and height as shares of the image. "labels": (MOST,) int64,
        -1 in rows without an object. Objects come in random order, since of two in one cell the later one is
        learned; the order depends on the boxes alone, which augmentation changes.
        """
        shares = np.clip(boxes / np.array(self.image_size * 2, np.float32), 0, 1).astype(np.float32)
        sides = shares[:, 2:] - shares[:, :2]
        kept = np.flatnonzero((sides >= LEAST).all(axis=1))
        order = np.random.default_rng(zlib.crc32(np.ascontiguousarray(boxes).tobytes())).permutation(kept)[
            :MOST
        ]
        rows = torch.zeros(MOST, 4)
        names = torch.full((MOST,), -1)
        centres = (shares[:, :2] + shares[:, 2:]) / 2
        rows[: len(order)] = torch.from_numpy(np.concatenate((centres, sides), axis=1)[order])
        names[: len(order)] = torch.from_numpy(labels[order].astype(np.int64))
        return {"boxes": rows, "labels": names}

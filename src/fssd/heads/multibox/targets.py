"""What each prior is trained on: made for one image, in the loader's processes, always of the same shape."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import torch

from fssd.boxes import encode
from fssd.data.batch import Targets
from fssd.heads.multibox.atss import PriorGroup, match_atss
from fssd.heads.multibox.match import MATCHED, Floats, Owners, match
from fssd.heads.multibox.priors import Level, exact_priors

MATCHINGS = ("ssd", "atss")


@dataclass(frozen=True)
class MultiboxTargets:
    """The targets of the priors of a network. Plain arrays, so that it can be sent to other processes.

    priors: (P, 4) xyxy pixels of the input. shares: (P, 4) the same as shares of the image. image_size:
    (width, height), pixels. threshold: IoU from which a prior is positive. groups: with them priors are
    matched by ATSS, which has no such threshold; see `match_atss`.
    """

    priors: Floats
    shares: Floats
    image_size: tuple[int, int]
    threshold: float = MATCHED
    groups: tuple[PriorGroup, ...] = ()

    @classmethod
    def of_levels(
        cls, levels: tuple[Level, ...], image_size: tuple[int, int], matching: str = MATCHINGS[0]
    ) -> MultiboxTargets:
        """For the priors of a pyramid. matching: one of `MATCHINGS`."""
        priors = exact_priors(levels)
        shares = (priors / (image_size * 2)).astype(np.float32)
        rows = (PriorGroup(level.rows * level.columns, level.anchors) for level in levels)
        groups = tuple(rows) if matching == "atss" else ()
        return cls(priors.astype(np.float32), shares, image_size, groups=groups)

    def __call__(self, boxes: Floats, labels: npt.NDArray[np.int64]) -> Targets:
        """Boxes (N, 4) float32 xyxy pixels of the input and labels (N,) to the targets of P priors.

        "classes": (P,) int32, 0 for background, else label + 1. "offsets": (P, 4) float32, see
        `fssd.boxes.encode`; 0 for background.
        """
        owners = self._owners(boxes)
        positive = np.flatnonzero(owners >= 0)
        own = owners[positive]
        classes = np.zeros(len(owners), np.int32)
        classes[positive] = labels[own] + 1
        offsets = torch.zeros(len(owners), 4)
        matched, priors = torch.from_numpy(boxes[own]), torch.from_numpy(self.priors[positive])
        offsets[torch.from_numpy(positive)] = encode(matched, priors)
        return {"classes": torch.from_numpy(classes), "offsets": offsets}

    def _owners(self, boxes: Floats) -> Owners:
        """(P,) the object of each prior, -1 for background."""
        if self.groups:
            return match_atss(boxes, self.priors, self.groups)
        side = np.array(self.image_size * 2, np.float32)
        return match((boxes / side).astype(np.float32), self.shares, self.threshold)

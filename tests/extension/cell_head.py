"""A head that has nothing to do with priors: one box and one score for each class in every cell of a map.

All of it is in this file, as a user's own would be.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from fssd.data.batch import Targets
from fssd.heads.head import Candidates, Decode, Found, Head, HeadBlueprint, Raw, Thresholds


class CellTargets:
    """The object whose centre lies in a cell: its class + 1 and its box as shares of the image; else 0."""

    def __init__(self, cells: tuple[int, int], size: tuple[int, int]) -> None:
        self.cells, self.size = cells, size

    def __call__(self, boxes: npt.NDArray[np.float32], labels: npt.NDArray[np.int64]) -> Targets:
        rows, columns = self.cells
        classes = np.zeros((rows, columns), np.int64)
        shares = np.zeros((rows, columns, 4), np.float32)
        for box, label in zip(boxes / np.array(self.size * 2, np.float32), labels, strict=True):
            column = min(int((box[0] + box[2]) / 2 * columns), columns - 1)
            row = min(int((box[1] + box[3]) / 2 * rows), rows - 1)
            classes[row, column], shares[row, column] = label + 1, box
        return {
            "classes": torch.from_numpy(classes).flatten(),
            "boxes": torch.from_numpy(shares).reshape(-1, 4),
        }


class CellHead(Head):
    known_options = frozenset({"level"})
    outputs = ("boxes", "scores")

    def __init__(self, blueprint: HeadBlueprint) -> None:
        super().__init__()
        self.level = int(blueprint.options.get("level", 1))
        self.image_size = blueprint.image_size
        channels = blueprint.channels[self.level]
        self.box = nn.Conv2d(channels, 4, 1)
        self.score = nn.Conv2d(channels, blueprint.num_classes, 1)
        self.targets = CellTargets(blueprint.cells[self.level], blueprint.image_size)

    @classmethod
    def build(cls, blueprint: HeadBlueprint) -> CellHead:
        return cls(blueprint)

    def forward(self, levels: list[Tensor]) -> Raw:
        x = levels[self.level]
        return self.box(x).flatten(2).mT, self.score(x).flatten(2).mT  # (B, N, 4), (B, N, C)

    def loss(self, raw: Raw, targets: Targets) -> dict[str, Tensor]:
        boxes, scores = raw
        full = targets["classes"] > 0
        count = full.sum().clamp(min=1)
        wanted = F.one_hot(targets["classes"], scores.shape[-1] + 1)[..., 1:].float()
        score = F.binary_cross_entropy_with_logits(scores, wanted, reduction="sum") / count
        distance = F.l1_loss(boxes.sigmoid(), targets["boxes"], reduction="none").sum(dim=-1)
        box = torch.where(full, distance, 0.0).sum() / count
        return {"loss": score + box, "loss_score": score, "loss_box": box}

    def detect(self, raw: Raw, thresholds: Thresholds) -> list[Found]:
        return [_best(*one, thresholds) for one in self.candidates(raw)]

    def candidates(self, raw: Raw) -> list[Candidates]:
        boxes, scores = (part.float().sigmoid() for part in raw)
        pixels = boxes * boxes.new_tensor(self.image_size * 2)
        return [Candidates(*one) for one in zip(pixels, scores, strict=True)]

    def describe(self) -> dict[str, Any]:
        return {"cell_size": list(self.image_size)}

    @classmethod
    def decoder(cls, document: Mapping[str, Any]) -> Decode:
        side = torch.tensor(document["cell_size"] * 2)

        def decode(outputs: Sequence[npt.NDArray[Any]], thresholds: Thresholds) -> list[Found]:
            boxes, scores = (torch.from_numpy(part).sigmoid() for part in outputs)
            return [_best(*one, thresholds) for one in zip(boxes * side, scores, strict=True)]

        return decode


def _best(boxes: Tensor, scores: Tensor, thresholds: Thresholds) -> Found:
    score, label = scores.max(dim=-1)
    order = score.argsort(descending=True)[: thresholds.keep]
    order = order[score[order] > thresholds.score]
    return Found(boxes[order], score[order], label[order])

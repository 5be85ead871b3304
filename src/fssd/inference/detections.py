"""Detections: what a detector found in one image."""

from __future__ import annotations

from dataclasses import dataclass, field, replace

import numpy as np
import numpy.typing as npt

from fssd.data.sample import Boxes, Image, Labels
from fssd.inference.draw import class_colour, draw_boxes


@dataclass(frozen=True)
class Detections:
    """Objects found in one image, highest score first.

    boxes: (N, 4) float32 xyxy, pixels of the image as given. scores: (N,) float32 in 0..1.
    labels: (N,) int64, 0-based index into `classes`. classes: every class name the detector knows.
    image: (H, W, 3) uint8 RGB, for `draw`, or None.
    """

    boxes: Boxes
    scores: npt.NDArray[np.float32]
    labels: Labels
    classes: tuple[str, ...]
    image: Image | None = field(default=None, repr=False, compare=False)

    def __len__(self) -> int:
        return len(self.scores)

    @property
    def names(self) -> list[str]:
        """The class name of each detection."""
        return [self.classes[label] for label in self.labels]

    def above(self, score: float) -> Detections:
        """The detections whose score is at least `score`."""
        keep = self.scores >= score
        return replace(self, boxes=self.boxes[keep], scores=self.scores[keep], labels=self.labels[keep])

    def without_image(self) -> Detections:
        """The same detections without the image, to free its memory."""
        return replace(self, image=None)

    def draw(self) -> Image:
        """A copy of the image with boxes, names and scores on it, (H, W, 3) uint8 RGB."""
        if self.image is None:
            raise ValueError("these detections carry no image to draw on; detect with keep_image=True")
        return draw_detections(self.image, self)


def draw_detections(image: Image, detections: Detections) -> Image:
    """A copy of (H, W, 3) uint8 RGB with a box, a name and a score in percent for each detection.

    One colour per class; the highest scores are drawn on top.
    """
    order = np.argsort(detections.scores, kind="stable")
    names, scores, labels = detections.names, detections.scores, detections.labels
    texts = [f"{names[i]} {100 * scores[i]:.0f}%" for i in order]
    return draw_boxes(image, detections.boxes[order], texts, [class_colour(int(labels[i])) for i in order])

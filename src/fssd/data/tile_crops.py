"""Training views of tiles: a random part of an image, of a tile's size and at its scale."""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np

from fssd.boxes import areas, intersections
from fssd.data.geometry import Size
from fssd.data.mixing import LEAST_SEEN
from fssd.data.sample import Boxes, Flags, Sample
from fssd.data.tiles import Window

TRIALS = 50  # windows that are looked at for one without an object
LEAST_SIDE = 2.0  # pixels of the image: less is left of an object, and it is not learned


@dataclass(frozen=True)
class TileCrops:
    """size: (width, height) of a tile, pixels of the image. empty: share of tiles without an object, where an
    image has room for one.
    """

    size: Size
    empty: float

    def crop(self, sample: Sample, rng: np.random.Generator) -> Sample:
        """A tile of an image, at random; the image itself if it is no larger.

        Around an object, where each place of the tile that shows its centre is equally likely; or without an
        object. An object is kept if its centre is seen, or a quarter of its box, or if it fills a quarter of
        the tile; its box is clipped to what is seen.
        """
        size = sample.image.shape[1], sample.image.shape[0]
        if size[0] <= self.size[0] and size[1] <= self.size[1]:
            return sample
        x1, y1, x2, y2 = window = self._window(sample.boxes, size, rng)
        boxes, keep = seen_boxes(sample.boxes, window)
        return replace(
            sample,
            image=np.ascontiguousarray(sample.image[y1:y2, x1:x2]),
            boxes=boxes[keep],
            labels=sample.labels[keep],
            difficult=sample.difficult[keep],
        )

    def _window(self, boxes: Boxes, size: Size, rng: np.random.Generator) -> Window:
        if rng.random() < self.empty or not len(boxes):
            for _ in range(TRIALS):
                window = self._placed(rng, size, (0, 0), size)
                if not intersections(boxes, np.array([window], np.float32)).any():
                    return window
        if not len(boxes):
            return window
        x1, y1, x2, y2 = boxes[int(rng.integers(len(boxes)))].tolist()
        centre = int((x1 + x2) / 2), int((y1 + y2) / 2)
        first = tuple(max(0, at + 1 - side) for at, side in zip(centre, self.size, strict=True))
        return self._placed(rng, size, (first[0], first[1]), (centre[0], centre[1]))

    def _placed(self, rng: np.random.Generator, size: Size, first: Size, last: Size) -> Window:
        """A window whose left and top lie between `first` and `last`, and inside the image."""
        extent = [min(side, own) for side, own in zip(size, self.size, strict=True)]
        most = [min(end, side - own) for end, side, own in zip(last, size, extent, strict=True)]
        left, top = (
            int(rng.integers(min(low, high), high + 1)) for low, high in zip(first, most, strict=True)
        )
        return left, top, left + extent[0], top + extent[1]


def seen_boxes(boxes: Boxes, window: Window) -> tuple[Boxes, Flags]:
    """Boxes (N, 4) in pixels of the window, clipped to it, and (N,) whether enough of each is seen."""
    low, high = np.array(window[:2], np.float32), np.array(window[2:], np.float32)
    centre = (boxes[:, :2] + boxes[:, 2:]) / 2
    clipped = boxes.clip(np.tile(low, 2), np.tile(high, 2))
    seen = ((centre >= low) & (centre < high)).all(axis=1)
    seen |= areas(clipped) >= LEAST_SEEN * np.minimum(areas(boxes), (high - low).prod())
    wide = (clipped[:, 2:] - clipped[:, :2] >= np.minimum(LEAST_SIDE, boxes[:, 2:] - boxes[:, :2])).all(
        axis=1
    )
    return (clipped - np.tile(low, 2)).astype(np.float32), np.asarray(seen & wide & (areas(clipped) > 0))

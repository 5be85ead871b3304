"""Training views made of several images: mosaic and mixup.

Sources: Bochkovskiy et al. 2020 (mosaic: parts of four images around one point), Zhang et al. 2018 and 2019
(mixup, and mixup for detection), Ge et al. 2021 (both, and neither in the last epochs).
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import NamedTuple

import numpy as np

from fssd.boxes import areas
from fssd.data.geometry import Geometry, Size
from fssd.data.sample import Sample

CUT = (0.25, 0.75)  # where the four images meet, as a share of width and height
SCALE = 0.5  # the least size at which an image is shown in a mosaic, as a share of the input's
LEAST_SEEN = 0.25  # share of an object's box that a mosaic must show, if it does not show its centre
LEAST_SIDE = 2.0  # pixels of the input: less is left of an object, and it is not learned

Show = Callable[[Sample, Geometry, np.random.Generator], Sample]
Draw = Callable[[np.random.Generator], Sample]


@dataclass(frozen=True)
class Mixing:
    """Which views of a run are made of several images.

    mosaic, mixup: shares of the views, 0 to 1, independent of each other. until: position of the first view
    that is made of one image again.
    """

    mosaic: float
    mixup: float
    until: int

    def view(
        self,
        loaded: Sample,
        geometry: Geometry,
        own: np.random.Generator,
        rng: np.random.Generator,
        show: Show,
        draw: Draw,
    ) -> Sample:
        """A view of `loaded`, alone or with others, of the geometry's size.

        show: augments an image for a geometry. draw: another image at random. own, rng: of the augmentation
        of `loaded`, and of all else, so that a view of one image is what it is in a run without mixing.
        """
        is_mosaic, is_mixup = rng.random(2) < (self.mosaic, self.mixup)
        if is_mosaic:
            parts = sample_mosaic(geometry.size, rng)
            sizes = [replace(geometry, size=part.size) for part in parts]
            shown = [show(loaded, sizes[0], own), *(show(draw(rng), size, rng) for size in sizes[1:])]
            view = make_mosaic(shown, parts, geometry.size)
        else:
            view = show(loaded, geometry, own)
        return make_mixup(view, show(draw(rng), geometry, rng)) if is_mixup else view


class Part(NamedTuple):
    """One of the four images of a mosaic, pixels.

    size: (width, height) at which it is shown. corner: (left, top) of what is seen of it. place: xyxy in the
    result.
    """

    size: Size
    corner: tuple[int, int]
    place: tuple[int, int, int, int]


def sample_mosaic(size: Size, rng: np.random.Generator) -> tuple[Part, ...]:
    """A random mosaic of (width, height) pixels: top left, top right, bottom left, bottom right.

    Each image is shown at 0.5 to 1 times this size, and a random window of it is seen.
    """
    width, height = size
    x, y = (round(side * float(rng.uniform(*CUT))) for side in size)
    places = ((0, 0, x, y), (x, 0, width, y), (0, y, x, height), (x, y, width, height))
    return tuple(_sample_part(size, place, rng) for place in places)


def _sample_part(size: Size, place: tuple[int, int, int, int], rng: np.random.Generator) -> Part:
    seen = place[2] - place[0], place[3] - place[1]
    least = max(SCALE, seen[0] / size[0], seen[1] / size[1])
    scale = float(rng.uniform(least, 1))
    wide, high = (max(round(scale * side), own) for side, own in zip(size, seen, strict=True))
    left, top = int(rng.integers(wide - seen[0] + 1)), int(rng.integers(high - seen[1] + 1))
    return Part((wide, high), (left, top), place)


def make_mosaic(shown: Sequence[Sample], parts: Sequence[Part], size: Size) -> Sample:
    """The mosaic of views of the sizes of `parts`; size: (width, height) pixels of the result.

    An object is kept if its centre is seen, as in SSD's crops, or a quarter of its box, and at least
    `LEAST_SIDE` of its width and height. Its box is clipped to what is seen.
    """
    image = np.empty((size[1], size[0], 3), np.uint8)
    samples = []
    for view, part in zip(shown, parts, strict=True):
        (left, top), (x1, y1, x2, y2) = part.corner, part.place
        image[y1:y2, x1:x2] = view.image[top : top + y2 - y1, left : left + x2 - x1]
        boxes = view.boxes + np.array([x1 - left, y1 - top] * 2, np.float32)
        centre, whole = (boxes[:, :2] + boxes[:, 2:]) / 2, areas(boxes)
        keep = ((centre >= (x1, y1)) & (centre <= (x2, y2))).all(axis=1)
        boxes = boxes.clip(np.array([x1, y1] * 2, np.float32), np.array([x2, y2] * 2, np.float32))
        keep |= areas(boxes) >= LEAST_SEEN * whole
        keep &= (boxes[:, 2:] - boxes[:, :2] >= LEAST_SIDE).all(axis=1)
        samples.append(
            replace(view, boxes=boxes[keep], labels=view.labels[keep], difficult=view.difficult[keep])
        )
    return _joined(image, samples)


def make_mixup(one: Sample, other: Sample) -> Sample:
    """The mean of two views of one size, with the objects of both, each learned in full (Ge et al. 2021)."""
    total = one.image.astype(np.uint16) + other.image
    return _joined(((total + 1) // 2).astype(np.uint8), [one, other])


def _joined(image: np.ndarray, samples: Sequence[Sample]) -> Sample:
    """An image with the objects of all samples."""
    return Sample(
        image,
        np.concatenate([sample.boxes for sample in samples]),
        np.concatenate([sample.labels for sample in samples]),
        np.concatenate([sample.difficult for sample in samples]),
        " + ".join(sample.name for sample in samples),
    )

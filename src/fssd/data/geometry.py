"""How an image of any size becomes the network's input, and how boxes come back.

    geometry = make_geometry("letterbox", (300, 300))
    pixels = geometry.apply(image)                          # (300, 300, 3)
    boxes = geometry.undo(found, image_size=(640, 480))     # in pixels of the image again

To add a geometry, write a subclass that says where the image lies in the input and list it in GEOMETRIES.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from dataclasses import dataclass
from typing import ClassVar

import cv2
import numpy as np
import numpy.typing as npt

from fssd.data.sample import Boxes, Image
from fssd.errors import ConfigError, nearest

MEAN = (123, 117, 104)  # RGB mean of ImageNet, as in the Caffe scripts (there BGR)

Size = tuple[int, int]  # (width, height) in pixels
Floats = npt.NDArray[np.float64]


@dataclass(frozen=True)
class Geometry(ABC):
    """size: (width, height) of the network's input, pixels."""

    size: Size
    name: ClassVar[str]

    @abstractmethod
    def window(self, image_size: Size) -> tuple[int, int, int, int]:
        """The part of the input that an image of `image_size` fills: left, top, width, height in pixels."""

    def apply(self, image: Image, interpolation: int = cv2.INTER_LINEAR) -> Image:
        """(h, w, 3) uint8 RGB to (height, width, 3) of `size`; MEAN fills what the image leaves free."""
        left, top, width, height = self.window((image.shape[1], image.shape[0]))
        resized = cv2.resize(image, (width, height), interpolation=interpolation)
        if (width, height) != self.size:
            borders = top, self.size[1] - top - height, left, self.size[0] - left - width
            resized = cv2.copyMakeBorder(resized, *borders, cv2.BORDER_CONSTANT, value=MEAN)
        return np.asarray(resized, dtype=np.uint8)

    def scale_and_shift(self, image_size: Size) -> tuple[Floats, Floats]:
        """Two (2,) of x and y: a point of the image, times scale plus shift, is a point of the input."""
        left, top, width, height = self.window(image_size)
        return np.array((width, height)) / image_size, np.array((left, top), np.float64)

    def apply_boxes(self, boxes: Boxes, image_size: Size) -> Boxes:
        """Boxes (N, 4) in pixels of the image to (N, 4) in pixels of the input, not clipped."""
        scale, shift = self.scale_and_shift(image_size)
        moved = boxes.reshape(-1, 2, 2) * scale + shift  # (N, 2 corners, xy)
        return np.asarray(moved.reshape(-1, 4), dtype=np.float32)

    def undo(self, boxes: Boxes, image_size: Size) -> Boxes:
        """Boxes (N, 4) in pixels of the input to (N, 4) in pixels of the image, clipped to it."""
        left, top, width, height = self.window(image_size)
        scale = np.array([image_size[0] / width, image_size[1] / height] * 2, np.float32)
        with np.errstate(over="ignore"):  # a network that has not learned can predict sides of any length
            moved = (boxes - np.array([left, top] * 2, np.float32)) * scale
        clipped = np.clip(moved, 0, np.array(image_size * 2, np.float32))
        return np.asarray(clipped, dtype=np.float32)


@dataclass(frozen=True)
class Warp(Geometry):
    """Stretches the image to the input, as SSD does; the aspect ratio is lost."""

    name = "warp"

    def window(self, image_size: Size) -> tuple[int, int, int, int]:
        del image_size  # every image fills the whole input
        return (0, 0, *self.size)


@dataclass(frozen=True)
class Letterbox(Geometry):
    """Keeps the aspect ratio: the image is scaled to fit, centred, and padded on two sides."""

    name = "letterbox"

    def window(self, image_size: Size) -> tuple[int, int, int, int]:
        scale = min(self.size[0] / image_size[0], self.size[1] / image_size[1])
        width, height = (max(1, round(side * scale)) for side in image_size)
        return (self.size[0] - width) // 2, (self.size[1] - height) // 2, width, height


GEOMETRIES: dict[str, type[Geometry]] = {kind.name: kind for kind in (Warp, Letterbox)}


def make_geometry(name: str, size: Size) -> Geometry:
    """The geometry called `name` for an input of `size`. Raises ConfigError for an unknown name."""
    if not isinstance(name, str) or name not in GEOMETRIES:
        raise ConfigError(f"there is no geometry {name!r}{nearest(str(name), GEOMETRIES)}")
    return GEOMETRIES[name](size)

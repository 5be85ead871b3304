"""Photometric distortion: sample what to change, then change the pixels.

Source: FSSD Caffe code (distort_param); Liu et al. 2016, data augmentation; for `Shade` pjreddie/darknet,
image.c.
Every step maps each pixel by itself, so distorting a crop equals cropping a distorted image, and `augment`
distorts only the pixels that survive. The one exception is explained at `COLUMN_BLOCK`.
"""

from __future__ import annotations

from dataclasses import dataclass

import cv2
import numpy as np
import numpy.typing as npt

from fssd.data.sample import Image

Table = npt.NDArray[np.uint8]  # (256,) new value of each uint8 value

BRIGHTNESS = 32.0  # +U(-32, 32), in grey levels
CONTRAST = (0.5, 1.5)  # times U(0.5, 1.5)
SATURATION = (0.5, 1.5)  # times U(0.5, 1.5), on S of HSV
HUE = 18.0  # +U(-18, 18), on OpenCV's hue in units of 2 degrees
HUES = 180  # a whole turn
SHADE = 1.5  # of YOLOv2: saturation and exposure times or by U(1, 1.5); its hue changes as far as SSD's

# OpenCV converts HSV to RGB in blocks of up to 32 pixels from the left end of a row. Other code converts the
# rest of the row and may round one grey level differently. Cut rows at multiples of this for equal results.
COLUMN_BLOCK = 32


@dataclass(frozen=True)
class Distort:
    """What to do to the colours of one image; None leaves a step out.

    brightness: added, grey levels. contrast: factor. saturation: factor on S. hue: added to OpenCV's H.
    contrast_last: contrast after saturation and hue, otherwise before them.
    """

    brightness: float | None
    contrast: float | None
    saturation: float | None
    hue: float | None
    contrast_last: bool


@dataclass(frozen=True)
class Shade:
    """How YOLOv2 changes the colours of one image, in HSV.

    hue: added to OpenCV's H. saturation, exposure: factors on S and V.
    """

    hue: float
    saturation: float
    exposure: float


def sample_shade(rng: np.random.Generator) -> Shade:
    """Hue, saturation and exposure of every image."""
    return Shade(float(rng.uniform(-HUE, HUE)), _times_or_by(rng), _times_or_by(rng))


def sample_distort(rng: np.random.Generator, prob: float = 0.5) -> Distort:
    """Each of the four steps with probability `prob`, in one of the two orders with probability 0.5."""
    return Distort(
        contrast_last=bool(rng.random() < 0.5),
        brightness=_maybe_uniform(rng, prob, -BRIGHTNESS, BRIGHTNESS),
        contrast=_maybe_uniform(rng, prob, *CONTRAST),
        saturation=_maybe_uniform(rng, prob, *SATURATION),
        hue=_maybe_uniform(rng, prob, -HUE, HUE),
    )


def apply_distort(image: Image, distort: Distort | Shade) -> Image:
    """(H, W, 3) RGB to the same shape. The input is never written to; it is returned if nothing changes."""
    if isinstance(distort, Shade):
        return _apply_shade(image, distort)
    contrast = None if distort.contrast is None else linear_table(distort.contrast, 0.0)
    brightness = None if distort.brightness is None else linear_table(1.0, distort.brightness)
    image = _map(image, _chain(brightness, None if distort.contrast_last else contrast))
    # One round trip through HSV each, as in Caffe: the rounding in between is part of the recipe.
    if distort.saturation is not None:
        image = _map_hsv_channel(image, 1, linear_table(distort.saturation, 0.0))
    if distort.hue is not None:
        image = _map_hsv_channel(image, 0, linear_table(1.0, distort.hue))
    return _map(image, contrast if distort.contrast_last else None)


def _apply_shade(image: Image, shade: Shade) -> Image:
    """In one round trip through HSV; the hue goes round."""
    turned = np.asarray(np.rint(np.arange(256) + shade.hue) % HUES, np.uint8)
    tables = (turned, linear_table(shade.saturation, 0.0), linear_table(shade.exposure, 0.0))
    hsv = cv2.LUT(cv2.cvtColor(image, cv2.COLOR_RGB2HSV), np.stack(tables, axis=-1)[None])
    return np.asarray(cv2.cvtColor(hsv, cv2.COLOR_HSV2RGB), dtype=np.uint8)


def linear_table(factor: float, shift: float) -> Table:
    """(256,) uint8: value * factor + shift, rounded and saturating, as OpenCV's `convertTo` does."""
    values = np.rint(np.arange(256) * factor + shift)
    return np.asarray(np.clip(values, 0, 255), dtype=np.uint8)


def _maybe_uniform(rng: np.random.Generator, prob: float, low: float, high: float) -> float | None:
    return float(rng.uniform(low, high)) if rng.random() < prob else None


def _times_or_by(rng: np.random.Generator) -> float:
    factor = float(rng.uniform(1, SHADE))
    return factor if rng.random() < 0.5 else 1 / factor


def _chain(first: Table | None, second: Table | None) -> Table | None:
    """One table that equals both in turn, so that one pass over the image is enough."""
    if first is None or second is None:
        return second if first is None else first
    return np.asarray(second[first], dtype=np.uint8)


def _map(image: Image, table: Table | None) -> Image:
    if table is None:
        return image
    return np.asarray(cv2.LUT(image, table), dtype=np.uint8)


def _map_hsv_channel(image: Image, channel: int, table: Table) -> Image:
    # A hue below 0 saturates at 0 (red) instead of wrapping; above 180 the conversion to RGB wraps it.
    hsv = cv2.cvtColor(image, cv2.COLOR_RGB2HSV)
    hsv = cv2.insertChannel(cv2.LUT(cv2.extractChannel(hsv, channel), table), hsv, channel)
    return np.asarray(cv2.cvtColor(hsv, cv2.COLOR_HSV2RGB), dtype=np.uint8)

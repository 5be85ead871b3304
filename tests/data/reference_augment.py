"""The augmentation of Liu et al. 2016 step by step on whole images, in plain loops: slow and obvious.

It consumes random numbers in the same order as `fssd.data.augment`, so equal generators give equal samples.
Shared by the tests and by benchmarks/augment.py; imports only values from the package, none of its steps.
"""

from __future__ import annotations

import math

import cv2
import numpy as np

from fssd.data.sample import Sample

MEAN = (123, 117, 104)
INTERPOLATIONS = (cv2.INTER_LINEAR, cv2.INTER_AREA, cv2.INTER_NEAREST, cv2.INTER_CUBIC, cv2.INTER_LANCZOS4)
MIN_IOUS = (0.1, 0.3, 0.5, 0.7, 0.9, 0.0)


def augment_plainly(sample: Sample, size: int, rng: np.random.Generator) -> Sample:
    """distort -> expand -> crop -> resize -> mirror, each on the whole image that the last step left."""
    image = distort(sample.image, rng)
    boxes = sample.boxes.astype(np.float64)

    # Expand.
    height, width = image.shape[:2]
    if rng.random() < 0.5:
        ratio = rng.uniform(1.0, 4.0)
        wide, high = int(width * ratio), int(height * ratio)
        left, top = math.floor(rng.uniform(0, wide - width)), math.floor(rng.uniform(0, high - height))
        canvas = np.empty((high, wide, 3), np.uint8)
        canvas[:] = MEAN
        canvas[top : top + height, left : left + width] = image
        image = canvas
        boxes = boxes + np.array((left, top, left, top))

    # Crop.
    height, width = image.shape[:2]
    x1, y1, x2, y2 = crop_plainly(boxes, width, height, rng)
    image = image[y1:y2, x1:x2].copy()

    # Resize and mirror.
    image = cv2.resize(image, (size, size), interpolation=INTERPOLATIONS[rng.integers(5)])
    mirror = rng.random() < 0.5
    if mirror:
        image = image[:, ::-1].copy()

    kept, rows = [], []
    for row, (a1, b1, a2, b2) in enumerate(boxes.tolist()):
        if not (x1 <= (a1 + a2) / 2 <= x2 and y1 <= (b1 + b2) / 2 <= y2):
            continue
        left, right = ((min(max(x, x1), x2) - x1) * size / (x2 - x1) for x in (a1, a2))
        top, bottom = ((min(max(y, y1), y2) - y1) * size / (y2 - y1) for y in (b1, b2))
        if mirror:
            left, right = size - right, size - left
        if right > left and bottom > top:
            kept.append((left, top, right, bottom))
            rows.append(row)
    placed = np.array(kept, np.float32).reshape(-1, 4)
    return Sample(image, placed, sample.labels[rows], sample.difficult[rows], sample.name)


def distort(image: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    contrast_last = rng.random() < 0.5
    brightness = rng.uniform(-32, 32) if rng.random() < 0.5 else None
    contrast = rng.uniform(0.5, 1.5) if rng.random() < 0.5 else None
    saturation = rng.uniform(0.5, 1.5) if rng.random() < 0.5 else None
    hue = rng.uniform(-18, 18) if rng.random() < 0.5 else None
    if brightness is not None:
        image = linear(image, 1.0, brightness)
    if contrast is not None and not contrast_last:
        image = linear(image, contrast, 0.0)
    if saturation is not None:
        image = change_hsv(image, 1, saturation, 0.0)
    if hue is not None:
        image = change_hsv(image, 0, 1.0, hue)
    if contrast is not None and contrast_last:
        image = linear(image, contrast, 0.0)
    return image


def linear(image: np.ndarray, factor: float, shift: float) -> np.ndarray:
    """round(factor * image + shift), saturating; OpenCV's own arithmetic."""
    return cv2.addWeighted(image, factor, image, 0.0, shift)


def change_hsv(image: np.ndarray, channel: int, factor: float, shift: float) -> np.ndarray:
    channels = list(cv2.split(cv2.cvtColor(image, cv2.COLOR_RGB2HSV)))
    channels[channel] = linear(channels[channel], factor, shift)
    return cv2.cvtColor(cv2.merge(channels), cv2.COLOR_HSV2RGB)


def crop_plainly(
    boxes: np.ndarray, width: int, height: int, rng: np.random.Generator
) -> tuple[int, int, int, int]:
    """One trial after the other, one object after the other."""
    if len(boxes) == 0:
        return 0, 0, width, height
    objects = [(a / width, b / height, c / width, d / height) for a, b, c, d in boxes.tolist()]
    found = []
    numbers = rng.random((len(MIN_IOUS), 50, 4))
    for min_iou, trials in zip(MIN_IOUS, numbers, strict=True):
        for trial in trials.tolist():
            patch = patch_of(*trial)
            if any(iou(patch, box) >= min_iou for box in objects):
                found.append(patch)
                break
    pick = rng.integers(len(found) + 1)
    if pick == len(found):
        return 0, 0, width, height
    x1, y1, x2, y2 = found[pick]
    left, top = int(x1 * width), int(y1 * height)
    return left, top, left + max(1, int((x2 - x1) * width)), top + max(1, int((y2 - y1) * height))


def patch_of(u: float, v: float, s: float, t: float) -> tuple[float, float, float, float]:
    scale = 0.3 + 0.7 * u
    aspect = 0.5 + 1.5 * v
    if aspect >= 1 / scale**2:  # as wide as the image
        width, height = 1.0, scale * scale
    elif aspect <= scale**2:  # as high as the image
        width, height = scale * scale, 1.0
    else:
        width, height = scale * math.sqrt(aspect), scale / math.sqrt(aspect)
    left, top = s * (1 - width), t * (1 - height)
    return left, top, left + width, top + height


def iou(a: tuple[float, ...], b: tuple[float, ...]) -> float:
    across = min(a[2], b[2]) - max(a[0], b[0])
    down = min(a[3], b[3]) - max(a[1], b[1])
    if across <= 0 or down <= 0:
        return 0.0
    overlap = across * down
    return overlap / ((a[2] - a[0]) * (a[3] - a[1]) + (b[2] - b[0]) * (b[3] - b[1]) - overlap)

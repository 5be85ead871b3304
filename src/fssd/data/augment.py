"""Training-time augmentation: distort -> expand -> crop -> resize -> mirror.

Source: Liu et al. 2016, data augmentation; FSSD Caffe code, which settles the numbers.

`sample_augmentation` makes every random choice from the boxes and the image size alone. `apply_augmentation`
then does the pixel work: it distorts only the pixels in the crop and never builds a canvas larger than the
crop. The result is equal, to the last bit, to doing the steps one by one.

    steps = sample_augmentation(sample, sample_rng(seed=0, epoch=3, index=17))
    training_sample = apply_augmentation(sample, steps, Warp((300, 300)))
"""

from __future__ import annotations

from dataclasses import dataclass

import cv2
import numpy as np

from fssd.data.crop import MIN_IOUS, Crop, sample_crop
from fssd.data.distort import COLUMN_BLOCK, Distort, Shade, apply_distort, sample_distort, sample_shade
from fssd.data.geometry import MEAN, Geometry, Warp
from fssd.data.jitter import sample_window
from fssd.data.sample import Boxes, Flags, Image, Sample
from fssd.errors import ConfigError

INTERPOLATIONS = (cv2.INTER_LINEAR, cv2.INTER_AREA, cv2.INTER_NEAREST, cv2.INTER_CUBIC, cv2.INTER_LANCZOS4)

# Crops with more pixels than this are assembled at the output's resolution (see `_paste_resized`): the
# expanded canvas of a 12-megapixel photograph would take half a gigabyte.
LARGEST_CANVAS = 4096 * 4096


@dataclass(frozen=True)
class Recipe:
    """How much to augment; the defaults are those of SSD and FSSD.

    distort_prob: of each of brightness, contrast, saturation and hue. expand_prob: of putting the image on a
    canvas up to max_expand times as wide and high. min_ious: the threshold of each crop sampler, () for no
    crops. interpolations: of cv2.resize, one is sampled uniformly. jitter: YOLOv2's window and colours (see
    `sample_window`, `Shade`) instead of all these but mirroring.
    """

    distort_prob: float = 0.5
    expand_prob: float = 0.5
    max_expand: float = 4.0
    min_ious: tuple[float, ...] = MIN_IOUS
    interpolations: tuple[int, ...] = INTERPOLATIONS
    mirror_prob: float = 0.5
    jitter: bool = False

    def __post_init__(self) -> None:
        for name in ("distort_prob", "expand_prob", "mirror_prob"):
            if not 0 <= getattr(self, name) <= 1:
                raise ConfigError(f"{name} is {getattr(self, name)}, which is no probability; choose 0 to 1")
        if self.max_expand < 1:
            raise ConfigError(f"max_expand {self.max_expand} would shrink the canvas; choose 1 or more")
        if not self.interpolations:
            raise ConfigError("interpolations is empty; name at least one, such as cv2.INTER_LINEAR")


SSD = Recipe()
# For short runs: zooming out up to four times turns half of the objects into small ones.
MILD = Recipe(expand_prob=0.25, max_expand=2.0)
MIRROR = Recipe(distort_prob=0.0, expand_prob=0.0, min_ious=(), interpolations=(cv2.INTER_LINEAR,))
YOLO = Recipe(interpolations=(cv2.INTER_LINEAR,), jitter=True)
RECIPES = {"ssd": SSD, "mild": MILD, "mirror": MIRROR, "yolo": YOLO}  # the names that a configuration may use


@dataclass(frozen=True)
class Augmentation:
    """Everything random about one augmented sample.

    canvas: (width, height) in pixels after expanding. offset: (left, top) of the image on it.
    crop: xyxy on the canvas. interpolation: of cv2.resize. distort: None to keep the colours. partial: keep
    objects of which anything lies in the crop, not only those whose centre does.
    """

    distort: Distort | Shade | None
    canvas: tuple[int, int]
    offset: tuple[int, int]
    crop: Crop
    interpolation: int
    mirror: bool
    partial: bool = False


def sample_rng(seed: int, epoch: int, index: int, turn: int = 0) -> np.random.Generator:
    """The random generator of one image in one epoch, whichever worker loads it and in whatever order.

    turn: how often the image was shown in this epoch before.
    """
    key = (seed, epoch, index, turn) if turn else (seed, epoch, index)
    return np.random.default_rng(np.random.SeedSequence(key))


def augment(
    sample: Sample, geometry: Geometry, rng: np.random.Generator, *, recipe: Recipe = SSD, jpeg: bool = False
) -> Sample:
    """A random training view of `sample`: an image of the geometry's size, boxes in its pixels.

    jpeg: encode and decode the image after distorting, expanding and cropping, as the Caffe data layer does
    silently; several times slower.
    """
    if recipe.jitter:  # its window has the aspect ratio of the input, or is meant to be stretched
        steps, geometry = _sample_jitter(sample, geometry, rng, recipe), Warp(geometry.size)
    else:
        steps = sample_augmentation(sample, rng, recipe)
    return apply_augmentation(sample, steps, geometry, jpeg=jpeg)


def resize(sample: Sample, geometry: Geometry) -> Sample:
    """For evaluation: the whole image with linear interpolation, every box kept."""
    height, width = sample.image.shape[:2]
    boxes = geometry.apply_boxes(sample.boxes, (width, height))  # (N, 4)
    return Sample(geometry.apply(sample.image), boxes, sample.labels, sample.difficult, sample.name)


def sample_augmentation(sample: Sample, rng: np.random.Generator, recipe: Recipe = SSD) -> Augmentation:
    """Make all random choices for `sample`; they depend on its boxes and the image's size only."""
    height, width = sample.image.shape[:2]
    distort = sample_distort(rng, recipe.distort_prob) if recipe.distort_prob > 0 else None
    canvas, offset = _sample_expand(width, height, rng, recipe)
    boxes = sample.boxes + np.array(offset * 2, dtype=np.float32)
    crop = sample_crop(boxes, *canvas, rng, min_ious=recipe.min_ious)
    interpolation = recipe.interpolations[int(rng.integers(len(recipe.interpolations)))]
    mirror = bool(rng.random() < recipe.mirror_prob)
    return Augmentation(distort, canvas, offset, crop, interpolation, mirror)


def _sample_jitter(
    sample: Sample, geometry: Geometry, rng: np.random.Generator, recipe: Recipe
) -> Augmentation:
    """The random choices of YOLOv2: a canvas that holds the image and the window, cropped to the window."""
    height, width = sample.image.shape[:2]
    left, top, right, bottom = sample_window((width, height), geometry, rng)
    x, y = max(0, -left), max(0, -top)
    canvas = x + max(width, right), y + max(height, bottom)
    crop = left + x, top + y, right + x, bottom + y
    shade, mirror = sample_shade(rng), bool(rng.random() < recipe.mirror_prob)
    return Augmentation(shade, canvas, (x, y), crop, recipe.interpolations[0], mirror, partial=True)


def apply_augmentation(
    sample: Sample, steps: Augmentation, geometry: Geometry, *, jpeg: bool = False
) -> Sample:
    """The view of `sample` that `steps` describes; see `augment` for the arguments and the result."""
    cut = _cut_out_jpeg(sample.image, steps) if jpeg else _cut_out(sample.image, steps, geometry)
    image = geometry.apply(cut, steps.interpolation)  # (height, width, 3)
    if steps.mirror:
        image = np.asarray(cv2.flip(image, 1), dtype=np.uint8)
    boxes, keep = move_boxes(sample.boxes, steps, geometry)
    return Sample(image, boxes[keep], sample.labels[keep], sample.difficult[keep], sample.name)


def move_boxes(boxes: Boxes, steps: Augmentation, geometry: Geometry) -> tuple[Boxes, Flags]:
    """Boxes (N, 4) in pixels of the original image to (N, 4) in pixels of the result, and (N,) which to keep.

    An object is kept if its centre lies in the crop, edges included (any part of it if `steps.partial`), and
    its clipped box has an area, however small.
    """
    x1, y1, x2, y2 = steps.crop
    corner = (np.array(steps.offset) - (x1, y1)).astype(np.float64)  # of the image, in crop coordinates
    extent = np.array([x2 - x1, y2 - y1])
    corners = boxes.reshape(-1, 2, 2).astype(np.float64) + corner  # (N, 2 corners, xy)
    centre = corners.mean(axis=1)  # (N, 2)
    keep = ((centre >= 0) & (centre <= extent)).all(axis=1) | steps.partial
    scale, shift = geometry.scale_and_shift((x2 - x1, y2 - y1))
    moved = np.clip(corners, 0, extent) * scale + shift
    if steps.mirror:
        moved[..., 0] = geometry.size[0] - moved[:, ::-1, 0]
    result = moved.reshape(-1, 4).astype(np.float32)
    # Checked in float32, because rounding may close a very thin box.
    keep &= (result[:, 2:] > result[:, :2]).all(axis=1)
    return result, keep


def _sample_expand(
    width: int, height: int, rng: np.random.Generator, recipe: Recipe
) -> tuple[tuple[int, int], tuple[int, int]]:
    """Canvas (width, height) and offset (left, top) of the image on it; one ratio, so the aspect is kept."""
    if recipe.expand_prob == 0 or rng.random() >= recipe.expand_prob:
        return (width, height), (0, 0)
    ratio = rng.uniform(1.0, recipe.max_expand)
    wide, high = int(width * ratio), int(height * ratio)
    return (wide, high), (int(rng.uniform(0, wide - width)), int(rng.uniform(0, high - height)))


def _cut_out(image: Image, steps: Augmentation, geometry: Geometry) -> Image:
    """The crop of the distorted, expanded image, built from the pixels inside it only."""
    height, width = image.shape[:2]
    left, top = steps.offset
    x1, y1, x2, y2 = steps.crop[0] - left, steps.crop[1] - top, steps.crop[2] - left, steps.crop[3] - top
    inside = max(x1, 0), max(y1, 0), min(x2, width), min(y2, height)
    if inside[0] >= inside[2] or inside[1] >= inside[3]:
        return np.full((1, 1, 3), MEAN, dtype=np.uint8)  # only canvas: resizing one pixel gives the same
    region = _distorted_region(image, inside, steps.distort)
    if inside == (x1, y1, x2, y2):
        return region
    borders = inside[1] - y1, y2 - inside[3], inside[0] - x1, x2 - inside[2]  # top, bottom, left, right
    if (x2 - x1) * (y2 - y1) > LARGEST_CANVAS:
        return _paste_resized(region, borders, geometry, steps.interpolation)
    return np.asarray(cv2.copyMakeBorder(region, *borders, cv2.BORDER_CONSTANT, value=MEAN), dtype=np.uint8)


def _distorted_region(image: Image, region: Crop, distort: Distort | Shade | None) -> Image:
    """The part `region` of the distorted image, cut at multiples of COLUMN_BLOCK (see there) and trimmed."""
    x1, y1, x2, y2 = region
    if distort is None:
        return image[y1:y2, x1:x2]
    start = x1 - x1 % COLUMN_BLOCK
    stop = x2 + -x2 % COLUMN_BLOCK  # may exceed the width: slicing stops there
    return apply_distort(image[y1:y2, start:stop], distort)[:, x1 - start : x2 - start]


def _paste_resized(
    region: Image, borders: tuple[int, int, int, int], geometry: Geometry, interpolation: int
) -> Image:
    """The finished view, (height, width, 3). It saves memory by resizing first and adding the borders then.

    The region's edges are rounded to whole pixels of the result, half a pixel off at most.
    """
    top, bottom, left, right = borders
    height, width = region.shape[:2]
    x0, y0, wide, high = geometry.window((left + width + right, top + height + bottom))
    x1, x2 = (x0 + x for x in _span(left, width, right, wide))
    y1, y2 = (y0 + y for y in _span(top, height, bottom, high))
    result = np.full((*geometry.size[::-1], 3), MEAN, dtype=np.uint8)
    result[y1:y2, x1:x2] = cv2.resize(region, (x2 - x1, y2 - y1), interpolation=interpolation)
    return result


def _span(before: int, length: int, after: int, size: int) -> tuple[int, int]:
    scale = size / (before + length + after)
    start = min(round(before * scale), size - 1)
    return start, max(start + 1, round((before + length) * scale))


def _cut_out_jpeg(image: Image, steps: Augmentation) -> Image:
    """As `_cut_out`, with a pass through JPEG after each step. JPEG mixes pixels: the order is fixed."""
    height, width = image.shape[:2]
    if steps.distort is not None:
        image = _through_jpeg(apply_distort(image, steps.distort))
    if steps.canvas != (width, height):
        left, top = steps.offset
        canvas = np.full((steps.canvas[1], steps.canvas[0], 3), MEAN, dtype=np.uint8)
        canvas[top : top + height, left : left + width] = image
        image = _through_jpeg(canvas)
    x1, y1, x2, y2 = steps.crop
    return _through_jpeg(image[y1:y2, x1:x2])


def _through_jpeg(image: Image) -> Image:
    done, data = cv2.imencode(".jpg", cv2.cvtColor(image, cv2.COLOR_RGB2BGR))
    if not done:
        raise ValueError(f"OpenCV cannot encode an image of shape {image.shape} as JPEG")
    return np.asarray(cv2.imdecode(data, cv2.IMREAD_COLOR_RGB), dtype=np.uint8)

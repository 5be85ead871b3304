"""Which part of an image to train on: the batch samplers of SSD. No pixels here, only coordinates.

Source: Liu et al. 2016, data augmentation; FSSD Caffe code (batch_sampler).
"""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from fssd.boxes import overlaps
from fssd.data.sample import Boxes

Floats = npt.NDArray[np.float64]
Crop = tuple[int, int, int, int]  # x1, y1, x2, y2 in whole pixels, x2 and y2 exclusive

# Threshold of each sampler. The last one accepts any patch (max_jaccard_overlap 1.0 in the Caffe scripts).
MIN_IOUS = (0.1, 0.3, 0.5, 0.7, 0.9, 0.0)
TRIALS = 50  # patches that a sampler tries
SCALE = (0.3, 1.0)  # square root of the patch's area, as a share of the image's
ASPECT = (0.5, 2.0)  # width / height, both as shares of the image's, before clamping


def sample_crop(
    boxes: Boxes,
    width: int,
    height: int,
    rng: np.random.Generator,
    *,
    min_ious: tuple[float, ...] = MIN_IOUS,
    trials: int = TRIALS,
) -> Crop:
    """A random crop of a width x height image with objects `boxes` (N, 4) xyxy pixels.

    Each sampler contributes its first trial that has IoU >= min_iou with at least one object, or nothing.
    The whole image is always a candidate. One candidate is picked uniformly, so a sampler that fails raises
    the share of the others. Without objects only the whole image qualifies.
    """
    whole = (0, 0, width, height)
    if not min_ious or len(boxes) == 0:
        return whole
    patches = sample_patches(rng, len(min_ious), trials)  # (S, T, 4)
    objects = boxes.astype(np.float64) / (width, height, width, height)  # (N, 4)
    best = overlaps(patches, objects).max(axis=-1)  # (S, T): any one object is enough
    good = best >= np.asarray(min_ious)[:, None]  # (S, T)
    found = np.flatnonzero(good.any(axis=1))
    pick = int(rng.integers(len(found) + 1))
    if pick == len(found):
        return whole
    sampler = found[pick]
    return _whole_pixels(patches[sampler, good[sampler].argmax()], width, height)


def sample_patches(rng: np.random.Generator, samplers: int, trials: int) -> Floats:
    """(samplers, trials, 4) xyxy in shares of the image: scale U(0.3, 1), aspect U(0.5, 2), offset uniform.

    The sampled aspect is clamped to [scale^2, 1 / scale^2]: a patch that would be wider or higher than the
    image gets the image's full width or height.
    """
    scale, aspect, left, top = np.moveaxis(rng.random((samplers, trials, 4)), -1, 0)  # (S, T) each
    scale = SCALE[0] + (SCALE[1] - SCALE[0]) * scale
    aspect = ASPECT[0] + (ASPECT[1] - ASPECT[0]) * aspect
    lowest, highest = scale**2, 1 / scale**2
    root = np.sqrt(np.clip(aspect, lowest, highest))
    # Exactly 1 where clamped: a rounding error below 1 would cost a whole pixel when it is truncated.
    width = np.where(aspect < highest, np.minimum(scale * root, 1.0), 1.0)
    height = np.where(aspect > lowest, np.minimum(scale / root, 1.0), 1.0)
    left = left * (1 - width)
    top = top * (1 - height)
    return np.stack([left, top, left + width, top + height], axis=-1)


def _whole_pixels(patch: Floats, width: int, height: int) -> Crop:
    # Corner and size are both truncated, as in Caffe, so the crop never leaves the image.
    left, top = int(patch[0] * width), int(patch[1] * height)
    across = max(1, int((patch[2] - patch[0]) * width))
    down = max(1, int((patch[3] - patch[1]) * height))
    return left, top, left + across, top + down

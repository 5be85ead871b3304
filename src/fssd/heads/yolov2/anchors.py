"""Anchors: the shapes that YOLOv2 predicts sizes from, in cells of the last map (32 pixels)."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

import numpy as np
import numpy.typing as npt

from fssd.errors import ConfigError, nearest

Anchors = tuple[tuple[float, float], ...]  # (width, height), cells
Shapes = npt.NDArray[np.float64]

# By generation and data set: darknet's yolo-voc.2.0.cfg, yolo.2.0.cfg, yolov2-voc.cfg and yolov2.cfg.
TABLES: dict[tuple[int, str], Anchors] = {
    (2016, "voc"): ((1.08, 1.19), (3.42, 4.41), (6.63, 11.38), (9.42, 5.11), (16.62, 10.52)),
    (2016, "coco"): (
        (0.738768, 0.874946), (2.42204, 2.65704), (4.30971, 7.04493), (10.246, 4.59428), (12.6868, 11.8741),
    ),
    (2017, "voc"): (
        (1.3221, 1.73145), (3.19275, 4.00944), (5.05587, 8.09892), (9.47112, 4.84053), (11.2364, 10.0071),
    ),
    (2017, "coco"): (
        (0.57273, 0.677385), (1.87446, 2.06253), (3.33843, 5.47434), (7.88282, 3.52778), (9.77052, 9.16828),
    ),
}  # fmt: skip
NAMES = ("voc", "coco")
COUNT = 5  # anchors, the paper's compromise of recall and size
STARTS, ROUNDS = 10, 300  # of the k-means


def read_anchors(priors: Any, generation: int) -> Anchors:
    """The option `priors`: "voc", "coco", or {"anchors": [[width, height], ...]}. Raises ConfigError."""
    if isinstance(priors, Mapping):
        rows = priors.get("anchors")
        try:
            anchors = tuple((float(width), float(height)) for width, height in rows)  # type: ignore[union-attr]
        except (TypeError, ValueError):
            anchors = ()
        if not anchors or not all(0 < side < math.inf for shape in anchors for side in shape):
            raise ConfigError(
                f"priors are {priors!r}; anchors are pairs of width and height in cells of 32 px, all above 0"
            )
        return anchors
    if priors not in NAMES:
        raise ConfigError(f"there is no table of anchors {priors!r}{nearest(str(priors), NAMES)}")
    return TABLES[generation, priors]


def shape_overlaps(shapes: Shapes, anchors: Shapes) -> Shapes:
    """IoU of each of the shapes (N, 2) with each of the anchors (A, 2), both at one centre: (N, A)."""
    shared = np.minimum(shapes[:, None], anchors).prod(axis=-1)
    union = shapes.prod(axis=-1)[:, None] + anchors.prod(axis=-1) - shared
    return np.asarray(np.divide(shared, union, out=np.zeros_like(shared), where=union > 0))


def cluster_anchors(shapes: Shapes, count: int = COUNT, seed: int = 0) -> Anchors | None:
    """The anchors of the k-means of YOLO9000, 2: the distance of a shape (width, height) is 1 - IoU.

    shapes: (N, 2), cells. The best of `STARTS` random starts, in ascending order of area, rounded to 0.0001
    cells; None without shapes. The same shapes and seed give the same anchors.
    """
    shapes = shapes[(shapes > 0).all(axis=1)]
    if not len(shapes):
        return None
    rng = np.random.default_rng(seed)
    tried = [_cluster(shapes, count, rng) for _ in range(STARTS)]
    best = max(tried, key=lambda anchors: float(shape_overlaps(shapes, anchors).max(axis=1).mean()))
    ordered = best[np.argsort(best.prod(axis=1), kind="stable")]
    return tuple((round(float(width), 4), round(float(height), 4)) for width, height in ordered)


def _cluster(shapes: Shapes, count: int, rng: np.random.Generator) -> Shapes:
    anchors = shapes[rng.choice(len(shapes), count, replace=len(shapes) < count)]
    owner = np.full(len(shapes), -1)
    for _ in range(ROUNDS):
        before, owner = owner, shape_overlaps(shapes, anchors).argmax(axis=1)
        if (owner == before).all():
            break
        for index in range(count):
            if (own := owner == index).any():  # an anchor that is nobody's best stays where it is
                anchors[index] = shapes[own].mean(axis=0)
    return anchors

"""Anchors: the published ones, k-means against boxes made from known shapes, errors."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch

from fssd.errors import ConfigError
from fssd.heads.yolov2.anchors import cluster_anchors, read_anchors, shape_overlaps
from fssd.model.build import build_model


def test_shape_overlaps_by_hand() -> None:
    found = shape_overlaps(np.array([[2.0, 2.0], [1.0, 4.0]]), np.array([[2.0, 2.0], [4.0, 1.0]]))
    np.testing.assert_allclose(found, [[1, 2 / 6], [2 / 6, 1 / 7]])


def test_clusters_are_found_again() -> None:
    rng = np.random.default_rng(3)
    shapes = np.array([[0.5, 0.6], [2.0, 1.0], [1.0, 3.0], [5.0, 4.0], [9.0, 11.0]])
    boxes = np.concatenate([shape * np.exp(rng.normal(0, 0.03, (200, 2))) for shape in shapes])
    anchors = cluster_anchors(rng.permutation(boxes))
    assert anchors is not None
    np.testing.assert_allclose(anchors, shapes, rtol=0.02)
    assert anchors == cluster_anchors(rng.permutation(boxes)) or np.allclose(anchors, shapes, rtol=0.02)
    assert cluster_anchors(boxes) == cluster_anchors(boxes)


def test_few_boxes_or_none() -> None:
    assert cluster_anchors(np.zeros((3, 2))) is None
    assert cluster_anchors(np.array([[1.0, 2.0], [3.0, 1.0]])) is not None


def test_fitted_anchors_are_in_cells_and_build_the_network() -> None:
    with torch.device("meta"):
        heads = build_model("yolov2-416", 2).heads
    boxes = np.array([[0, 0, 64, 32], [100, 100, 164, 132], [0, 0, 320, 320]] * 10, np.float32)
    options = heads.fitted(boxes)
    shapes = {tuple(shape) for shape in options["priors"]["anchors"]}
    assert shapes == {(2.0, 1.0), (10.0, 10.0)}
    assert len(options["priors"]["anchors"]) == 5
    with torch.device("meta"):
        fitted = build_model("yolov2-416", 2, **options).heads
    assert fitted.best_overlaps(boxes).min() == pytest.approx(1)
    assert fitted.prior_shapes().tolist()[0] == [64, 32]
    assert heads.fitted(boxes[:0])["priors"]["anchors"][0] == [1.3221, 1.73145]
    assert heads.best_overlaps(boxes[:0]).shape == (0,)


def test_the_generations_differ() -> None:
    assert read_anchors("voc", 2016)[-1] == (16.62, 10.52)
    assert read_anchors("voc", 2017)[-1] == (11.2364, 10.0071)
    assert read_anchors("coco", 2017)[0] == (0.57273, 0.677385)


@pytest.mark.parametrize(
    ("priors", "message"),
    [
        ("vco", "no table of anchors 'vco'; did you mean 'voc'"),
        (3, "no table of anchors 3"),
        ({"anchors": []}, "anchors are pairs"),
        ({"anchors": [[1, 0]]}, "anchors are pairs"),
        ({"anchors": [[1, 2, 3]]}, "anchors are pairs"),
        ({"shapes": []}, "anchors are pairs"),
    ],
    ids=str,
)
def test_wrong_priors(priors: Any, message: str) -> None:
    with torch.device("meta"), pytest.raises(ConfigError, match=message):
        build_model("yolov2-416", 2, priors=priors)

"""Decoding and detections against plain loops; the candidates; the same as an ONNX graph."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from plain_region import plain_detections, predicted_box

from fssd.heads.head import Thresholds
from fssd.heads.yolov2.region_decode import RegionGrid, detect_regions, region_candidates, region_graph

ANCHORS = ((0.6, 0.8), (1.5, 1.2), (2.5, 3.0))
GRID = RegionGrid(ANCHORS, rows=3, columns=5, image_size=(160, 96), classes=4)
NO_LIMIT = 100_000


def random_predictions(seed: int, batch: int = 2) -> np.ndarray:
    return np.random.default_rng(seed).normal(0, 1.5, (batch, GRID.channels, 3, 5)).astype(np.float32)


@pytest.mark.parametrize("seed", range(4))
@pytest.mark.parametrize(("score", "nms"), [(0.005, 0.45), (0.2, 0.1)])
def test_detections_are_those_of_plain_loops(seed: int, score: float, nms: float) -> None:
    predictions = random_predictions(seed)
    thresholds = Thresholds(score, nms, NO_LIMIT, NO_LIMIT)
    found = detect_regions(torch.from_numpy(predictions), GRID, thresholds)
    for image, one in zip(predictions, found, strict=True):
        expected = plain_detections(image, ANCHORS, GRID.image_size, score, nms)
        assert len(expected) == len(one.scores) > 0
        assert one.labels.tolist() == [label for label, *_ in expected]
        np.testing.assert_allclose(one.scores, [value for _, value, _ in expected], rtol=1e-5)
        np.testing.assert_allclose(one.boxes, [box for *_, box in expected], rtol=1e-4, atol=1e-3)


def test_top_k_and_keep_limit_classes_and_images() -> None:
    predictions = torch.from_numpy(random_predictions(0, 1))
    whole = detect_regions(predictions, GRID, Thresholds(0.0, 1.0, NO_LIMIT, NO_LIMIT))[0]
    assert len(whole.scores) == 4 * 45
    two = detect_regions(predictions, GRID, Thresholds(0.0, 1.0, 2, NO_LIMIT))[0]
    assert np.bincount(two.labels.numpy()).tolist() == [2, 2, 2, 2]
    best = detect_regions(predictions, GRID, Thresholds(0.0, 1.0, NO_LIMIT, 7))[0]
    assert torch.equal(best.scores, whole.scores[:7])


def test_nothing_above_the_threshold() -> None:
    predictions = torch.from_numpy(random_predictions(0))
    for one in detect_regions(predictions, GRID, Thresholds(score=1.0)):
        assert one.boxes.shape == (0, 4) and one.scores.shape == one.labels.shape == (0,)


def test_candidates_are_every_anchor_in_every_cell() -> None:
    predictions = random_predictions(3)
    candidates = region_candidates(torch.from_numpy(predictions), GRID)
    assert len(candidates) == 2
    boxes, scores = candidates[1]
    assert boxes.shape == (45, 4) and scores.shape == (45, 4)
    a, j, i = 2, 1, 3
    values = predictions[1, a * 9 : (a + 1) * 9, j, i].astype(float)
    x, y, w, h = predicted_box(values, i, j, ANCHORS[a], 5, 3)
    expected = [(x - w / 2) * 160, (y - h / 2) * 96, (x + w / 2) * 160, (y + h / 2) * 96]
    np.testing.assert_allclose(boxes[a * 15 + j * 5 + i], expected, rtol=1e-4)
    assert float(scores.sum(dim=1).max()) <= 1  # a class scores no more than the objectness


@pytest.mark.parametrize(
    "thresholds", [Thresholds(0.005, 0.45, NO_LIMIT, NO_LIMIT), Thresholds(0.1, 0.3, 10, 8)], ids=str
)
def test_the_graph_gives_the_same_detections(thresholds: Thresholds) -> None:
    pytest.importorskip("onnx", reason='needs onnx: pip install "fssd[export]"')
    runtime = pytest.importorskip("onnxruntime", reason='needs onnxruntime: pip install "fssd[export]"')
    session = runtime.InferenceSession(region_graph(GRID, thresholds, 18, 10).SerializeToString())
    predictions = random_predictions(5)
    boxes, scores, labels, count = session.run(None, {"predictions": predictions})
    expected = detect_regions(torch.from_numpy(predictions), GRID, thresholds)
    for image, one in enumerate(expected):
        assert count[image] == len(one.scores) > 0
        kept = slice(0, int(count[image]))
        assert labels[image, kept].tolist() == one.labels.tolist()
        np.testing.assert_allclose(scores[image, kept], one.scores, rtol=1e-5)
        np.testing.assert_allclose(boxes[image, kept], one.boxes, rtol=1e-4, atol=1e-3)

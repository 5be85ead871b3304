"""The plain side of the comparison: greedy NMS by hand, and what counts as the same."""

from __future__ import annotations

from collections.abc import Callable
from types import ModuleType

import numpy as np
import pytest


@pytest.fixture(scope="module")
def nms(script: Callable[[str], ModuleType]) -> ModuleType:
    return script("nms")


def test_greedy(nms: ModuleType) -> None:
    # The second overlaps the first by 80 / 120; the third overlaps the second by 70 / 130, which is gone, and
    # the first by 50 / 150 alone.
    boxes = np.array([[0, 0, 10, 10], [2, 0, 12, 10], [5, 0, 15, 10], [40, 0, 50, 10]], np.float32)
    assert nms.greedy(boxes, 0.45).tolist() == [0, 2, 3]
    assert nms.greedy(boxes, 0.7).tolist() == [0, 1, 2, 3]


def test_the_same_detections(nms: ModuleType) -> None:
    boxes = np.array([[0, 0, 10, 10], [20, 0, 30, 10]], np.float32)
    scores, labels = np.array([0.5, 0.5], np.float32), np.array([3, 3])
    nms.require_same((boxes, scores, labels), (boxes[::-1] + 1e-4, scores, labels), "swapped ties")
    for other in (
        (boxes[:1], scores[:1], labels[:1]),
        (boxes + 1, scores, labels),
        (boxes, scores + 0.01, labels),
        (boxes, scores, labels - 1),
    ):
        with pytest.raises(SystemExit, match="do not find the same"):
            nms.require_same((boxes, scores, labels), other, "these")


@pytest.mark.parametrize("case", ["scattered", "crowded"])
def test_every_class_has_enough_candidates(nms: ModuleType, case: str) -> None:
    network = nms.build_model("fssd300-lite", nms.CLASSES, priors="voc")
    raw = nms.make_raw(network, case)
    above = (raw.logits.softmax(-1)[0, :, 1:] > 0.01).sum(0)
    assert int(above.min()) >= 400
    assert raw.offsets.shape == (1, 8732, 4)

"""Pascal VOC average precision against a plain loop after VOCevaldet.m, and numbers worked by hand."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import pytest

from fssd.evaluation.voc_ap import AveragePrecision, voc_average_precision

# --- The kit's algorithm, one detection at a time ---------------------------------------------------


def kit_iou(a: Any, b: Any) -> float:
    width = min(a[2], b[2]) - max(a[0], b[0]) + 1
    height = min(a[3], b[3]) - max(a[1], b[1]) + 1
    if width <= 0 or height <= 0:
        return 0.0
    area_a = (a[2] - a[0] + 1) * (a[3] - a[1] + 1)
    area_b = (b[2] - b[0] + 1) * (b[3] - b[1] + 1)
    return width * height / (area_a + area_b - width * height)


def plain_ap(
    case: dict[str, Any], label: int, iou: float, eleven: bool
) -> tuple[float, list[float], list[float]]:
    truths = []  # per image: [box, difficult, taken]
    for boxes, labels, difficult in zip(
        case["truth_boxes"], case["truth_labels"], case["truth_difficult"], strict=True
    ):
        truths.append([[b, d, False] for b, c, d in zip(boxes, labels, difficult, strict=True) if c == label])
    positives = sum(not t[1] for image in truths for t in image)
    if not positives:
        return math.nan, [], []
    found = []
    for image, (boxes, scores, labels) in enumerate(
        zip(case["boxes"], case["scores"], case["labels"], strict=True)
    ):
        found += [(s, image, b) for b, s, c in zip(boxes, scores, labels, strict=True) if c == label]
    found.sort(key=lambda f: -f[0])
    correct = wrong = 0
    recall, precision = [], []
    for _, image, box in found:
        best, overlap = None, -math.inf
        for truth in truths[image]:
            if kit_iou(box, truth[0]) > overlap:
                best, overlap = truth, kit_iou(box, truth[0])
        if best is not None and overlap >= iou:
            if best[1]:
                continue
            if best[2]:
                wrong += 1
            else:
                correct += 1
                best[2] = True
        else:
            wrong += 1
        recall.append(correct / positives)
        precision.append(correct / (correct + wrong))
    return plain_area(recall, precision, eleven), recall, precision


def plain_area(recall: list[float], precision: list[float], eleven: bool) -> float:
    if eleven:
        best = [
            max((p for r, p in zip(recall, precision, strict=True) if r >= k / 10), default=0.0)
            for k in range(11)
        ]
        return sum(best) / 11
    recall = [0.0, *recall, 1.0]
    precision = [0.0, *precision, 0.0]
    for i in reversed(range(len(precision) - 1)):
        precision[i] = max(precision[i], precision[i + 1])
    return sum((recall[i] - recall[i - 1]) * precision[i] for i in range(1, len(recall)))


# --- Random sets --------------------------------------------------------------------------------------------


def random_case(seed: int, images: int = 12, classes: int = 4) -> dict[str, Any]:
    """Few box positions, few scores: ties, duplicates, difficult objects, empty images and classes."""
    rng = np.random.default_rng(seed)
    case: dict[str, Any] = {
        k: [] for k in ("truth_boxes", "truth_labels", "truth_difficult", "boxes", "scores", "labels")
    }
    for _ in range(images):
        n, d = rng.integers(0, 5), rng.integers(0, 15) * rng.integers(0, 2)
        corner = rng.integers(0, 4, (n, 2)) * 8
        truth = np.concatenate([corner, corner + rng.integers(4, 24, (n, 2))], 1).astype(np.float32)
        case["truth_boxes"].append(truth)
        case["truth_labels"].append(rng.integers(0, classes - 1, n))  # the last class has no object
        case["truth_difficult"].append(rng.random(n) < 0.25)
        corner = rng.integers(0, 4, (d, 2)) * 8
        boxes = np.concatenate([corner, corner + rng.integers(4, 24, (d, 2))], 1).astype(np.float32)
        if n and d:
            copied = rng.random(d) < 0.6
            boxes[copied] = truth[rng.integers(0, n, copied.sum())] + rng.integers(-1, 2, (copied.sum(), 4))
        case["boxes"].append(boxes)
        case["scores"].append(rng.integers(1, 8, d).astype(np.float32) / 8)
        case["labels"].append(rng.integers(0, classes, d))
    return case


@pytest.mark.parametrize("eleven", [True, False])
@pytest.mark.parametrize("seed", range(60))
def test_equals_plain_loop(seed: int, eleven: bool) -> None:
    case = random_case(seed)
    iou = (0.3, 0.5, 0.75)[seed % 3]
    result = voc_average_precision(**case, classes=4, iou=iou, eleven_points=eleven)
    wanted = [plain_ap(case, label, iou, eleven) for label in range(4)]
    for label, (ap, recall, precision) in enumerate(wanted):
        assert result.ap[label] == pytest.approx(ap, abs=1e-12, nan_ok=True)
        curve = result.curves[label]
        assert curve.recall.tolist() == pytest.approx(recall, abs=1e-12)
        assert curve.precision.tolist() == pytest.approx(precision, abs=1e-12)
        assert len(curve.correct) == len(curve.images) == len(recall)
    assert math.isnan(wanted[3][0])
    assert result.mean == pytest.approx(np.nanmean([w[0] for w in wanted]), abs=1e-12)


def test_random_sets_hold_what_they_promise() -> None:
    cases = [random_case(seed) for seed in range(60)]
    assert any(d.any() for c in cases for d in c["truth_difficult"])
    assert any(
        len(t) and not len(b) for c in cases for t, b in zip(c["truth_boxes"], c["boxes"], strict=True)
    )
    assert any(
        len(b) and not len(t) for c in cases for t, b in zip(c["truth_boxes"], c["boxes"], strict=True)
    )


# --- Worked by hand -----------------------------------------------------------------------------------------


def one_class(
    truths: list[list[float]],
    found: list[list[float]],
    scores: list[float],
    difficult: list[bool] | None = None,
    **rest: Any,
) -> AveragePrecision:
    """AP of one image with one class."""
    return voc_average_precision(
        truth_boxes=[np.array(truths, np.float32).reshape(-1, 4)],
        truth_labels=[np.zeros(len(truths), int)],
        truth_difficult=[np.array(difficult or [False] * len(truths), bool)],
        boxes=[np.array(found, np.float32).reshape(-1, 4)],
        scores=[np.array(scores, np.float32)],
        labels=[np.zeros(len(scores), int)],
        classes=1,
        **rest,
    )


A, B, FAR = [0, 0, 9, 9], [50, 50, 59, 59], [100, 100, 109, 109]


def test_hit_miss_hit() -> None:
    # Scores .9 (A), .8 (no object there), .7 (B): recall 1/2, 1/2, 1; precision 1, 1/2, 2/3.
    # Area: 1/2 * 1 + 1/2 * 2/3 = 5/6. Eleven points: recall 0..0.5 six times 1, 0.6..1 five times 2/3: 28/33.
    found, scores = [A, FAR, B], [0.9, 0.8, 0.7]
    result = one_class([A, B], found, scores)
    assert result.ap[0] == pytest.approx(5 / 6)
    assert result.curves[0].recall.tolist() == [0.5, 0.5, 1.0]
    assert result.curves[0].precision.tolist() == pytest.approx([1, 1 / 2, 2 / 3])
    assert result.curves[0].correct.tolist() == [True, False, True]
    assert one_class([A, B], found, scores, eleven_points=True).ap[0] == pytest.approx(28 / 33)


def test_second_detection_of_one_object_is_a_false_positive() -> None:
    # A, A again, B: precision 1, 1/2, 2/3 as above.
    assert one_class([A, B], [A, A, B], [0.9, 0.8, 0.7]).ap[0] == pytest.approx(5 / 6)


def test_difficult_object_is_ignored() -> None:
    # Only B is a positive. Two detections of difficult A are ignored, B is found with precision 1.
    result = one_class([A, B], [A, A, B], [0.9, 0.8, 0.7], [True, False])
    assert result.ap[0] == 1
    assert result.curves[0].recall.tolist() == [1]


def test_threshold_is_inclusive_and_the_last_pixel_belongs_to_the_box() -> None:
    # 10 x 10 pixels against 10 x 5 pixels: IoU 50/100, exactly the threshold. Without +1 it would be 36/81.
    assert one_class([A], [[0, 0, 9, 4]], [0.9]).ap[0] == 1
    assert one_class([A], [[0, 0, 9, 4]], [0.9], iou=0.51).ap[0] == 0


def test_taken_object_is_not_replaced_by_the_second_best() -> None:
    # Both detections overlap A most. The kit does not give the second one the object beside it.
    beside = [2, 0, 11, 9]  # IoU with A 80/120
    result = one_class([A, beside], [A, A], [0.9, 0.8], iou=0.6)
    assert result.curves[0].precision.tolist() == [1, 0.5]


def test_first_of_equal_overlaps_is_taken() -> None:
    assert one_class([A, A, B], [A], [0.9], [True, False, False]).ap[0] == 0  # the difficult one: no hit
    assert one_class([A, A, B], [A], [0.9], [False, True, False]).ap[0] == 0.5


def test_recall_of_exactly_three_tenths_counts_as_reached() -> None:
    # 3 of 10 found, precision 1: recall 0, 0.1, 0.2, 0.3 are reached: 4/11.
    truths = [[20 * i, 0, 20 * i + 9, 9] for i in range(10)]
    assert one_class(truths, truths[:3], [0.9, 0.8, 0.7], eleven_points=True).ap[0] == pytest.approx(4 / 11)


def test_equal_scores_keep_their_order() -> None:
    assert one_class([A], [A, FAR], [0.5, 0.5]).ap[0] == 1
    assert one_class([A], [FAR, A], [0.5, 0.5]).ap[0] == 0.5


def test_ignored_detection_is_no_false_positive_but_can_be_correct() -> None:
    assert one_class([A], [FAR, A], [0.9, 0.8], ignored=[np.array([True, True])]).ap[0] == 1


def test_nothing_found_is_zero_and_nothing_to_find_is_nan() -> None:
    assert one_class([A], [], []).ap.tolist() == [0]
    assert one_class([A], [], []).mean == 0
    empty = one_class([], [A], [0.9])
    assert math.isnan(empty.ap[0])
    assert math.isnan(empty.mean)
    assert empty.curves[0].recall.size == 0
    assert math.isnan(one_class([A], [A], [0.9], [True]).mean)


def test_no_images() -> None:
    empty: list[Any] = []
    result = voc_average_precision(
        truth_boxes=empty,
        truth_labels=empty,
        truth_difficult=empty,
        boxes=empty,
        scores=empty,
        labels=empty,
        classes=2,
    )
    assert np.isnan(result.ap).all()


def test_wrong_arguments() -> None:
    with pytest.raises(ValueError, match="iou"):
        one_class([A], [A], [0.9], iou=50)
    with pytest.raises(ValueError, match="differ in length"):
        one_class([A], [A, A], [0.9])
    case = random_case(0)
    with pytest.raises(ValueError, match="label"):
        voc_average_precision(**case, classes=2)
    fewer = {**case, **{key: case[key][1:] for key in ("boxes", "scores", "labels")}}
    with pytest.raises(ValueError, match="truths of 12 images, but detections of 11"):
        voc_average_precision(**fewer, classes=4)

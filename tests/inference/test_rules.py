"""Which detections are kept: by class, over classes, softly, and with the mirror image."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import numpy as np
import pytest
from plain import plain_iou

from fssd.errors import ConfigError
from fssd.heads.head import Thresholds
from fssd.inference.detections import Detections
from fssd.inference.detector import Detector
from fssd.inference.rules import read_rules, soft_scores

Row = tuple[int, float, list[float]]  # label, score, box
EVERYTHING = {"score": 0.05, "nms": 1.0, "keep": 100_000}


@pytest.fixture(scope="module")
def detector(detectors: dict[str, Detector]) -> Detector:
    return detectors["tiny"]


@pytest.fixture(scope="module")
def picture() -> np.ndarray:
    return np.random.default_rng(1).integers(0, 255, (60, 90, 3), dtype=np.uint8)


def rows_of(found: Detections) -> list[Row]:
    return [(one.label, one.score, list(one.box)) for one in found]


def plain_nms(rows: Sequence[Row], nms: float, agnostic: bool) -> list[Row]:
    kept: list[Row] = []
    for row in sorted(rows, key=lambda one: -one[1]):
        rivals = [one for one in kept if agnostic or one[0] == row[0]]
        if all(plain_iou(row[2], one[2]) <= nms for one in rivals):
            kept.append(row)
    return kept


def plain_soft(rows: Sequence[Row], kind: str, nms: float) -> list[Row]:
    left, done = list(rows), []
    while left:
        best = max(left, key=lambda one: one[1])
        left.remove(best)
        done.append(best)
        for index, (label, score, box) in enumerate(left):
            if label == best[0]:
                overlap = plain_iou(box, best[2])
                linear = 1 - overlap if overlap > nms else 1.0
                factor = linear if kind == "linear" else math.exp(-(overlap**2) / 0.5)
                left[index] = (label, score * factor, box)
    return done


def test_soft_scores_by_hand() -> None:
    # The second shares 5/15 = 1/3 with the first, the third 9/11; the second and third share 6/14.
    boxes = np.array([[0, 0, 10, 10], [5, 0, 15, 10], [1, 0, 11, 10]], np.float32)
    scores = np.array([0.9, 0.8, 0.7], np.float32)
    linear = soft_scores(boxes, scores, "linear", 0.35, 0.0)
    assert linear == pytest.approx([0.9, 0.8, 0.7 * 2 / 11 * 8 / 14], rel=1e-6)
    gaussian = soft_scores(boxes, scores, "gaussian", 0.45, 0.0)
    third = 0.7 * math.exp(-2 * (81 / 121 + 36 / 196))
    assert gaussian == pytest.approx([0.9, 0.8 * math.exp(-2 / 9), third], rel=1e-6)
    assert scores.tolist() == pytest.approx([0.9, 0.8, 0.7])


@pytest.mark.parametrize("soft", [None, "gaussian"])
@pytest.mark.parametrize("wanted", [{"classes": ["cat"]}, {"class_scores": {"dog": 0.9}}], ids=str)
def test_what_is_not_wanted_suppresses_nothing(wanted: dict[str, Any], soft: str | None) -> None:
    """A dog and a cat in one place: without the dog, the cat is as it would be alone."""
    box = np.array([[0, 0, 10, 10]] * 2, np.float32)
    both = Detections(box, np.array([0.85, 0.8], np.float32), np.array([0, 1]), ("dog", "cat"), (20, 20))
    settings = {**wanted, "agnostic": True, "soft": soft}
    found = read_rules(settings, both.classes, Thresholds(score=0.5), None).choose([both])
    assert rows_of(found) == [(1, pytest.approx(0.8), [0, 0, 10, 10])]


def test_classes_and_their_scores(detector: Detector, picture: np.ndarray) -> None:
    every = detector(picture, score=0.05, keep=100_000)
    assert set(every.names) == set(detector.classes)
    least = {"eight": 0.4, "zero": 0.2}
    kept = [row for row in rows_of(every) if row[1] > (0.4, 0.5, 0.2)[row[0]]]
    assert rows_of(detector(picture, score=least)) == kept[:200]
    zeros = [row for row in rows_of(every) if row[0] == 2]
    assert rows_of(detector(picture, score=0.05, classes=["zero"], keep=5)) == zeros[:5]
    both = detector(picture, score=least, classes=("eight", "zero"))
    assert rows_of(both) == [row for row in kept if row[0] != 1][:200]


@pytest.mark.parametrize("nms", [0.1, 0.45])
def test_nms_over_all_classes(detector: Detector, picture: np.ndarray, nms: float) -> None:
    expected = plain_nms(rows_of(detector(picture, **EVERYTHING)), nms, agnostic=True)
    found = detector(picture, score=0.05, nms=nms, agnostic=True, keep=100_000)
    assert [row[:2] for row in rows_of(found)] == [row[:2] for row in expected]
    assert len(found) < len(detector(picture, score=0.05, nms=nms, keep=100_000))


@pytest.mark.parametrize("kind", ["linear", "gaussian"])
def test_soft_nms(detector: Detector, picture: np.ndarray, kind: str) -> None:
    rows = plain_soft(rows_of(detector(picture, **{**EVERYTHING, "score": 0.3})), kind, 0.45)
    expected = sorted((row for row in rows if row[1] > 0.3), key=lambda row: -row[1])
    found = detector(picture, score=0.3, soft=kind, keep=100_000)
    assert len(found) == len(expected) > 3
    assert found.scores.tolist() == pytest.approx([row[1] for row in expected], rel=1e-4)


def test_the_mirror_image_is_looked_at_too(detector: Detector) -> None:
    # At the size of the input nothing is scaled, so a mirrored photo has mirrored boxes.
    width, height = detector.image_size
    photo = np.random.default_rng(2).integers(0, 255, (height, width, 3), dtype=np.uint8)
    every: dict[str, Any] = {"score": 0.2, "keep": 100_000}
    rows = rows_of(detector(photo, **every))
    for label, score, (x1, y1, x2, y2) in rows_of(detector(np.ascontiguousarray(photo[:, ::-1]), **every)):
        rows.append((label, score, [width - x2, y1, width - x1, y2]))
    expected = plain_nms(rows, 0.45, agnostic=False)
    found = detector(photo, flip=True, **every)
    assert found.labels.tolist() == [row[0] for row in expected]
    assert found.scores.tolist() == pytest.approx([row[1] for row in expected], rel=1e-4)
    np.testing.assert_allclose(found.boxes, [row[2] for row in expected], atol=0.01)


@pytest.mark.parametrize(
    ("settings", "reason"),
    [
        ({"classes": ["zeros"]}, "there is no class 'zeros' in this model; did you mean 'zero'"),
        ({"classes": "zero"}, "classes is the text 'zero'; give a list"),
        ({"classes": []}, "classes is an empty list"),
        ({"classes": 5}, "classes is 5; give a list of names, such as"),
        ({"scales": 300}, "scales is 300; give a list of sizes"),
        ({"scales": "300"}, "scales is '300'; give a list of sizes"),
        ({"score": {"nine": 0.5}}, "there is no class 'nine'"),
        ({"score": {"zero": 50}}, "score of 'zero' is 50; it must be between 0 and 1"),
        ({"agnostic": 1}, "agnostic is 1; it must be True or False"),
        ({"soft": True}, "soft is True; it must be one of linear, gaussian"),
        ({"flip": "yes"}, "flip is 'yes'; it must be True or False"),
    ],
)
def test_wrong_rules(detector: Detector, picture: np.ndarray, settings: dict[str, Any], reason: str) -> None:
    with pytest.raises(ConfigError, match=reason):
        detector(picture, **settings)


@pytest.mark.parametrize("name", ["agnostic", "flip"])
def test_what_numpy_calls_true(detector: Detector, picture: np.ndarray, name: str) -> None:
    given = detector(picture, score=0.05, **{name: np.True_})
    assert given == detector(picture, score=0.05, **{name: True})
    assert given != detector(picture, score=0.05)


def test_a_file_with_nms_inside_is_asked_for_no_more_than_it_has() -> None:
    inside = Thresholds(score=0.01, keep=50)
    rules = read_rules({"classes": ["b"], "keep": 3}, ("a", "b"), inside, inside)
    assert rules.asked["keep"] == 50
    assert rules.asked["nms"] == inside.nms
    for wrong in ({"keep": 51}, {"classes": ["b"], "keep": 51}, {"score": 0.001}, {"score": {"b": 0.001}}):
        with pytest.raises(ConfigError, match="ask for a score no lower, a keep no higher"):
            read_rules(wrong, ("a", "b"), inside, inside)
    for name, value in (("agnostic", True), ("soft", "linear")):
        with pytest.raises(ConfigError, match=f"leaves nothing to {name}; export it with --raw"):
            read_rules({name: value}, ("a", "b"), inside, inside)

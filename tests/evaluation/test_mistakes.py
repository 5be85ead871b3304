"""Kinds of mistakes and their cost in mAP: by hand, and against hotcoco's TIDE on random data."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from fssd.data.sample import DataSet, Record
from fssd.evaluation.coco_ap import _detection_rows, _image_ids, _truth_columns
from fssd.evaluation.mistakes import KINDS, confusion_matrix, find_errors, gains, kinds_by_class
from fssd.evaluation.pairing import judge
from fssd.evaluation.scores import calibrate
from fssd.inference.detections import Detections

CAT, DOG = [0, 0, 10, 10], [100, 0, 110, 10]


def test_one_of_each_kind(make_set: Any) -> None:
    found = [
        (0, 0.9, CAT),  # correct
        (0, 0.8, CAT),  # the cat again
        (0, 0.7, DOG),  # a dog called a cat
        (1, 0.6, [105, 0, 115, 10]),  # a third of a dog
        (0, 0.5, [106, 0, 116, 10]),  # a quarter of a dog, called a cat
        (1, 0.4, [50, 50, 60, 60]),  # background
    ]
    judgement = judge(*make_set([([(0, CAT), (1, DOG)], found)]))
    errors = find_errors(judgement)
    kinds = ["correct" if kind < 0 else KINDS[kind] for kind in errors.kind]
    assert kinds == ["correct", "duplicate", "classification", "localisation", "both", "background"]
    assert errors.partner.tolist() == [-1, 0, 1, 1, 1, -1]
    assert errors.missed.tolist() == [False, False]  # mistakes are about the dog
    assert errors.counts() == {**dict.fromkeys(KINDS, 1), "missed": 0}
    # By predicted class: three predicted cats, two predicted dogs.
    assert KINDS == ("classification", "localisation", "both", "duplicate", "background")
    assert kinds_by_class(judgement, errors).tolist() == [[1, 0, 1, 1, 0, 0], [0, 1, 0, 0, 1, 0]]


def test_missed(make_set: Any) -> None:
    judgement = judge(*make_set([([(0, CAT), (1, DOG)], [(0, 0.9, CAT)]), ([], [(1, 0.5, CAT)])]))
    errors = find_errors(judgement)
    assert errors.counts() == {**dict.fromkeys(KINDS, 0), "background": 1, "missed": 1}
    assert kinds_by_class(judgement, errors)[:, -1].tolist() == [0, 1]


def test_gains(make_set: Any) -> None:
    # One class, two objects: one found at 0.9, the other by a third at 0.8. At recall 0 to 0.5, 51 of the 101
    # points, precision is 1; with the box corrected it is 1 everywhere. The other kinds do not occur.
    found = [(0, 0.9, CAT), (0, 0.8, [105, 0, 115, 10])]
    judgement = judge(*make_set([([(0, CAT), (0, DOG)], found)], ("cat",)))
    assert gains(judgement, find_errors(judgement)) == pytest.approx(
        {**dict.fromkeys(KINDS, 0.0), "localisation": 50 / 101, "missed": 0.0}
    )


def test_gains_of_background_and_missed(make_set: Any) -> None:
    # A false positive ranks before the only correct detection: precision 1/2 at 51 points. Without it: 1.
    # Without the missed object: precision 1/2 at all points.
    found = [(0, 0.9, [50, 50, 60, 60]), (0, 0.8, CAT)]
    judgement = judge(*make_set([([(0, CAT), (0, DOG)], found)], ("cat",)))
    result = gains(judgement, find_errors(judgement))
    assert result["background"] == pytest.approx(51 / 101 * 1 / 2)
    assert result["missed"] == pytest.approx(1 / 2 * 50 / 101)


def random_data(seed: int) -> tuple[DataSet, list[Detections]]:
    """Eight images; detections are objects shifted a little or much, some with another class."""
    rng = np.random.default_rng(seed)
    classes = ("a", "b", "c")
    records, found = [], []
    for number in range(1, 9):
        count, many = int(rng.integers(0, 6)), int(rng.integers(0, 14))
        corner = rng.uniform(0, 60, (count, 2))
        boxes = np.concatenate([corner, corner + rng.uniform(10, 40, (count, 2))], axis=1)
        labels = rng.integers(0, 3, count)
        flags = np.zeros(count, bool)
        file = Path(f"{number}.png")
        records.append(
            Record(str(number), file, file, 100, 100, boxes.astype(np.float32), labels, flags, flags)
        )
        source = rng.integers(0, max(count, 1), many)
        near = boxes[source] if count else np.tile([10.0, 10.0, 40.0, 40.0], (many, 1))
        near = near + rng.normal(0, rng.choice([1, 5, 12], size=(many, 1)), (many, 4))
        near[:, 2:] = np.maximum(near[:, 2:], near[:, :2] + 1)
        said = np.where(rng.random(many) < 0.7, labels[source] if count else 0, rng.integers(0, 3, many))
        scores = (rng.permutation(1000)[:many] / 1000 + number * 1e-6).astype(np.float32)  # no equal scores
        found.append(Detections(near.astype(np.float32), scores, said.astype(np.int64), classes))
    return DataSet(classes, tuple(records)), found


@pytest.mark.parametrize("seed", range(40))
def test_same_as_hotcoco(seed: int) -> None:
    hotcoco = pytest.importorskip("hotcoco")
    dataset, found = random_data(seed)
    ids = _image_ids(dataset.records)
    truth = hotcoco.COCO.from_arrays(
        [{"id": int(number), "width": 100, "height": 100} for number in ids],
        [{"id": index + 1, "name": name} for index, name in enumerate(dataset.classes)],
        **_truth_columns(dataset, ids),
    )
    evaluation = hotcoco.COCOeval(truth, truth.load_res(_detection_rows(dataset.classes, found, ids)), "bbox")
    evaluation.evaluate()
    evaluation.accumulate()
    judgement = judge(dataset, found)
    errors = find_errors(judgement)
    tide = evaluation.tide_errors()
    names = dict(zip(("Cls", "Loc", "Both", "Dupe", "Bkg", "Miss"), (*KINDS, "missed"), strict=True))
    assert errors.counts() == {name: tide["counts"][short] for short, name in names.items()}
    assert gains(judgement, errors) == pytest.approx(
        {name: tide["delta_ap"][short] for short, name in names.items()}, abs=1e-9
    )
    assert confusion_matrix(judgement).tolist() == evaluation.confusion_matrix()["matrix"].tolist()
    calibration, reference = (
        calibrate(judgement.found.score, judgement.found.correct),
        evaluation.calibration(),
    )
    assert calibration.detections.tolist() == [row["count"] for row in reference["bins"]]
    assert calibration.error == pytest.approx(reference["ece"], abs=1e-6)


A, B, C = [0, 0, 10, 10], [100, 0, 110, 10], [200, 0, 210, 10]


def test_confusion_matrix(make_set: Any) -> None:
    images = [
        # The cat is called a dog first; the correct detection comes second and gets no object.
        ([(0, A), (1, B)], [(1, 0.9, A), (0, 0.8, A), (1, 0.7, B)]),
        ([(0, C)], [(1, 0.5, A)]),
        ([], []),
    ]
    assert confusion_matrix(judge(*make_set(images))).tolist() == [
        [0, 1, 1],  # one cat called a dog, one without a detection
        [0, 1, 0],
        [1, 1, 0],  # a cat and a dog where no object was free
    ]

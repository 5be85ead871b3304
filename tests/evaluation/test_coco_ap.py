"""COCO's numbers against pycocotools on random sets."""

from __future__ import annotations

import contextlib
import io
import json
import math
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from fssd.data.sample import DataSet, Record
from fssd.data.source import open_data
from fssd.errors import ConfigError
from fssd.evaluation.coco_ap import coco_average_precision, labels_by_name
from fssd.inference.detections import Detections

pytest.importorskip("hotcoco")
CLASSES = ("a", "b", "c", "d")
KEYS = ("AP", "AP50", "AP75", "APs", "APm", "APl", "AR1", "AR10", "AR100", "ARs", "ARm", "ARl")


def random_set(seed: int, images: int = 10) -> tuple[DataSet, list[Detections]]:
    """Crowds, difficult objects, mask areas, empty images, tied scores; class d has no object."""
    rng = np.random.default_rng(seed)
    records, detections = [], []
    for i in rng.permutation(images):
        n, d = int(rng.integers(0, 8)), int(rng.integers(0, 130)) * int(rng.random() < 0.8)
        truth = boxes(rng, n)
        found = boxes(rng, d)
        if n:
            copied = rng.random(d) < 0.5
            found[copied] = truth[rng.integers(0, n, copied.sum())] + rng.normal(0, 3, (copied.sum(), 4))
            found[:, 2:] = np.maximum(found[:, 2:], found[:, :2] + 1)
        name = str(7 + 3 * i)
        records.append(
            Record(
                name,
                Path("x.jpg"),
                Path("x.json"),
                300,
                200,
                truth,
                rng.integers(0, 3, n),
                rng.random(n) < 0.15,
                rng.random(n) < 0.15,
                (truth[:, 2:] - truth[:, :2]).prod(1).astype(np.float64) * rng.uniform(0.4, 1, n)
                if seed % 2
                else None,
            )
        )
        scores = np.sort(rng.integers(1, 60, d).astype(np.float32) / 60)[::-1].copy()
        detections.append(Detections(found, scores, rng.integers(0, 4, d), CLASSES))
    return DataSet(CLASSES, tuple(records)), detections


def boxes(rng: np.random.Generator, n: int) -> Any:
    corner = rng.uniform(0, 150, (n, 2))
    return np.concatenate([corner, corner + rng.uniform(4, 140, (n, 2))], 1).astype(np.float32)


def pycocotools_result(dataset: DataSet, detections: list[Detections]) -> Any:
    """pycocotools' evaluation of the same set, from an independent conversion."""
    coco_module = pytest.importorskip("pycocotools.coco")
    eval_module = pytest.importorskip("pycocotools.cocoeval")
    annotations: list[dict[str, Any]] = []
    results: list[dict[str, Any]] = []
    for record, found in zip(dataset.records, detections, strict=True):
        image_id = int(record.image_id)
        for k in range(len(record.labels)):
            x1, y1, x2, y2 = record.boxes[k].astype(float).tolist()
            area = (x2 - x1) * (y2 - y1)
            if record.areas is not None:
                area = record.areas[k]
            annotations.append(
                {
                    "id": len(annotations) + 1,
                    "image_id": image_id, "category_id": int(record.labels[k]) + 1,
                    "bbox": [x1, y1, x2 - x1, y2 - y1], "iscrowd": int(record.crowd[k]),
                    "area": 1e12 if record.difficult[k] else area,
                }
            )  # fmt: skip
        for k in range(len(found)):
            x1, y1, x2, y2 = found.boxes[k].astype(float).tolist()
            results.append(
                {
                    "image_id": image_id, "category_id": int(found.labels[k]) + 1,
                    "bbox": [x1, y1, x2 - x1, y2 - y1], "score": float(found.scores[k]),
                }
            )  # fmt: skip
    with contextlib.redirect_stdout(io.StringIO()):
        truth = coco_module.COCO()
        truth.dataset = {
            "images": [{"id": int(r.image_id)} for r in dataset.records],
            "annotations": annotations,
            "categories": [{"id": i + 1, "name": c} for i, c in enumerate(dataset.classes)],
        }
        truth.createIndex()
        evaluation = eval_module.COCOeval(truth, truth.loadRes(results), "bbox")
        evaluation.evaluate()
        evaluation.accumulate()
        evaluation.summarize()
    return evaluation


def known_mean(values: Any) -> float:
    return float(values[values > -1].mean()) if (values > -1).any() else -1.0


@pytest.mark.parametrize("seed", range(16))
def test_equals_pycocotools(seed: int) -> None:
    dataset, detections = random_set(seed)
    reference = pycocotools_result(dataset, detections)
    result = coco_average_precision(dataset, detections)
    assert tuple(result.numbers) == KEYS
    ours = np.nan_to_num(list(result.numbers.values()), nan=-1.0)
    np.testing.assert_allclose(ours, reference.stats, rtol=0, atol=1e-9)
    precision = reference.eval["precision"]  # (10, 101, C, 4, 3)
    for c in range(len(CLASSES)):
        assert np.nan_to_num(result.ap[c], nan=-1.0) == pytest.approx(
            known_mean(precision[:, :, c, 0, 2]), abs=1e-9
        )
        assert np.nan_to_num(result.ap50[c], nan=-1.0) == pytest.approx(
            known_mean(precision[0, :, c, 0, 2]), abs=1e-9
        )
        for size in range(3):
            wanted = known_mean(precision[:, :, c, size + 1, 2])
            assert np.nan_to_num(result.ap_by_size[c, size], nan=-1.0) == pytest.approx(wanted, abs=1e-9)
    assert math.isnan(result.ap[3])


def test_prints_nothing(capfd: pytest.CaptureFixture[str]) -> None:
    coco_average_precision(*random_set(1))
    assert capfd.readouterr() == ("", "")


def single(
    found: Any, score: Any = None, *, classes: tuple[str, ...] = ("a",), label: int = 0
) -> list[Detections]:
    found = np.array(found, np.float32).reshape(-1, 4)
    scores = np.linspace(0.9, 0.5, len(found)).astype(np.float32) if score is None else score
    return [Detections(found, scores, np.full(len(found), label), classes)]


def one_record(boxes: Any, *, difficult: Any = None, crowd: Any = None, name: str = "img") -> DataSet:
    boxes = np.array(boxes, np.float32).reshape(-1, 4)
    off = np.zeros(len(boxes), bool)
    record = Record(
        name, Path("x"), Path("x"), None, None, boxes, np.zeros(len(boxes), np.int64),
        off if difficult is None else np.array(difficult), off if crowd is None else np.array(crowd),
    )  # fmt: skip
    return DataSet(("a",), (record,))


def test_crowds_take_many_and_difficult_objects_one() -> None:
    boxes = [[0, 0, 50, 50], [100, 100, 150, 150]]
    found = single([boxes[0], boxes[0], boxes[0], boxes[1]])
    # The three detections inside the crowd are ignored: the fourth has precision 1.
    assert coco_average_precision(one_record(boxes, crowd=[True, False]), found).numbers[
        "AP"
    ] == pytest.approx(1)
    # One detection on the difficult object is ignored, two are false positives: precision 1/3 at the fourth.
    difficult = coco_average_precision(one_record(boxes, difficult=[True, False]), found)
    assert difficult.numbers["AP"] == pytest.approx(1 / 3)


def test_classes_are_compared_by_name() -> None:
    dataset = one_record([[0, 0, 50, 50]])
    found = single([[0, 0, 50, 50]], classes=("unknown", "a"), label=1)
    assert coco_average_precision(dataset, found).numbers["AP"] == pytest.approx(1)
    unknown = single([[0, 0, 50, 50]], classes=("unknown", "a"), label=0)
    assert coco_average_precision(dataset, unknown).numbers["AP"] == 0
    assert labels_by_name(found[0], ("z", "y", "a")).tolist() == [2]
    assert labels_by_name(unknown[0], ("a",)).tolist() == [-1]


def test_boxes_are_not_rounded() -> None:
    # IoU 0.4999: rounding the box to 0.01 would make it 0.5 and a hit at IoU 0.5.
    dataset = one_record([[0, 0, 1, 1]])
    assert coco_average_precision(dataset, single([[0, 0, 0.4999, 1]])).numbers["AP50"] == 0


def test_nothing_found_and_nothing_to_find() -> None:
    assert coco_average_precision(one_record([[0, 0, 9, 9]]), single([])).numbers["AP"] == 0
    empty = coco_average_precision(one_record([]), single([[0, 0, 9, 9]]))
    assert all(math.isnan(v) for v in empty.numbers.values())
    assert math.isnan(coco_average_precision(DataSet(("a",), ()), []).numbers["AP"])


def test_wrong_lengths() -> None:
    with pytest.raises(ValueError, match="0 detections for 1 images"):
        coco_average_precision(one_record([[0, 0, 9, 9]]), [])


def test_missing_hotcoco_names_the_extra(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "hotcoco", None)
    with pytest.raises(ConfigError, match=r'pip install "fssd\[eval\]"'):
        coco_average_precision(one_record([[0, 0, 9, 9]]), single([]))


def test_a_json_file_gives_the_same_numbers_in_pycocotools(tmp_path: Path) -> None:
    """Sparse category ids, crowds and mask areas: from the file to the twelve numbers."""
    dataset, detections = random_set(3)
    ids = {0: 5, 1: 18, 2: 44, 3: 90}
    folder = tmp_path / "val2017"
    folder.mkdir()
    (tmp_path / "annotations").mkdir()
    annotations = []
    for record in dataset.records:
        (folder / f"{record.image_id}.jpg").touch()
        for k, (x1, y1, x2, y2) in enumerate(record.boxes.round().tolist()):
            annotations.append(
                {
                    "id": len(annotations) + 1, "image_id": int(record.image_id),
                    "category_id": ids[int(record.labels[k])], "bbox": [x1, y1, x2 - x1, y2 - y1],
                    "iscrowd": int(record.crowd[k]), "area": float(record.areas[k]),
                }
            )  # fmt: skip
    document = {
        "images": [
            {"id": int(r.image_id), "file_name": f"{r.image_id}.jpg", "width": 300, "height": 300}
            for r in dataset.records
        ],
        "annotations": annotations,
        "categories": [{"id": ids[label], "name": name} for label, name in enumerate(CLASSES)],
    }
    file = tmp_path / "annotations" / "instances_val2017.json"
    file.write_text(json.dumps(document))
    ours = coco_average_precision(open_data(tmp_path, "val"), _in_order_of(file, dataset, detections))

    coco_module = pytest.importorskip("pycocotools.coco")
    eval_module = pytest.importorskip("pycocotools.cocoeval")
    rows = [
        {
            "image_id": int(record.image_id), "category_id": ids[int(label)], "score": float(score),
            "bbox": [float(b[0]), float(b[1]), float(b[2]) - float(b[0]), float(b[3]) - float(b[1])],
        }
        for record, found in zip(dataset.records, detections, strict=True)
        for b, score, label in zip(found.boxes, found.scores, found.labels, strict=True)
    ]  # fmt: skip
    with contextlib.redirect_stdout(io.StringIO()):
        truth = coco_module.COCO(str(file))
        evaluation = eval_module.COCOeval(truth, truth.loadRes(rows), "bbox")
        evaluation.evaluate()
        evaluation.accumulate()
        evaluation.summarize()
    assert list(ours.numbers.values()) == pytest.approx(evaluation.stats.tolist(), abs=1e-9)
    assert ours.numbers["APs"] != ours.numbers["APm"]


def _in_order_of(file: Path, dataset: DataSet, detections: list[Detections]) -> list[Detections]:
    by_id = {r.image_id: d for r, d in zip(dataset.records, detections, strict=True)}
    return [by_id[record.image_id] for record in open_data(file.parent.parent, "val").records]


@pytest.mark.parametrize("first", [20240131120000001, 10**20])
def test_images_named_by_long_numbers(first: int) -> None:
    """Such as a time with milliseconds: float64 holds whole numbers up to 2^53 alone."""
    box = np.array([[10, 10, 60, 60]], np.float32)
    flags = np.zeros(1, bool)
    records = tuple(
        Record(str(first + i), Path("x"), Path("x"), 300, 200, box + 5 * i, np.array([0]), flags, flags)
        for i in range(8)
    )
    found = [Detections(r.boxes, np.ones(1, np.float32), r.labels, CLASSES) for r in records]
    assert coco_average_precision(DataSet(CLASSES, records), found).numbers["AP"] == 1

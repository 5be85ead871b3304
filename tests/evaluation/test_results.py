"""Result files: formats, rounding, names, and no half-written file."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from fssd.data.sample import DataSet, Record
from fssd.errors import ConfigError, DataError
from fssd.evaluation.results import write_coco_results, write_detections_json, write_voc_results
from fssd.inference.detections import Detections

CLASSES = ("cat", "Fußgänger", "dog")


def found(classes: tuple[str, ...] = CLASSES) -> Detections:
    boxes = np.array([[1.126, 2, 30.004, 40.9], [5, 6, 7, 8]], np.float32)
    return Detections(boxes, np.array([0.9876543, 0.25], np.float32), np.array([1, 0]), classes)


def nothing() -> Detections:
    return Detections(np.zeros((0, 4), np.float32), np.zeros(0, np.float32), np.zeros(0, np.int64), CLASSES)


def dataset(*ids: str, **facts: Any) -> DataSet:
    off = np.zeros(0, bool)
    records = tuple(
        Record(i, Path(i), Path(i), 10, 10, np.zeros((0, 4), np.float32), np.zeros(0, np.int64), off, off)
        for i in ids
    )
    return DataSet(CLASSES, records, facts=facts)


def test_detections_json(tmp_path: Path) -> None:
    file = tmp_path / "found.json"
    write_detections_json(file, [Path("a.jpg"), "ü.png"], [(640, 480), (5, 6)], [found(), nothing()])
    assert json.loads(file.read_text(encoding="utf-8")) == [
        {
            "image": "a.jpg",
            "width": 640,
            "height": 480,
            "objects": [
                {"name": "Fußgänger", "score": 0.98765, "box": [1.13, 2.0, 30.0, 40.9]},
                {"name": "cat", "score": 0.25, "box": [5.0, 6.0, 7.0, 8.0]},
            ],
        },
        {"image": "ü.png", "width": 5, "height": 6, "objects": []},
    ]
    assert len(file.read_text(encoding="utf-8").splitlines()) == 4


def test_detections_json_of_nothing(tmp_path: Path) -> None:
    write_detections_json(tmp_path / "found.json", [], [], [])
    assert json.loads((tmp_path / "found.json").read_text()) == []


def test_lengths_must_agree_and_the_old_file_stays(tmp_path: Path) -> None:
    file = tmp_path / "found.json"
    file.write_text("old")
    with pytest.raises(ValueError):
        write_detections_json(file, ["a", "b"], [(1, 1)] * 2, [found()])
    assert file.read_text() == "old"
    assert list(tmp_path.iterdir()) == [file]


def test_voc_files(tmp_path: Path) -> None:
    files = write_voc_results(tmp_path / "results", ["000001", "2008_000002"], [found(), found()], CLASSES)
    assert [f.name for f in files] == [f"comp4_det_test_{c}.txt" for c in CLASSES]
    assert files[0].read_text() == "000001 0.250000 5.0 6.0 7.0 8.0\n2008_000002 0.250000 5.0 6.0 7.0 8.0\n"
    assert files[1].read_text().splitlines()[0] == "000001 0.987654 1.1 2.0 30.0 40.9"
    assert files[2].read_text() == ""


def test_voc_names(tmp_path: Path) -> None:
    files = write_voc_results(tmp_path, ["1"], [found()], ("dog", "cat"), challenge="comp3", split="val")
    assert [f.name for f in files] == ["comp3_det_val_dog.txt", "comp3_det_val_cat.txt"]
    assert files[0].read_text() == ""  # classes are matched by name, not by index
    assert files[1].read_text().startswith("1 0.25")
    with pytest.raises(ConfigError, match="cannot be part of a file name"):
        write_voc_results(tmp_path, ["1"], [nothing()], ("../x",))
    with pytest.raises(DataError, match="has a space"):
        write_voc_results(tmp_path, ["my image"], [nothing()], CLASSES)


def test_coco_file(tmp_path: Path) -> None:
    file = tmp_path / "r.json"
    write_coco_results(file, dataset("139", "000007", category_ids=(17, 1, 18)), [found(), found()])
    rows = json.loads(file.read_text())
    assert rows[0] == {"image_id": 139, "category_id": 1, "bbox": [1.13, 2.0, 28.88, 38.9], "score": 0.98765}
    assert [(r["image_id"], r["category_id"]) for r in rows[1:]] == [(139, 17), ("000007", 1), ("000007", 17)]


def test_coco_category_ids(tmp_path: Path) -> None:
    file = tmp_path / "r.json"

    def categories(**facts: Any) -> list[int]:
        write_coco_results(file, dataset("1", **facts), [found(("zebra", "dog"))])
        return [r["category_id"] for r in json.loads(file.read_text())]

    assert categories() == [3]  # dog is the third class; zebra is not a class
    assert categories(category_ids=(17, 1, 18)) == [18]
    assert categories(category_ids=(17, 1, None)) == []
    with pytest.raises(ValueError, match="2 category ids for 3 classes"):
        categories(category_ids=[1, 2])


def test_nan_is_not_written(tmp_path: Path) -> None:
    broken = Detections(
        np.full((1, 4), np.nan, np.float32), np.ones(1, np.float32), np.zeros(1, np.int64), CLASSES
    )
    with pytest.raises(ValueError):
        write_coco_results(tmp_path / "r.json", dataset("1"), [broken])
    assert not list(tmp_path.iterdir())

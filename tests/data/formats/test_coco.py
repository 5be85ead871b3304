"""COCO json: sparse ids, folders of images, and every fault with file and place."""

from __future__ import annotations

import json
import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest

from fssd.data.formats.coco import COCO, coco_files
from fssd.data.formats.lookup import match_split
from fssd.data.sample import DataSet, Problem
from fssd.errors import DataError

REAL = os.environ.get("FSSD_TEST_DATA", "")
needs_data = pytest.mark.skipif(not REAL, reason="FSSD_TEST_DATA does not name a folder of data sets")

CATEGORIES = [{"id": 90, "name": "dog"}, {"id": 3, "name": "cat"}, {"id": 17, "name": "ant"}]


def read_coco(file: Path, classes: Sequence[str] | None = None) -> DataSet:
    return COCO.read(file, None, classes, None)


def note(number: int, **changes: Any) -> dict[str, Any]:
    return {"id": number, "image_id": 7, "category_id": 17, "bbox": [10, 20, 30, 40], **changes}


def content(*annotations: Any, images: list[Any] | None = None) -> dict[str, Any]:
    usual = [{"id": 7, "file_name": "a.jpg", "width": 100, "height": 80}]
    return {
        "images": usual if images is None else images,
        "annotations": annotations,
        "categories": CATEGORIES,
    }


def write(folder: Path, value: Any, name: str = "instances_val.json") -> Path:
    (folder / "annotations").mkdir(exist_ok=True)
    (folder / "val").mkdir(exist_ok=True)
    (folder / "val" / "a.jpg").touch()
    file = folder / "annotations" / name
    file.write_text(value if isinstance(value, str) else json.dumps(value))
    return file


def only_error(data: DataSet) -> Problem:
    assert not data.records
    (problem,) = data.problems
    assert problem.severity == "error"
    return problem


def test_boxes_and_flags(tmp_path: Path) -> None:
    file = write(tmp_path, content(note(1, bbox=[10.5, 20, 30, 40.25]), note(2, category_id=3, iscrowd=1)))
    data = read_coco(file)
    (record,) = data.records
    assert data.problems == ()
    assert (record.image_id, record.path, record.source) == ("7", tmp_path / "val" / "a.jpg", file)
    assert (record.width, record.height) == (100, 80)
    assert record.boxes.tolist() == [[10.5, 20, 40.5, 60.25], [10, 20, 40, 60]]
    assert record.crowd.tolist() == [False, True] and record.difficult.tolist() == [False, False]


def test_sparse_category_ids_go_there_and_back(tmp_path: Path) -> None:
    file = write(tmp_path, content(note(1, category_id=90), note(2, category_id=3), note(3, category_id=17)))
    data = read_coco(file)
    assert data.classes == ("cat", "ant", "dog")  # by id: 3, 17, 90
    labels = data.records[0].labels
    assert labels.tolist() == [2, 0, 1]
    assert [data.facts["category_ids"][label] for label in labels] == [90, 3, 17]
    assert data.facts["annotation_file"] == file


def test_given_classes_are_matched_by_name(tmp_path: Path) -> None:
    file = write(tmp_path, content(note(1, category_id=90), note(2, category_id=3)))
    data = read_coco(file, classes=["dog", "cow", "cat"])
    assert data.records[0].labels.tolist() == [0, 2]
    assert data.facts["category_ids"] == (90, None, 3)


def test_unknown_class(tmp_path: Path) -> None:
    file = write(tmp_path, content(note(1, category_id=3), note(2)))
    problem = only_error(read_coco(file, classes=["dog", "cat"]))
    assert (problem.file, problem.place) == (file, "annotation id 2")
    assert "unknown class 'ant'" in problem.reason


def test_image_without_annotation_and_without_size(tmp_path: Path) -> None:
    file = write(tmp_path, content(images=[{"id": 7, "file_name": "a.jpg"}]))
    cv2.imwrite(str(tmp_path / "val" / "a.jpg"), np.zeros((60, 90, 3), np.uint8))
    (record,) = read_coco(file).records
    assert record.boxes.shape == (0, 4) and (record.width, record.height) == (90, 60)


def test_missing_image(tmp_path: Path) -> None:
    images = [
        {"id": number, "file_name": name, "width": 9, "height": 9}
        for number, name in ((7, "a.jpg"), (8, "b.jpg"))
    ]
    data = read_coco(write(tmp_path, content(images=images)))
    assert [record.image_id for record in data.records] == ["7"]
    (problem,) = data.problems
    assert (
        problem.severity == "error"
        and problem.file == tmp_path / "val" / "b.jpg"
        and "missing" in problem.reason
    )


FAULTS: dict[str, tuple[Any, str, str]] = {
    "unknown image": (note(5, image_id=8), "annotation id 5", "image_id 8 is not"),
    "unknown category": (note(5, category_id=4), "annotation id 5", "category_id 4 is not"),
    "no category": ({"id": 5, "image_id": 7, "bbox": [1, 1, 2, 2]}, "annotation id 5", "category_id None"),
    "list as id": (note(5, image_id=[7]), "annotation id 5", "image_id [7]"),
    "no bbox": (
        {"id": 5, "image_id": 7, "category_id": 3},
        "annotation id 5",
        "bbox None is not four numbers",
    ),
    "three numbers": (note(5, bbox=[1, 2, 3]), "annotation id 5", "not four numbers"),
    "words": (note(5, bbox=["1", 2, 3, 4]), "annotation id 5", "not four numbers"),
    "no object": ("dog", "annotations[0]", "must be an object"),
    "no width": (note(5, bbox=[1, 2, 0, 4]), "annotation id 5", "xmax <= xmin"),
    "negative height": (note(5, bbox=[1, 2, 3, -4]), "annotation id 5", "ymax <= ymin"),
    "outside": (note(5, bbox=[100, 2, 3, 4]), "annotation id 5", "outside the image of 100 x 80"),
    "not a number": (note(5, bbox=[float("nan"), 2, 3, 4]), "annotation id 5", "not four numbers in range"),
    "10^400": (note(5, bbox=[10**400, 2, 3, 4]), "annotation id 5", "not four numbers in range"),
    "area of 10^400": (note(5, area=10**400), "annotation id 5", "area 1000000"),
    "crowd in words": (note(5, iscrowd="maybe"), "annotation id 5", "iscrowd is 'maybe', neither true nor"),
    "difficult 2": (note(5, difficult=2), "annotation id 5", "difficult is '2', neither true nor false"),
}


@pytest.mark.parametrize("fault", list(FAULTS))
def test_faults_of_annotations(tmp_path: Path, fault: str) -> None:
    row, place, reason = FAULTS[fault]
    file = write(tmp_path, content(row))
    data = read_coco(file)
    (problem,) = data.problems
    assert (problem.severity, problem.file, problem.place) == ("error", file, place)
    assert reason in problem.reason
    spoils_the_image = fault not in {"unknown image", "list as id", "no object"}
    assert len(data) == (0 if spoils_the_image else 1)
    assert data.facts["images"] - len(data) == 1


def test_image_with_id_zero_is_spoilt_by_its_annotation(tmp_path: Path) -> None:
    images = [{"id": 0, "file_name": "a.jpg", "width": 100, "height": 80}]
    data = read_coco(write(tmp_path, content(note(5, image_id=0, category_id=4), images=images)))
    assert only_error(data).place == "annotation id 5" and data.facts["images"] == 1


@pytest.mark.parametrize(
    ("row", "reason"),
    [
        ({"id": 7}, "needs an id and a file_name"),
        ({"id": 7, "file_name": "a.jpg", "width": 0, "height": 5}, "no size"),
        ("a.jpg", "needs an id"),
    ],
)
def test_faults_of_images(tmp_path: Path, row: Any, reason: str) -> None:
    file = write(tmp_path, content(images=[row]))
    problem = only_error(read_coco(file))
    assert (problem.file, problem.place) == (file, "images[0]") and reason in problem.reason


def test_repeated_image_id(tmp_path: Path) -> None:
    row = {"id": 7, "file_name": "a.jpg", "width": 9, "height": 9}
    data = read_coco(write(tmp_path, content(images=[row, row])))
    assert len(data) == 1 and data.problems[0].place == "images[1]"


NO, YES = ("0", "false", False, 0.0, None), ("1", "True", True, 1)


@pytest.mark.parametrize(("value", "meaning"), [*((no, False) for no in NO), *((yes, True) for yes in YES)])
def test_flags_by_their_meaning(tmp_path: Path, value: Any, meaning: bool) -> None:
    (record,) = read_coco(write(tmp_path, content(note(1, iscrowd=value), note(2, difficult=value)))).records
    assert record.crowd.tolist() == [meaning, False] and record.difficult.tolist() == [False, meaning]


def test_whole_numbers_with_a_point_are_ids(tmp_path: Path) -> None:
    images = [{"id": 7.0, "file_name": "a.jpg", "width": 100, "height": 80}]
    data = read_coco(write(tmp_path, content(note(1, image_id=7.0, category_id=17.0), images=images)))
    assert data.problems == () and data.records[0].image_id == "7"
    assert data.classes[data.records[0].labels[0]] == "ant"
    images[0]["id"] = 7.5
    assert only_error(read_coco(write(tmp_path, content(images=images)))).place == "images[0]"


def test_a_faulty_image_is_told_and_counted_once(tmp_path: Path) -> None:
    images = [
        {"id": 7, "file_name": "a.jpg", "width": 100, "height": 80},
        {"id": 8, "file_name": "b.jpg", "width": 0, "height": 80},
    ]
    data = read_coco(
        write(tmp_path, content(note(1), note(2, image_id=8), note(3, image_id=8), images=images))
    )
    (problem,) = data.problems
    assert problem.place == "images[1]" and "no size" in problem.reason
    assert data.facts["images"] == 2 and [record.image_id for record in data.records] == ["7"]


@pytest.mark.parametrize("name", ["pets", "cat"])
def test_the_group_of_all_classes_is_no_class(tmp_path: Path, name: str) -> None:
    classes = [{"id": key, "name": text, "supercategory": name} for key, text in ((1, "cat"), (2, "dog"))]
    group = {"id": 0, "name": name, "supercategory": "none"}
    value = {**content(note(1, category_id=2)), "categories": [group, *classes]}
    data = read_coco(write(tmp_path, value))
    assert data.classes == ("cat", "dog") and data.facts["category_ids"] == (1, 2)
    (problem,) = data.problems
    assert (problem.severity, problem.place) == ("warning", "categories[0]") and repr(name) in problem.reason


def test_a_group_with_objects_of_its_own_is_a_class(tmp_path: Path) -> None:
    classes = [{"id": 0, "name": "pet"}, {"id": 1, "name": "cat", "supercategory": "pet"}]
    data = read_coco(write(tmp_path, {**content(note(1, category_id=0)), "categories": classes}))
    assert data.classes == ("pet", "cat") and data.problems == ()


def test_broken_json(tmp_path: Path) -> None:
    file = write(tmp_path, '{"images": [],\n "annotations": [')
    with pytest.raises(DataError, match=r"instances_val\.json \(line 2 column \d+\): is not valid json"):
        read_coco(file)


@pytest.mark.parametrize(
    ("value", "reason"),
    [
        ("[1]", "top level"),
        ('{"images": []}', "no list 'annotations'"),
        ('{"images": 3, "annotations": [], "categories": []}', "no list 'images'"),
        ("[" * 100_000, "cannot be read"),
        (content(images=[]), "lists no image"),
        ({**content(), "categories": [{"id": 1}]}, "needs an id and a name"),
        ({**content(), "categories": [*CATEGORIES, {"id": 1, "name": "dog"}]}, "repeats"),
    ],
)
def test_no_coco_file(tmp_path: Path, value: Any, reason: str) -> None:
    with pytest.raises(DataError, match=reason) as caught:
        read_coco(write(tmp_path, value))
    assert caught.value.file == tmp_path / "annotations" / "instances_val.json"


def test_missing_file(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="cannot be read"):
        read_coco(tmp_path / "a.json")


@pytest.mark.parametrize(
    "images", ["val", "val2017", "images/val", "images/val2017", "images", "annotations"]
)
def test_folder_of_images_is_found(tmp_path: Path, images: str) -> None:
    (tmp_path / "annotations").mkdir()
    file = tmp_path / "annotations" / "instances_val.json"
    file.write_text(json.dumps(content()))
    (tmp_path / "images").mkdir()  # there, but empty unless it is the one
    (tmp_path / images).mkdir(parents=True, exist_ok=True)
    (tmp_path / images / "a.jpg").touch()
    assert read_coco(file).records[0].path == tmp_path / images / "a.jpg"


def test_hidden_files_are_no_splits(tmp_path: Path) -> None:
    write(tmp_path, content(), "instances_val.json")
    (tmp_path / "annotations" / "._instances_val.json").write_bytes(b"\0\5\x16\7")
    assert list(coco_files(tmp_path).values()) == ["val"]


def test_splits_of_a_folder(tmp_path: Path) -> None:
    for name in ("instances_train2017", "instances_val2017", "captions_val2017"):
        write(tmp_path, "{}", f"{name}.json")
    splits = COCO.splits(tmp_path)
    assert splits == ("train2017", "val2017")
    assert match_split("val", splits, tmp_path) == "val2017"
    with pytest.raises(DataError, match="no split 'test'; splits here: train2017, val2017"):
        match_split("test", splits, tmp_path)
    with pytest.raises(DataError, match="several"):
        match_split("val", ["val2014", "val2017"], tmp_path)
    assert match_split("val", ["val", "val2017"], tmp_path) == "val"


@needs_data
def test_real_coco() -> None:
    files = coco_files(Path(REAL) / "coco-tiny")
    data = [read_coco(file) for file in files]
    assert [len(part) for part in data] == [80, 80]
    assert sum(len(record.boxes) for part in data for record in part.records) == 1520
    assert data[0].facts["category_ids"][-1] == 90 and len(data[0].classes) == 80
    assert data[0].problems == data[1].problems == ()


def test_mask_areas_are_kept(tmp_path: Path) -> None:
    file = write(tmp_path, content(note(1, area=321.5), note(2, area=7, category_id=3)))
    areas = read_coco(file).records[0].areas
    assert areas is not None and areas.tolist() == [321.5, 7.0]
    assert read_coco(write(tmp_path, content(note(1)))).records[0].areas is None

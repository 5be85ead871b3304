"""COCO json: sparse ids, folders of images, and every fault with file and place."""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest

from fssd.data.formats.coco import COCO, coco_files
from fssd.data.formats.lookup import match_split
from fssd.data.sample import DataSet, Problem
from fssd.data.source import find_reader, list_splits, open_data
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
    (folder / "annotations").mkdir(exist_ok=True, parents=True)
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


def test_an_image_id_of_two_pictures_spoils_both(tmp_path: Path) -> None:
    images = [{"id": key, "file_name": name} for key, name in ((7, "a.jpg"), (8, "c.jpg"), (7.0, "b.jpg"))]
    for name in ("a.jpg", "b.jpg", "c.jpg"):
        cv2.imwrite(str(write(tmp_path, {}).parents[1] / "val" / name), np.zeros((80, 100, 3), np.uint8))
    data = read_coco(write(tmp_path, content(note(1), note(2, image_id=8), images=images)))
    assert [record.path.name for record in data.records] == ["c.jpg"] and data.facts["images"] == 3
    assert [(problem.severity, problem.place) for problem in data.problems] == [
        ("error", "images[0]"),
        ("error", "images[2]"),
    ]
    assert all("image id 7 is used twice" in problem.reason for problem in data.problems)


def test_category_ids_may_be_texts_with_spaces(tmp_path: Path) -> None:
    classes = [{"id": " 1 ", "name": "cat"}, {"id": "2", "name": "dog"}]
    notes = (note(1, category_id="1"), note(2, category_id=" 1 "), note(3, category_id=" 2"))
    data = read_coco(write(tmp_path, {**content(*notes), "categories": classes}))
    assert data.problems == () and data.facts["category_ids"] == ("1", "2")
    assert [data.classes[label] for label in data.records[0].labels] == ["cat", "cat", "dog"]


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


# Label file -> its pictures, the names in the file, the splits.
LAYOUTS: dict[str, tuple[dict[str, tuple[str, str]], tuple[str, ...]]] = {
    "Roboflow, deep": (
        {
            "v3/train/_annotations.coco.json": ("v3/train/a.jpg", "a.jpg"),
            "v3/valid/_annotations.coco.json": ("v3/valid/b.jpg", "b.jpg"),
        },
        ("train", "valid"),
    ),
    "CVAT": ({"annotations/instances_default.json": ("images/a.jpg", "a.jpg")}, ()),
    "CVAT's subsets": (
        {
            "annotations/instances_Train.json": ("images/Train/a.jpg", "a.jpg"),
            "annotations/instances_Validation.json": ("images/Validation/a.jpg", "a.jpg"),
        },
        ("train", "validation"),
    ),
    "Label Studio": ({"result.json": ("images/ab12cd34-a.jpg", "images/ab12cd34-a.jpg")}, ()),
    "Label Studio, own pictures": (
        {"result.json": ("pictures/a.jpg", "../../x/upload/1/ab12cd34-a.jpg")},
        (),
    ),
    "beside": ({"labels_cats_2024.json": ("a.jpg", "a.jpg")}, ()),
    "folders": ({"all.json": ("x/val/a.jpg", "val/a.jpg")}, ("val",)),
    "of Windows": ({"ann/all.json": ("photos/night/a.jpg", "C:\\\\set\\\\night\\\\a.jpg")}, ()),
    "of another machine": ({"ann/train.json": ("photos/a.jpg", "/home/eve/photos/a.jpg")}, ("train",)),
    "several of a split": (
        {"train/one.json": ("train/a.jpg", "a.jpg"), "train/two.json": ("train/b.jpg", "b.jpg")},
        ("train",),
    ),
    "names of its own": (
        {"annotations/day.json": ("day/a.jpg", "a.jpg"), "annotations/night.json": ("night/b.jpg", "b.jpg")},
        ("day", "night"),
    ),
    "other letters": ({"train.json": ("images/A.JPG", "a.jpg")}, ("train",)),
}


@pytest.mark.parametrize("name", list(LAYOUTS))
def test_layouts(tmp_path: Path, name: str) -> None:
    labels, splits = LAYOUTS[name]
    for file, (picture, stated) in labels.items():
        for path in (tmp_path / file, tmp_path / picture):
            path.parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / picture).touch()
        images = [{"id": 7, "file_name": stated.replace("\\\\", "\\"), "width": 100, "height": 80}]
        (tmp_path / file).write_text(json.dumps(content(note(1), images=images)))
    reader, root = find_reader(tmp_path)
    data = reader.read(root, None, None, None)
    assert reader is COCO and reader.splits(root) == splits
    assert [problem for problem in data.problems if problem.severity == "error"] == []
    assert {record.path for record in data.records} == {tmp_path / picture for picture, _ in labels.values()}
    assert sum(len(record.boxes) for record in data.records) == len(labels)
    assert len({record.image_id for record in data.records}) == len(labels)
    for split in splits:
        own = reader.read(root, split, None, None)
        assert len(own) == (len(labels) if len(splits) == 1 else 1)


def test_pictures_in_a_given_folder(tmp_path: Path) -> None:
    file = write(tmp_path / "labels", content(note(1)))
    (tmp_path / "labels/val/a.jpg").unlink()
    (tmp_path / "pictures/night").mkdir(parents=True)
    (tmp_path / "pictures/night/a.jpg").touch()
    assert "missing" in only_error(open_data(tmp_path / "labels")).reason
    (record,) = open_data(file, None, None, tmp_path / "pictures").records
    assert record.path == tmp_path / "pictures/night/a.jpg"
    with pytest.raises(DataError, match="is no folder"):
        open_data(file, images=tmp_path / "none")


def test_official_files_for_other_tasks_are_not_taken(tmp_path: Path) -> None:
    for split in ("train", "val"):
        write(tmp_path, content(note(1)), f"instances_{split}2017.json")
        (tmp_path / f"{split}2017").mkdir()
        (tmp_path / f"{split}2017" / "a.jpg").touch()
    for name in ("person_keypoints_val2017", "captions_val2017", "mine_val2017"):
        write(tmp_path, content(), f"{name}.json")
    shutil.rmtree(tmp_path / "val")
    assert COCO.splits(tmp_path) == ("train2017", "val2017")
    data = COCO.read(tmp_path, "val", None, None)
    assert [record.path for record in data.records] == [tmp_path / "val2017/a.jpg"]
    (problem,) = data.problems  # pictures of train2017 are not missed
    assert "1 label files of the same form are not read" in problem.reason and "mine" in problem.reason


def test_boxes_in_shares_are_refused(tmp_path: Path) -> None:
    file = write(tmp_path, content(note(1, bbox=[0.1, 0.2, 0.5, 0.8]), note(2, bbox=[0, 0, 1, 1])))
    with pytest.raises(
        DataError, match="shares of the image and no pixels; multiply them by its width and"
    ) as caught:
        read_coco(file)
    assert caught.value.file == file


def test_images_of_lvis_have_no_file_name(tmp_path: Path) -> None:
    for split, name in (("train", "a"), ("val", "b")):
        url = f"http://images.cocodataset.org/{split}2017/{name}.jpg"
        image = {"id": 7, "coco_url": url, "width": 100, "height": 80}
        write(tmp_path, content(note(1), images=[image]), f"lvis_v1_{split}.json")
        (tmp_path / f"{split}2017").mkdir()
        (tmp_path / f"{split}2017/{name}.jpg").touch()
    shutil.rmtree(tmp_path / "val")
    data = open_data(tmp_path, "lvis_v1_train")
    assert [record.path for record in data.records] == [tmp_path / "train2017/a.jpg"]
    assert data.problems == ()  # b.jpg is named in the file of another split


def test_a_split_in_the_middle_of_a_name(tmp_path: Path) -> None:
    for split, name in (("train", "a"), ("val", "b")):
        image = {"id": 7, "file_name": f"{name}.jpg", "width": 100, "height": 80}
        write(tmp_path, content(note(1), images=[image]), f"custom_{split}.json")
        (tmp_path / split).mkdir(exist_ok=True)
        (tmp_path / split / f"{name}.jpg").touch()
    assert COCO.splits(tmp_path) == ("custom_train", "custom_val")
    for split in ("custom_train", "train"):
        data = open_data(tmp_path, split)
        assert [record.path for record in data.records] == [tmp_path / "train/a.jpg"]
        assert data.problems == ()
    write(tmp_path, content(), "other_train.json")
    with pytest.raises(DataError, match="several splits hold the word 'train'"):
        open_data(tmp_path, "train")


def test_only_the_asked_split_is_parsed(tmp_path: Path) -> None:
    write(tmp_path, content(note(1)), "instances_val.json")
    names = json.dumps([{"file_name": name} for name in ("x/b.jpg", "x\\ö.jpg")])
    write(tmp_path, f'{{"images": {names}, "annotations": [', "instances_train.json")
    write(tmp_path, "", "instances_test.json")
    for name in ("b.jpg", "ö.jpg"):
        (tmp_path / "val" / name).touch()
    data = COCO.read(tmp_path, "val", None, None)
    assert len(data) == 1 and data.problems == ()  # the other two are named in another file
    with pytest.raises(DataError, match=r"instances_train\.json"):
        COCO.read(tmp_path, "train", None, None)


def test_pictures_without_labels_and_others_that_are_not_used(tmp_path: Path) -> None:
    write(tmp_path, content(note(1)))
    for name in ("b.jpg", "c.png", "d.jp2", "e.jp2", "f.psd", ".g.jpg", "x.txt", "Thumbs.db"):
        (tmp_path / "val" / name).touch()
    (tmp_path / "val/h.jpg").symlink_to("nothing.jpg")
    (tmp_path / "val/.ipynb_checkpoints").mkdir()
    (tmp_path / "val/.ipynb_checkpoints/a-checkpoint.jpg").touch()
    reasons = [problem.reason for problem in COCO.read(tmp_path, "val", None, None).problems]
    assert ["2 of 3 pictures" in reasons[0], "b.jpg" in reasons[0]] == [True, True]
    assert "2 .jp2, 1 .psd" in reasons[1] and "1 links" in reasons[2] and len(reasons) == 3


def test_a_picture_under_two_ids_or_names(tmp_path: Path) -> None:
    images = [
        {"id": number, "file_name": name, "width": 100, "height": 80}
        for number, name in ((7, "a.jpg"), (8, "./a.jpg"), (9, "link.jpg"))
    ]
    file = write(tmp_path, content(note(1), images=images))
    (tmp_path / "val/link.jpg").symlink_to("a.jpg")
    data = read_coco(file)
    assert [record.image_id for record in data.records] == ["7", "9"]
    again, link = data.problems
    assert "a.jpg has labels in" in again.reason and "image id 7" in again.reason
    assert link.severity == "warning" and "link.jpg" in link.reason and "listed twice" in link.reason


def test_ids_of_other_types(tmp_path: Path) -> None:
    images = [{"id": "7", "file_name": "a.jpg", "width": 100, "height": 80}]
    data = read_coco(write(tmp_path, content(note(1, image_id=7, category_id="17"), images=images)))
    assert len(data.records[0].boxes) == 1 and data.facts["category_ids"] == (3, 17, 90)
    double = [*images, {**images[0], "id": 7}]
    assert "used twice" in read_coco(write(tmp_path, content(images=double))).problems[0].reason


SHAPES: dict[str, tuple[dict[str, Any], tuple[float, ...], str]] = {
    "polygons": (
        {"segmentation": [[10, 20, 40, 25, 30, 60], [5, 30, 8, 30, 8, 33]]},
        (5, 20, 40, 60),
        "polygon",
    ),
    "one list": ({"segmentation": [10, 20, 40, 25, 30, 60]}, (10, 20, 40, 60), "polygon"),
    # 4 rows, 5 columns: pixels (row 1..2, column 1) and (row 0, column 3)
    "mask": ({"segmentation": {"size": [4, 5], "counts": [5, 2, 5, 1, 7]}}, (1, 0, 4, 3), "mask"),
    # a run over the end of a column: from row 3 of column 0 to row 1 of column 1
    "over a column": ({"segmentation": {"size": [4, 5], "counts": [3, 3, 14]}}, (0, 0, 2, 4), "mask"),
    "Detectron2": ({"bbox": [50, 40, 20, 10, 90]}, (45, 30, 55, 50), "rotated box"),
    "CVAT": ({"bbox": [40, 35, 20, 10], "attributes": {"rotation": 90.0}}, (45, 30, 55, 50), "rotated box"),
}


@pytest.mark.parametrize("name", list(SHAPES))
def test_shapes_become_boxes(tmp_path: Path, name: str) -> None:
    row, box, kind = SHAPES[name]
    file = write(tmp_path, content({"id": 1, "image_id": 7, "category_id": 17, **row}))
    data = read_coco(file)
    np.testing.assert_allclose(data.records[0].boxes, [box], atol=1e-4)
    (problem,) = data.problems
    assert (problem.severity, problem.file) == ("warning", file) and f"1 {kind} was taken" in problem.reason


def test_boxes_are_preferred_and_a_rotation_of_nothing_is_none(tmp_path: Path) -> None:
    row = note(1, segmentation=[[1, 1, 99, 1, 99, 79]], attributes={"rotation": 0.0})
    data = read_coco(write(tmp_path, content(row)))
    assert data.records[0].boxes.tolist() == [[10, 20, 40, 60]] and data.problems == ()


def test_compressed_masks(tmp_path: Path) -> None:
    """The text as hotcoco packs it."""
    mask = pytest.importorskip("hotcoco.mask")
    random = np.random.default_rng(0)
    for _ in range(30):
        pixels = np.zeros((80, 100), np.uint8, order="F")
        x, y = random.integers(0, 60, 2)
        pixels[y : y + 12, x : x + 25] = random.random((len(pixels[y : y + 12]), 25)) < 0.7
        packed = mask.encode(pixels)
        ys, xs = np.nonzero(pixels)
        counts = packed["counts"].decode() if isinstance(packed["counts"], bytes) else packed["counts"]
        row = {"segmentation": {"size": [80, 100], "counts": counts}}
        (record,) = read_coco(
            write(tmp_path, content({"id": 1, "image_id": 7, "category_id": 17, **row}))
        ).records
        assert record.boxes.tolist() == [[xs.min(), ys.min(), xs.max() + 1, ys.max() + 1]]


BROKEN: dict[str, tuple[Any, str]] = {
    "words": ("x", "neither polygons nor a mask"),
    "odd": ([[1, 2, 3, 4, 5]], "neither polygons nor a mask"),
    "huge": ([[1, 2, 3, 10**400, 5, 6]], "neither polygons nor a mask"),
    "no size": ({"counts": [1]}, "size of None"),
    "negative": ({"size": [4, 5], "counts": [-1, 21]}, "counts are damaged"),
    "cut": ({"size": [4, 5], "counts": "Qh"}, "counts are damaged"),
    "wrong signs": ({"size": [4, 5], "counts": "\u00e9"}, "counts are damaged"),
    "too few": ({"size": [4, 5], "counts": [5, 2]}, "counts 7 pixels in an image of 5 x 4"),
    "empty": ({"size": [4, 5], "counts": [20]}, "no pixel"),
}


@pytest.mark.parametrize("name", list(BROKEN))
def test_broken_segmentations(tmp_path: Path, name: str) -> None:
    value, reason = BROKEN[name]
    row = {"id": 5, "image_id": 7, "category_id": 17, "bbox": [], "segmentation": value}
    problem = only_error(read_coco(write(tmp_path, content(row))))
    assert problem.place == "annotation id 5" and reason in problem.reason


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


def test_a_lone_file_in_annotations_is_a_split_of_its_name(tmp_path: Path) -> None:
    write(tmp_path / "annotations", content(note(1)), "potholes.json")
    (tmp_path / "images").mkdir()
    (tmp_path / "images/000001.jpg").write_bytes(b"")
    assert list_splits(tmp_path) == ("potholes",)
    assert open_data(tmp_path, "potholes").facts["images"] == open_data(tmp_path).facts["images"]


@pytest.mark.parametrize(
    "changes",
    [
        {"bbox": [10, 20, float("nan"), 40], "area": 1.0, "iscrowd": 0},
        {"bbox": [10, 20, 1e12, 40], "area": 1.0, "iscrowd": 0},
        {"bbox": [True, 20, 30, 40], "area": 1.0, "iscrowd": 0},
        {"bbox": [10, 20, 30, 40], "area": float("nan"), "iscrowd": 0},
        {"bbox": [10, 20, 30, 40], "area": 1.0, "iscrowd": 2},
        {"bbox": [10, 20, 30, 40], "area": 1.0, "iscrowd": 0, "difficult": "perhaps"},
    ],
)
def test_rows_with_all_of_cocos_keys_are_checked_as_well(tmp_path: Path, changes: dict[str, Any]) -> None:
    data = read_coco(write(tmp_path, content(note(1, **changes))))
    assert not data.records and [problem.severity for problem in data.problems] == ["error"]


@pytest.mark.parametrize("folder", ["annotations", "."])
def test_a_file_for_each_class_is_an_error_not_half_of_the_objects(tmp_path: Path, folder: str) -> None:
    write(tmp_path / "unused", content())
    (tmp_path / "images").mkdir()
    (tmp_path / "images/a.jpg").touch()
    (tmp_path / folder).mkdir(exist_ok=True)
    for name, category in (("cats", 17), ("dogs", 3)):
        (tmp_path / folder / f"{name}.json").write_text(json.dumps(content(note(1, category_id=category))))
    shutil.rmtree(tmp_path / "unused")
    (problem,) = [problem for problem in open_data(tmp_path).problems if problem.severity == "error"]
    assert problem.file.name == "dogs.json" and "cats.json" in problem.reason


def test_an_image_of_two_splits_is_read_once(tmp_path: Path) -> None:
    (tmp_path / "images").mkdir()
    (tmp_path / "images/a.jpg").touch()
    (tmp_path / "annotations").mkdir()
    for name in ("instances_trainval.json", "instances_val.json"):
        (tmp_path / "annotations" / name).write_text(json.dumps(content(note(1))))
    data = open_data(tmp_path)
    assert len(data) == 1 and not [problem for problem in data.problems if problem.severity == "error"]


@pytest.mark.parametrize("first", ["images", "annotations"])
def test_a_long_list_hides_the_other_keys(tmp_path: Path, first: str) -> None:
    """2,500 images with the keys of COCO's own files are more than is read to tell the format."""
    rows = [
        {
            "id": n,
            "file_name": f"{n:012d}.jpg",
            "width": 640,
            "height": 480,
            "license": 1,
            "date_captured": "-" * 60,
        }
        for n in range(2500)
    ]
    usual: dict[str, Any] = {"images": rows, "annotations": [note(n, image_id=n) for n in range(2500)]}
    keys = (first, *(key for key in usual if key != first))
    value = {"info": {}, "licenses": [], **{key: usual[key] for key in keys}, "categories": CATEGORIES}
    file = tmp_path / "train.json"
    file.write_text(json.dumps(value))
    assert file.stat().st_size > 1 << 18
    assert coco_files(tmp_path) == {file: "train"}
    file.write_text('{"images": [{"id": 1, "file": "' + "a" * (1 << 18) + '"}]}')
    assert coco_files(tmp_path) == {}


def test_an_empty_file_of_roboflow_is_told(tmp_path: Path) -> None:
    for split, value in (("train", json.dumps(content(note(1)))), ("valid", "")):
        (tmp_path / split).mkdir()
        (tmp_path / split / "a.jpg").touch()
        (tmp_path / split / "_annotations.coco.json").write_text(value)
    assert list_splits(tmp_path) == ("train", "valid")
    assert len(open_data(tmp_path, "train")) == 1
    with pytest.raises(DataError, match=r"valid/_annotations\.coco\.json.*is not valid json"):
        open_data(tmp_path, "valid")

"""Result files of other detectors: what is read, how images and classes are matched, faults by line."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from fssd.data.class_names import COCO, COCO_IDS, VOC
from fssd.data.sample import DataSet, Record
from fssd.errors import ConfigError, DataError, FssdError
from fssd.evaluation.detection_files import FileDetections, is_detection_file, read_detections
from fssd.evaluation.image_names import match_images
from fssd.inference.detections import Detections

CLASSES = ("cat", "traffic light", "big_dog", "dog")
NUMBERS = {"0": "cat", "1": "traffic light", "2": "big_dog", "3": "dog"}


def record(image_id: str, path: str, size: tuple[int, int] | None = (200, 100)) -> Record:
    off = np.zeros(0, bool)
    boxes, labels = np.zeros((0, 4), np.float32), np.zeros(0, np.int64)
    width, height = size or (None, None)
    return Record(image_id, Path(path), Path("labels"), width, height, boxes, labels, off, off)


def data(*ids: str, classes: tuple[str, ...] = CLASSES, **facts: Any) -> DataSet:
    return DataSet(classes, tuple(record(name, f"images/{name}.jpg") for name in ids), facts=facts)


def rows(found: Detections) -> list[tuple[str, float, list[float]]]:
    return [
        (name, round(float(score), 5), box)
        for name, score, box in zip(found.names, found.scores, found.boxes.tolist(), strict=True)
    ]


def comp4(folder: Path, **files: str) -> Path:
    folder.mkdir(parents=True, exist_ok=True)
    for name, text in files.items():
        (folder / f"comp4_det_{name.replace('__', ' ')}.txt").write_text(text)
    return folder


# ---- the four formats


def test_comp4(tmp_path: Path) -> None:
    folder = comp4(
        tmp_path / "results" / "VOC2007" / "Main",
        **{
            "2007_test_cat": "a 0.250000 1.0 2.0 30.5 40.0\nb 0.9 5 6 7 8\n\na 0.75 10 20 30 40\n",
            "2007_test_big_dog": "a 0.5 1 1 1 3\n",
            "2007_test_traffic__light": "",
        },
    )
    found = read_detections(tmp_path, data("a", "b", "c"))
    assert rows(found.detections[0]) == [
        ("cat", 0.75, [10, 20, 30, 40]),
        ("big_dog", 0.5, [1, 1, 1, 3]),
        ("cat", 0.25, [1, 2, 30.5, 40]),
    ]
    assert rows(found.detections[1]) == [("cat", 0.9, [5, 6, 7, 8])]
    assert not len(found.detections[2])
    assert sorted(found.classes) == ["big_dog", "cat", "traffic light"]  # a file, so the class is known
    assert found.notes[0] == f"{tmp_path}: VOC's comp4 files, 4 detections in 2 of 3 images, 1 without any"
    assert is_detection_file(folder) and is_detection_file(tmp_path)


def test_text_files_with_a_byte_order_mark(tmp_path: Path) -> None:
    comp4(tmp_path / "comp4", test_cat="\ufeffa 0.5 1 1 1 3\n")
    found = read_detections(tmp_path / "comp4", data("a"))
    assert rows(found.detections[0]) == [("cat", 0.5, [1, 1, 1, 3])]
    (tmp_path / "yolo").mkdir()
    (tmp_path / "yolo" / "a.txt").write_text("\ufeff0 0.5 0.5 0.5 0.5 0.25\n", encoding="utf-8")
    found = read_detections(tmp_path / "yolo", data("a", class_numbers=NUMBERS))
    assert len(found.detections[0]) == 1


def test_a_class_that_ends_like_another_belongs_to_its_own_file(tmp_path: Path) -> None:
    """`test_big_dog` could be split test_big of dog; the other files say that the split is test."""
    comp4(tmp_path, test_big_dog="a 0.5 1 1 2 3\n", test_cat="", test_mouse="a 0.4 1 1 2 3\n")
    found = read_detections(tmp_path, data("a", classes=("dog", "cat")))
    assert sorted(found.classes) == ["big_dog", "cat", "mouse"]
    assert "left out: 2 detections of 2 classes not in the data set" in found.notes[1]


def test_coco_json(tmp_path: Path) -> None:
    file = tmp_path / "results.json"
    content = [
        {"image_id": 9, "category_id": 18, "bbox": [10, 20, 30, 40], "score": 0.5},
        {"image_id": 9, "category_id": 17, "bbox": [1, 2, 0, 4.5], "score": 1},
        {"image_id": 8, "category_id": 17, "bbox": [1, 2, 3, 4], "score": 0.25},
        {"image_id": 9, "category_id": 3, "bbox": [1, 2, 3, 4], "score": 0.05},
    ]
    file.write_text(json.dumps(content))
    found = read_detections(file, data("9", "10", classes=("dog", "cat"), category_ids=(18, 17)))
    assert rows(found.detections[0])[:2] == [("cat", 1.0, [1, 2, 1, 6.5]), ("dog", 0.5, [10, 20, 40, 60])]
    assert found.classes == ("dog", "cat", "category 3")
    assert found.notes[1:] == (
        "left out: 1 detection of 1 image not in the data set, the first is '8'",
        "left out: 1 detection of 1 class not in the data set, the first is 'category 3'",
    )


def test_category_ids_without_any_in_the_data_set(tmp_path: Path) -> None:
    file = tmp_path / "results.json"
    file.write_text(json.dumps([{"image_id": "a", "category_id": 2, "bbox": [1, 2, 3, 4], "score": 0.5}]))
    found = read_detections(str(file), data("a"))
    assert found.detections[0].names == ["traffic light"]  # counted from 1, and told
    assert "taken as its classes in order, from 1: 1 is 'cat', 4 is 'dog'" in found.notes[1]
    named = read_detections(file, data("a"), ("dog", "big_dog"))
    assert named.detections[0].names == ["big_dog"]
    assert not any("in order" in note for note in named.notes)
    file.write_text(json.dumps([{"image_id": "a", "category_id": 18, "bbox": [1, 2, 3, 4], "score": 0.5}]))
    assert read_detections(file, data("a"), COCO).detections[0].names == ["dog"]  # COCO's 18, not the 18th
    assert COCO_IDS[COCO.index("dog")] == 18


def yolo(folder: Path, **files: str) -> Path:
    for name, text in files.items():
        file = folder / f"{name.replace('__', '/')}.txt"
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text(text)
    return folder


def test_yolo_txt(tmp_path: Path) -> None:
    """200 x 100 pixels: centre (0.5, 0.5), a quarter of the width and half of the height."""
    folder = yolo(tmp_path, a="1 0.5 0.5 0.25 0.5 0.9\n0 0.1 0.2 0.2 0.4 0.3\n", val__b="")
    records = (record("a", "images/a.jpg"), record("val/b", "images/val/b.jpg"))
    dataset = DataSet(CLASSES, records, facts={"class_numbers": NUMBERS})
    found = read_detections(folder, dataset)
    (one, other) = rows(found.detections[0])
    assert one == ("traffic light", 0.9, [75, 25, 125, 75])
    assert other[:2] == ("cat", 0.3) and other[2] == pytest.approx([0, 0, 40, 40], abs=1e-5)
    assert "`class cx cy w h confidence`" in found.form
    assert found.classes == CLASSES


def test_names_of_class_numbers(tmp_path: Path) -> None:
    folder = yolo(tmp_path, a="1 0.5 0.5 0.25 0.5 0.9\n")
    with pytest.raises(ConfigError, match="does not number its classes; give --names voc, coco"):
        read_detections(folder, data("a", format="coco"))
    assert read_detections(folder, data("a"), ("dog", "cat")).detections[0].names == ["cat"]
    assert read_detections(folder, data("a", classes=VOC)).detections[0].names == ["bicycle"]
    (folder / "classes.txt").write_text("dog\nbig_dog\n")
    assert read_detections(folder, data("a")).detections[0].names == ["big_dog"]


def test_class_numbers_are_those_of_the_label_files(tmp_path: Path) -> None:
    numbers = {"1": "dog", "2": "cat", "4": "cow"}  # data sets need not count from 0, nor in this order
    dataset = data("a", classes=("cat", "dog"), class_numbers=numbers)
    found = read_detections(
        yolo(tmp_path / "known", a="2 0.5 0.5 0.25 0.5 0.9\n4 0.1 0.2 0.2 0.4 0.3\n"), dataset
    )
    assert found.detections[0].names == ["cat", "cow"] and found.classes == ("dog", "cat", "cow")
    assert "left out: 1 detection of 1 class not in the data set, the first is 'cow'" in found.notes
    with pytest.raises(DataError, match="class 0 is not among the 3 classes, numbered 1, 2, 4"):
        read_detections(yolo(tmp_path / "unknown", a="0 0.5 0.5 0.25 0.5 0.9\n"), dataset)
    with pytest.raises(ConfigError, match="numbers its classes in several ways; give --names"):
        read_detections(tmp_path / "known", data("a", class_numbers={}))


def test_a_picture_called_classes(tmp_path: Path) -> None:
    folder = yolo(tmp_path, classes="1 0.5 0.5 0.25 0.5 0.9\n")
    found = read_detections(folder, data("classes", class_numbers=NUMBERS))
    assert found.detections[0].names == ["traffic light"]


def own(name: str, *objects: Any, size: tuple[int, int] = (200, 100)) -> dict[str, Any]:
    return {"image": name, "width": size[0], "height": size[1], "objects": list(objects), "picture": None}


def test_our_own_json(tmp_path: Path) -> None:
    file = tmp_path / "detections.json"
    dog = {"name": "dog", "score": 0.5, "box": [1.5, 2, 3, 4]}
    tree = {"name": "tree", "score": 0.75, "box": [1, 2, 3, 4]}
    file.write_text(json.dumps([own("somewhere/a.jpg", dog, tree), own("b.jpg")]))
    found = read_detections(file, data("a", "b"))
    assert rows(found.detections[0]) == [("tree", 0.75, [1, 2, 3, 4]), ("dog", 0.5, [1.5, 2, 3, 4])]
    assert found.classes == (*CLASSES, "tree")
    assert "no score is below 0.50" in found.notes[-1]
    file.write_text(json.dumps([own("a.jpg", dog, size=(100, 200))]))
    with pytest.raises(DataError, match="has 100 x 200 pixels there and 200 x 100 in the data set"):
        read_detections(file, data("a"))


# ---- images


@pytest.mark.parametrize(
    ("name", "index"),
    [
        ("train/7", 0),  # the id
        ("/home/me/images/train/7.png", 0),
        (r"images\val\7.png", 1),
        ("val/7", 1),
        ("000012.jpg", 2),
        ("000012", 2),
        ("12", 2),  # the number
        ("c.v2", 3),  # no suffix of a picture
        ("c.v2.jpg", 3),
    ],
)
def test_images_are_found_by_name(name: str, index: int) -> None:
    records = (
        record("train/7", "data/images/train/7.png"),
        record("val/7", "data/images/val/7.png"),
        record("000012", "data/000012.jpg"),
        record("c.v2", "data/c.v2.jpg"),
    )
    found = match_images([name], records, Path("f"))
    assert found.indices == {name: index}
    assert found.as_numbers == (name == "12")


@pytest.mark.parametrize(
    ("names", "message"),
    [
        (["7"], "'7' fits several images (data/images/train/7.png and data/images/val/7.png)"),
        (["12", "000012"], "'12' and '000012' mean the same image"),
        (
            ["x", "y"],
            "none of its 2 images is in the data set: the first is 'x', the first there is 'train/7'",
        ),
    ],
)
def test_images_that_cannot_be_told(names: list[str], message: str) -> None:
    records = (
        record("train/7", "data/images/train/7.png"),
        record("val/7", "data/images/val/7.png"),
        record("000012", "data/000012.jpg"),
    )
    with pytest.raises(DataError, match=re.escape(message)):
        match_images(names, records, Path("f"))


def test_ids_that_are_numbers_with_zeros_in_front_are_told(tmp_path: Path) -> None:
    file = tmp_path / "results.json"
    file.write_text(json.dumps([{"image_id": 5, "category_id": 1, "bbox": [1, 2, 3, 4], "score": 0.01}]))
    found = read_detections(file, data("000004", "000005"))
    assert [len(one) for one in found.detections] == [0, 1]
    assert "1 image id matched as a number: 5 is 000005.jpg" in found.notes


# ---- faults


def read_row(tmp_path: Path, **changed: Any) -> FileDetections:
    row = {"image_id": 9, "category_id": 1, "bbox": [1, 2, 3, 4], "score": 0.5} | changed
    file = tmp_path / "results.json"
    file.write_text(json.dumps([row | {"score": 0.4}, {k: v for k, v in row.items() if v != "none"}]))
    return read_detections(file, data("9"))


@pytest.mark.parametrize(
    ("changed", "message"),
    [
        ({"score": 1.5}, "(row 2): the score 1.5 lies outside 0..1"),
        ({"score": float("nan")}, "(row 2): the score nan lies outside 0..1"),
        ({"score": "none"}, "(row 2): has no 'score'"),
        ({"score": "much"}, "(row 2): 'much' is no number"),
        ({"bbox": [5, 5, -1, 2]}, "(row 1): the box (5, 5, 4, 7) ends before it begins"),
        ({"bbox": [5, 5, 1]}, "(row 1): bbox [5, 5, 1] is not x, y, width, height"),
        ({"bbox": [5, 5, 1, float("inf")]}, "(row 1): the box has a coordinate that is not finite"),
        ({"category_id": "dog"}, "(row 1): category_id 'dog' is no whole number"),
        ({"image_id": None}, "(row 1): image_id None is no number or text"),
    ],
)
def test_faulty_rows_are_named(tmp_path: Path, changed: dict[str, Any], message: str) -> None:
    with pytest.raises(DataError, match=re.escape(message)):
        read_row(tmp_path, **changed)


@pytest.mark.parametrize(
    ("line", "message"),
    [
        ("a 0.5 1 2 3", "comp4_det_test_cat.txt (line 2): has 5 words where `id score x1 y1 x2 y2` has six"),
        ("a 0.5 9 2 3 4", "(line 2): the box (9, 2, 3, 4) ends before it begins"),
        ("a x 1 2 3 4", "(line 2): 'x' is no number"),
    ],
)
def test_faulty_lines_of_comp4(tmp_path: Path, line: str, message: str) -> None:
    comp4(tmp_path, test_cat=f"a 0.5 1 2 3 4\n{line}\n")
    with pytest.raises(DataError, match=re.escape(message)):
        read_detections(tmp_path, data("a"))


@pytest.mark.parametrize(
    ("line", "message"),
    [
        (
            "1 0.5 0.5 0.25 0.5",
            "a.txt (line 1): has 5 words where `class cx cy w h confidence` has six; a row of",
        ),
        ("9 0.5 0.5 0.25 0.5 0.9", "(line 1): class 9 is not among the 4 classes, counted from 0"),
        ("1 50 50 25 25 0.9", "(line 1): 50 50 25 25 are no shares of the image"),
        ("1 0.5 0.5 0.25 0.5 90", "(line 1): the score 90 lies outside 0..1"),
    ],
)
def test_faulty_lines_of_yolo(tmp_path: Path, line: str, message: str) -> None:
    with pytest.raises(DataError, match=re.escape(message)):
        read_detections(yolo(tmp_path, a=f"{line}\n"), data("a", class_numbers=NUMBERS))


@pytest.mark.parametrize(
    ("files", "message"),
    [
        (
            {"a.json": '{"images": []}'},
            "holds labels, not a list of detections; expected is a folder of comp4",
        ),
        ({"a.json": "[1]"}, "is no list of detections"),
        ({"a.json": '[{"file": "a"}]'}, "its first row has the keys file; expected is"),
        ({"a.json": "[{"}, "is not valid json"),
        ({"comp4_det_val_cat.txt": "", "comp4_det_test_dog.txt": ""}, "files of several splits (test, val)"),
        ({"x/comp4_det_val_cat.txt": "", "comp4_det_val_dog.txt": ""}, "holds results of several detectors"),
        ({"comp4_det_val_cow.txt": ""}, "none of its 1 files ends in a class of the data set"),
    ],
)
def test_what_is_no_file_of_detections(tmp_path: Path, files: dict[str, str], message: str) -> None:
    for name, text in files.items():
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_text(text)
    path = tmp_path / "a.json" if "a.json" in files else tmp_path
    with pytest.raises(FssdError, match=re.escape(message)):
        read_detections(path, data("a"))


def test_names_for_files_that_have_their_own(tmp_path: Path) -> None:
    comp4(tmp_path, test_cat="a 0.5 1 2 3 4\n")
    with pytest.raises(ConfigError, match="names its classes itself; leave out --names"):
        read_detections(tmp_path, data("a"), ("cat",))


def test_a_run_is_a_model(tmp_path: Path, model_file: Path) -> None:
    (tmp_path / "best.safetensors").touch()
    (tmp_path / "notes.txt").touch()
    assert not is_detection_file(tmp_path)
    assert not is_detection_file(model_file)
    assert not is_detection_file(tmp_path / "nothing")

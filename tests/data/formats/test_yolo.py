"""YOLO folders: label rows become pixels, and every fault names file and line."""

from __future__ import annotations

import os
from pathlib import Path

import cv2
import numpy as np
import pytest

from fssd.data.formats.yolo import read_yolo
from fssd.data.sample import Problem
from fssd.errors import DataError

REAL = os.environ.get("FSSD_TEST_DATA", "")
needs_data = pytest.mark.skipif(not REAL, reason="FSSD_TEST_DATA does not name a folder of data sets")
YAML = "train: images/train\nval: images/val\nnames: [cat, dog]\n"


def write(root: Path, name: str, rows: str | None = None, width: int = 200, height: int = 100) -> Path:
    """An image below images/ and, unless rows is None, its label file, which is returned."""
    image = root / "images" / name
    label = (root / "labels" / name).with_suffix(".txt")
    for path in (image, label):
        path.parent.mkdir(parents=True, exist_ok=True)
    cv2.imwrite(str(image), np.zeros((height, width, 3), np.uint8))
    if rows is not None:
        label.write_text(rows)
    return label


def yaml_file(root: Path, content: str = YAML) -> Path:
    file = root / "data.yaml"
    file.write_text(content)
    return file


def only_error(root: Path) -> Problem:
    data = read_yolo(yaml_file(root), "train")
    assert not data.records
    (problem,) = data.problems
    assert problem.severity == "error"
    return problem


def test_rows_become_pixels(tmp_path: Path) -> None:
    label = write(tmp_path, "train/a.png", "1 0.5 0.5 0.5 0.2\n\n0 0.25 0.1 0.5 0.2\n")
    data = read_yolo(yaml_file(tmp_path), "train")
    (record,) = data.records
    assert data.classes == ("cat", "dog") and data.problems == ()
    assert (record.image_id, record.source) == ("train/a.png", label)
    assert (record.width, record.height) == (200, 100)
    np.testing.assert_allclose(record.boxes, [[50, 40, 150, 60], [0, 0, 100, 20]], atol=1e-4)
    assert record.labels.tolist() == [1, 0]


def test_hidden_images_are_no_backgrounds(tmp_path: Path) -> None:
    write(tmp_path, "train/a.png", "0 0.5 0.5 0.5 0.2\n")
    for name in ("train/.ipynb_checkpoints/a-checkpoint.png", "train/._a.png", "__MACOSX/train/a.png"):
        write(tmp_path, name)
    file = yaml_file(tmp_path, "train: images\nnames: [cat]\n")
    assert [record.image_id for record in read_yolo(file, "train").records] == ["train/a.png"]


def test_missing_and_empty_label_files_are_backgrounds(tmp_path: Path) -> None:
    write(tmp_path, "train/a.png")
    write(tmp_path, "train/b.png", "")
    data = read_yolo(yaml_file(tmp_path), "train")
    assert [record.boxes.shape for record in data.records] == [(0, 4), (0, 4)]
    (problem,) = data.problems
    assert problem.reason.startswith("1 of 2 pictures have no label file and are backgrounds")


def shared_names(root: Path) -> Path:
    """Two folders, both with a 0.png; the data.yaml."""
    for name in ("a/images/0.png", "a/images/1.png", "b/images/0.png"):
        path = root / name
        path.parent.mkdir(parents=True, exist_ok=True)
        cv2.imwrite(str(path), np.zeros((10, 10, 3), np.uint8))
    return yaml_file(root, "train: [a/images, b/images]\nnames: [cat]\n")


def ids_of(file: Path, **given: Path) -> list[str]:
    return [record.image_id for record in read_yolo(file, "train", **given).records]


def test_images_of_one_name_are_known_by_their_folders_wherever_they_lie(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    ids = ["a/images/0.png", "1.png", "b/images/0.png"]
    file = shared_names(tmp_path / "here")
    assert ids_of(file) == ids
    moved = file.parent.rename(tmp_path / "moved")
    assert ids_of(moved / "data.yaml") == ids
    monkeypatch.chdir(moved)
    assert ids_of(Path("data.yaml")) == ids
    monkeypatch.chdir(tmp_path)
    assert ids_of(Path("moved/data.yaml")) == ids


def test_ids_of_images_outside_of_the_data_set(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    root = shared_names(tmp_path / "all").parent
    (root / "set").mkdir()
    file = yaml_file(root / "set", "train: [../a/images, ../b/images]\nnames: [cat]\n")
    ids = ["../a/images/0.png", "1.png", "../b/images/0.png"]
    assert ids_of(file) == ids
    monkeypatch.chdir(root.rename(tmp_path / "moved") / "set")
    assert ids_of(Path("data.yaml")) == ids
    entries = [str(tmp_path / "moved" / name / "images") for name in "ab"]
    file = yaml_file(Path(), f"train: {entries}\nnames: [cat]\n")
    assert ids_of(file) == ids, "stated with whole paths"
    assert ids_of(file.absolute()) == ids


def test_a_long_id_is_no_short_one_of_another_image(tmp_path: Path) -> None:
    for name in ("a/0.png", "b/0.png", "images/a/0.png"):
        path = tmp_path / name
        path.parent.mkdir(parents=True, exist_ok=True)
        cv2.imwrite(str(path), np.zeros((10, 10, 3), np.uint8))
    file = yaml_file(tmp_path, "train: [a, b, images]\nnames: [cat]\n")
    assert ids_of(file) == ["a/0.png", "b/0.png", "images/a/0.png"]
    listed = tmp_path / "list.txt"
    listed.write_text("a/0.png\na/../a/0.png\n")
    file = yaml_file(tmp_path, "train: list.txt\nnames: [cat]\n")
    assert ids_of(file) == ["a/0.png", "a/../a/0.png"], "each is a record of its own, with a warning"


def test_ids_of_pictures_in_a_given_folder(tmp_path: Path) -> None:
    for name in ("x/0.png", "y/0.png"):
        write(tmp_path, f"train/{name}", "0 0.5 0.5 0.5 0.2\n")
    pictures = (tmp_path / "images").rename(tmp_path / "elsewhere")
    file = yaml_file(tmp_path, "train: images/train\nnames: [cat]\n")
    ids = ids_of(file, images=pictures)
    assert ids == ["train/x/0.png", "train/y/0.png"]
    assert ids_of(file, images=pictures.rename(tmp_path / "moved")) == ids


def test_splits(tmp_path: Path) -> None:
    write(tmp_path, "train/a.png")
    write(tmp_path, "val/b.png")
    file = yaml_file(tmp_path)
    found = [
        [record.image_id for record in read_yolo(file, split).records] for split in ("val", "train+val", None)
    ]
    assert found == [["val/b.png"], ["train/a.png", "val/b.png"], ["train/a.png", "val/b.png"]]
    with pytest.raises(DataError, match=r"data\.yaml: there is no split 'test'; known: train, val"):
        read_yolo(file, "test")


@pytest.mark.parametrize(
    ("names", "expected"),
    [
        ("names: {0: cat, 1: dog}", ("cat", "dog")),
        ("names: {5: dog, 0: cat}", ("cat", "dog")),
        ("nc: 2", ("0", "1")),
        ("nc: 2\nnames: [cat, dog]", ("cat", "dog")),
    ],
)
def test_names(tmp_path: Path, names: str, expected: tuple[str, ...]) -> None:
    write(tmp_path, "train/a.png", "0 0.5 0.5 0.5 0.5")
    data = read_yolo(yaml_file(tmp_path, f"train: images/train\n{names}\n"), "train")
    assert data.classes == expected and data.records[0].labels.tolist() == [0]


def test_numbers_with_gaps(tmp_path: Path) -> None:
    write(tmp_path, "train/a.png", "5 0.5 0.5 0.5 0.5")
    data = read_yolo(yaml_file(tmp_path, "train: images/train\nnames: {0: cat, 5: dog}\n"), "train")
    assert data.records[0].labels.tolist() == [1]
    assert data.facts["class_numbers"] == {"0": "cat", "5": "dog"}


def test_given_classes(tmp_path: Path) -> None:
    label = write(tmp_path, "train/a.png", "0 0.5 0.5 0.5 0.5")
    file = yaml_file(tmp_path)
    assert read_yolo(file, "train", ["dog", "cat"]).records[0].labels.tolist() == [1]
    (problem,) = read_yolo(file, "train", ["dog", "cow"]).problems
    assert (problem.file, problem.place) == (label, "line 1") and "unknown class 'cat'" in problem.reason


@pytest.mark.parametrize(
    ("path", "train"),
    [
        (".", "images/train"),
        ("images", "train"),
        (".", "[images/train, images/val]"),
        ("nowhere", "../images/train"),
    ],
)
def test_places_of_images(tmp_path: Path, path: str, train: str) -> None:
    write(tmp_path, "train/a.png", "0 0.5 0.5 0.5 0.5")
    (tmp_path / "images/val").mkdir()
    (record,) = read_yolo(
        yaml_file(tmp_path, f"path: {path}\ntrain: {train}\nnames: [cat]\n"), "train"
    ).records
    assert record.path.samefile(tmp_path / "images/train/a.png") and len(record.boxes) == 1


def test_list_of_images(tmp_path: Path) -> None:
    write(tmp_path, "train/a.png", "0 0.5 0.5 0.5 0.5")
    write(tmp_path, "train/b.png")
    (tmp_path / "train.txt").write_text("./images/train/b.png\nimages/train/a.png\nimages/train/gone.png\n")
    data = read_yolo(yaml_file(tmp_path, "train: train.txt\nnames: [cat]\n"), "train")
    assert [record.image_id for record in data.records] == ["train/b.png", "train/a.png"]
    without, problem = data.problems
    assert "1 of 3 pictures have no label file" in without.reason and "b.png" in without.reason
    assert problem.file == tmp_path / "images/train/gone.png" and "missing" in problem.reason


def test_labels_beside_images_when_no_folder_is_called_images(tmp_path: Path) -> None:
    (tmp_path / "photos").mkdir()
    cv2.imwrite(str(tmp_path / "photos" / "a.png"), np.zeros((10, 10, 3), np.uint8))
    (tmp_path / "photos" / "a.txt").write_text("0 0.5 0.5 1 1")
    (record,) = read_yolo(yaml_file(tmp_path, "train: photos\nnames: [cat]\n"), "train").records
    assert record.boxes.tolist() == [[0, 0, 10, 10]]


FAULTS = {
    "five words": ("person on a big bike", "line 1", "not five numbers"),
    "name for number": ("0 .5 .5 .1 .1\ncat 0.5 0.5 0.1 0.1", "line 2", "not five numbers"),
    "four numbers": ("0 0.5 0.5 0.1", "line 1", "4 words"),
    "confidence": ("0 0.5 0.5 0.1 0.1 0.9", "line 1", "6 words"),
    "half a pair": ("0 0.1 0.1 0.2 0.1 0.2 0.2 0.3", "line 1", "8 words"),
    "pixels": ("\n0 100 50 20 10", "line 2", "outside 0..1"),
    "negative": ("0 -0.1 0.5 0.1 0.1", "line 1", "outside 0..1"),
    "not finite": ("0 nan 0.5 0.1 0.1", "line 1", "outside 0..1"),
    "class beyond": ("2 0.5 0.5 0.1 0.1", "line 1", "class 2 is not among the 2 classes"),
    "class below": ("-1 0.5 0.5 0.1 0.1", "line 1", "class -1"),
    "half a class": ("0.5 0.5 0.5 0.1 0.1", "line 1", "class 0.5"),
    "class nan": ("nan 0.5 0.5 0.1 0.1", "line 1", "class nan"),
    "no width": ("0 0.5 0.5 0 0.1", "line 1", "xmax <= xmin"),
}


@pytest.mark.parametrize("fault", list(FAULTS))
def test_faults(tmp_path: Path, fault: str) -> None:
    rows, place, reason = FAULTS[fault]
    label = write(tmp_path, "train/a.png", rows)
    problem = only_error(tmp_path)
    assert (problem.file, problem.place) == (label, place)
    assert reason in problem.reason


def test_every_bad_row_is_reported(tmp_path: Path) -> None:
    write(tmp_path, "train/a.png", "9 .5 .5 .1 .1\n0 .5 .5 .1 .1\n0 .5 .5 .1\n0 .5 .5 .0 .1")
    data = read_yolo(yaml_file(tmp_path), "train")
    assert sorted(problem.place for problem in data.problems) == ["line 1", "line 3", "line 4"]
    assert not data.records and data.facts["images"] == 1


def test_label_file_that_is_no_text(tmp_path: Path) -> None:
    label = write(tmp_path, "train/a.png", "")
    label.write_bytes(b"\xff\xfe\x00\x9f")
    problem = only_error(tmp_path)
    assert problem.file == label and "text" in problem.reason


def test_image_that_is_none(tmp_path: Path) -> None:
    write(tmp_path, "train/a.jpg", "0 .5 .5 .1 .1")
    (tmp_path / "images/train/a.jpg").write_text("<html>")
    problem = only_error(tmp_path)
    assert problem.file == tmp_path / "images/train/a.jpg" and "no image" in problem.reason


def test_box_that_leaves_the_image_is_clipped(tmp_path: Path) -> None:
    write(tmp_path, "train/a.png", "0 0.95 0.5 0.2 0.2\n0 0.95 0.5 0.10001 0.2")
    data = read_yolo(yaml_file(tmp_path), "train")
    np.testing.assert_allclose(data.records[0].boxes[:, 2], [200, 200])
    assert [(problem.severity, problem.place) for problem in data.problems] == [("warning", "line 1")]


@pytest.mark.parametrize(
    ("content", "reason"),
    [
        ("train: images/train", "needs `names`"),
        ("train: images/train\nnames: []", "needs `names`"),
        ("train: images/train\nnc: 99999999999", "needs `names`"),
        ("train: images/train\nnames: {a: cat}", "whole numbers"),
        ("train: images/train\nnames: [yes, no]", "True is no class name"),
        ("train: images/train\nnames: [cat, cat]", "same name"),
        ("train: images/train\nnames: [cat]\nnc: 3", "nc is 3 but there are 1"),
        ("train: images/none\nnames: [cat]", "neither a folder"),
        ("val: images\nnames: [cat]", "no split 'train'"),
        ("names: [cat]", "no split 'train'"),
        ("train: images/empty\nnames: [cat]", "split 'train' holds no image"),
        ("train: [a, b\nnames: x", "not valid YAML"),
        ("train: a\nnames:\n  0: cat\n  0: dog", r"\(line 4\): is not valid YAML \(the key 0 is there twice"),
        ("train: a\nnames: [cat]\ntrain: b", r"\(line 3\).*the key 'train' is there twice"),
        ("- a\n- b", "key: value"),
        ("\x00", "YAML"),
    ],
)
def test_unusable_yaml(tmp_path: Path, content: str, reason: str) -> None:
    write(tmp_path, "train/a.png")
    (tmp_path / "images/empty").mkdir()
    file = yaml_file(tmp_path, content)
    with pytest.raises(DataError, match=reason) as caught:
        read_yolo(file, "train")
    assert caught.value.file == file


@needs_data
def test_real_coco128() -> None:
    data = read_yolo(Path(REAL) / "coco128" / "data.yaml", None)
    assert len(data) == 256 and len(data.classes) == 80
    background, unused = data.problems  # the set is cut from a larger one
    assert "2 of 256 pictures have no label file and are backgrounds" in background.reason
    assert "2 label files belong to no image" in unused.reason and "000000000656.txt" in unused.reason
    assert sum(len(record.boxes) for record in data.records) == 1827
    assert sum(not record.source.is_file() for record in data.records) == 2


@pytest.mark.parametrize("stated", ["C:\\Users\\me\\datasets\\cells", "/home/me/cells", "cells"])
def test_the_folder_of_another_machine_is_found_below_the_yaml(tmp_path: Path, stated: str) -> None:
    write(tmp_path / "datasets/cells", "train/a.png", "0 0.5 0.5 0.5 0.2\n")
    file = yaml_file(tmp_path, f"path: {stated}\ntrain: images/train\nnames: [cat]\n")
    data = read_yolo(file, "train")
    assert [record.path for record in data.records] == [tmp_path / "datasets/cells/images/train/a.png"]
    (note,) = data.problems
    assert (note.severity, note.place) == ("warning", "path")
    assert note.reason == f"{stated} is not there; {tmp_path / 'datasets/cells'} is used"


@pytest.mark.parametrize("stated", ["gone/..", "../gone/../..", "x" * 300])
def test_a_path_that_leads_nowhere_is_the_folder_of_the_yaml(tmp_path: Path, stated: str) -> None:
    write(tmp_path, "train/a.png", "0 0.5 0.5 0.5 0.2\n")
    data = read_yolo(yaml_file(tmp_path, f"path: {stated}\ntrain: images/train\nnames: [cat]\n"), "train")
    assert [record.path for record in data.records] == [tmp_path / "images/train/a.png"]

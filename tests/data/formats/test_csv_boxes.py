"""Csv with a box a row: TensorFlow, RetinaNet, Open Images, VoTT; splits by file; faults with their line."""

from __future__ import annotations

import csv
from pathlib import Path

import pytest
from annotated import boxes, checked, messages, opened, picture, text

from fssd.data.source import list_splits, open_data, require_usable
from fssd.errors import DataError, LabelError

TENSORFLOW = "filename,width,height,class,xmin,ymin,xmax,ymax\n"
ROWS = "a.jpg,200,100,cat,10.5,20,30,40.25\na.jpg,200,100,dog,1,2,3,4\nb.jpg,200,100,cat,10,20,30,40\n"
FOUND = {"a.jpg": [("cat", 10.5, 20, 30, 40.25), ("dog", 1, 2, 3, 4)], "b.jpg": [("cat", 10, 20, 30, 40)]}


def pictures(root: Path) -> None:
    picture(root / "a.jpg")
    picture(root / "b.jpg")


def test_tensorflow(tmp_path: Path) -> None:
    pictures(tmp_path / "images")
    file = text(tmp_path / "labels.csv", TENSORFLOW + ROWS)
    for path in (tmp_path, file):
        data = opened(path, "csv")
        assert data.classes == ("cat", "dog") and data.problems == ()
        assert boxes(data) == {f"images/{name}": found for name, found in FOUND.items()}
        assert list_splits(path) == ()
    with file.open() as stream:
        counted = len(list(csv.DictReader(stream)))
    assert checked(tmp_path).splits["all"].objects == counted == 3


def test_a_file_for_each_split(tmp_path: Path) -> None:
    pictures(tmp_path / "images/train")
    picture(tmp_path / "images/test/a.jpg")
    text(tmp_path / "train_labels.csv", TENSORFLOW + ROWS)
    text(tmp_path / "test_labels.csv", TENSORFLOW + "a.jpg,200,100,cat,5,6,7,8\n")
    assert list_splits(tmp_path) == ("train", "test")
    assert boxes(opened(tmp_path, "csv", "test")) == {"images/test/a.jpg": [("cat", 5, 6, 7, 8)]}
    train = opened(tmp_path, "csv", "train")
    assert boxes(train) == {f"images/train/{name}": found for name, found in FOUND.items()}
    assert open_data(tmp_path, "test").classes == ("cat", "dog")
    assert {name: split.objects for name, split in checked(tmp_path).splits.items()} == {
        "train": 3,
        "test": 1,
    }


def test_a_folder_for_each_split(tmp_path: Path) -> None:
    pictures(tmp_path / "train")
    text(tmp_path / "train/_annotations.csv", TENSORFLOW + ROWS)
    pictures(tmp_path / "valid")
    text(tmp_path / "valid/_annotations.csv", TENSORFLOW + ROWS)
    assert list_splits(tmp_path) == ("train", "valid")
    assert list(boxes(opened(tmp_path, "csv", "valid"))) == ["valid/a.jpg", "valid/b.jpg"]


def test_a_file_of_all_splits_is_a_copy(tmp_path: Path) -> None:
    pictures(tmp_path)
    first, *rest = ROWS.splitlines(keepends=True)
    text(tmp_path / "all.csv", TENSORFLOW + ROWS)
    text(tmp_path / "train.csv", TENSORFLOW + first + rest[0])
    text(tmp_path / "test.csv", TENSORFLOW + rest[1])
    assert list_splits(tmp_path)[:2] == ("train", "test")
    data = opened(tmp_path, "csv")
    assert boxes(data) == FOUND
    (note,) = messages(data, "warning")
    assert note.startswith("all.csv (): labels only images that")


RETINANET = """images/a.jpg,10.5,20,30,40.25,cat
images/a.jpg,1,2,3,4,dog
images/b.jpg,,,,,
"""


@pytest.mark.parametrize("header", ["", "path,x1,y1,x2,y2,class\n"])
def test_retinanet(tmp_path: Path, header: str) -> None:
    pictures(tmp_path / "images")
    text(tmp_path / "annotations.csv", header + RETINANET)
    expected = {"images/a.jpg": FOUND["a.jpg"], "images/b.jpg": []}
    data = opened(tmp_path, "csv")
    assert (boxes(data), data.classes, data.problems) == (expected, ("cat", "dog"), ())
    text(tmp_path / "classes.csv", "dog,0\nhorse,1\ncat,2\n")
    data = opened(tmp_path, "csv")
    assert (boxes(data), data.classes) == (expected, ("dog", "horse", "cat"))


def test_retinanet_with_paths_of_another_machine(tmp_path: Path) -> None:
    pictures(tmp_path / "images")
    rows = RETINANET.replace("images/", "/home/someone/images/")
    text(tmp_path / "annotations.csv", rows)
    data = opened(tmp_path, "csv")
    assert list(boxes(data)) == ["images/a.jpg", "images/b.jpg"]
    (note,) = messages(data, "warning")
    assert "found by name, elsewhere than stated: 2, the first is" in note
    assert "a.jpg for /home/someone/images/a.jpg" in note


def test_paths_with_the_same_name_are_told_apart_by_their_folders(tmp_path: Path) -> None:
    picture(tmp_path / "data/one/a.jpg")
    picture(tmp_path / "data/two/a.jpg")
    rows = "D:\\x\\two\\a.jpg,1,2,3,4,dog\nD:\\x\\one\\a.jpg,5,6,7,8,cat\n"
    text(tmp_path / "annotations.csv", rows)
    expected = {"data/two/a.jpg": [("dog", 1, 2, 3, 4)], "data/one/a.jpg": [("cat", 5, 6, 7, 8)]}
    assert boxes(opened(tmp_path, "csv")) == expected
    text(tmp_path / "annotations.csv", "D:\\x\\a.jpg,1,2,3,4,dog\n")
    (error,) = messages(opened(tmp_path, "csv"), "error")
    assert "may be" in error and "give the folder of the image" in error


OPEN_IMAGES = "ImageID,Source,LabelName,Confidence,XMin,XMax,YMin,YMax,IsOccluded,IsTruncated,"
OPEN_IMAGES += "IsGroupOf,IsDepiction,IsInside\n"


@pytest.mark.parametrize(
    ("paths", "found"), [(("D:/one/a.jpg", "D:/two/a.jpg"), []), (("a.jpg", "D:/two/a.jpg"), ["data/a.jpg"])]
)
def test_one_picture_is_not_used_for_two(tmp_path: Path, paths: tuple[str, str], found: list[str]) -> None:
    picture(tmp_path / "data/a.jpg")
    text(tmp_path / "data/labels.csv", "".join(f"{path},1,2,3,4,cat\n" for path in paths))
    data = opened(tmp_path, "csv")
    assert list(boxes(data)) == found
    errors = messages(data, "error")
    assert len(errors) == 2 - len(found) and all("the image file is missing" in error for error in errors)


def test_open_images(tmp_path: Path) -> None:
    picture(tmp_path / "train/0001eeaf4aed83f9.jpg")
    picture(tmp_path / "validation/0002.jpg", 400, 50)
    row = "0001eeaf4aed83f9,xclick,/m/0cmf2,1,0.25,0.5,0.1,0.9,0,0,0,0,0\n"
    crowd = "0002,xclick,/m/05s2s,1,0,0.5,0.2,1,0,0,1,0,0\n"
    text(tmp_path / "train-annotations-bbox.csv", OPEN_IMAGES + row)
    text(tmp_path / "validation-annotations-bbox.csv", OPEN_IMAGES + crowd)
    text(tmp_path / "class-descriptions-boxable.csv", "/m/05s2s,Plant\n/m/0cmf2,Airplane\n")
    assert list_splits(tmp_path) == ("train", "validation")
    train = opened(tmp_path, "csv", "train")
    assert train.classes == ("Airplane", "Plant") and train.problems == ()
    assert boxes(train) == {"train/0001eeaf4aed83f9.jpg": [("Airplane", 50, 10, 100, 90)]}
    val = opened(tmp_path, "csv", "val")
    assert boxes(val) == {"validation/0002.jpg": [("Plant", 0, 10, 200, 50)]}
    assert val.records[0].crowd.tolist() == [True]
    assert checked(tmp_path).splits["validation"].objects == 1


@pytest.mark.parametrize(("word", "crowd"), [("0", False), ("-1", False), ("true", True), ("1", True)])
def test_groups_by_their_meaning(tmp_path: Path, word: str, crowd: bool) -> None:
    picture(tmp_path / "a.jpg")
    text(tmp_path / "a.csv", f"{OPEN_IMAGES}a,xclick,dog,1,0,0.5,0.2,1,0,0,{word},0,0\n")
    assert opened(tmp_path, "csv").records[0].crowd.tolist() == [crowd]


def test_hidden_tables_are_not_read(tmp_path: Path) -> None:
    pictures(tmp_path / "images")
    text(tmp_path / "annotations.csv", RETINANET)
    text(tmp_path / "._classes.csv", "horse,0\n")
    assert opened(tmp_path, "csv").classes == ("cat", "dog")


def test_vott(tmp_path: Path) -> None:
    pictures(tmp_path)
    rows = '"a.jpg",10.5,20,30,40.25,"cat"\n"a.jpg",1,2,3,4,"dog"\n"b.jpg",10,20,30,40,"cat"\n'
    text(tmp_path / "export.csv", '"image","xmin","ymin","xmax","ymax","label"\n' + rows)
    assert boxes(opened(tmp_path, "csv")) == FOUND


def test_semicolons_and_a_mark_at_the_beginning(tmp_path: Path) -> None:
    pictures(tmp_path)
    text(tmp_path / "labels.csv", "\ufeff" + (TENSORFLOW + ROWS).replace(",", ";"))
    assert boxes(opened(tmp_path, "csv")) == FOUND
    text(tmp_path / "labels.csv", "\r\n" + (TENSORFLOW + ROWS).replace(",", ";"))
    assert boxes(opened(tmp_path, "csv")) == FOUND


@pytest.mark.parametrize(
    ("row", "place", "reason"),
    [
        ("a.jpg,200,100,cat,x,2,30,40", "line 3", "xmin is 'x', not a number in range"),
        ("a.jpg,200,100,cat,1_0,2,30,40", "line 3", "xmin is '1_0', not a number in range"),
        ("a.jpg,200,100,cat,1e400,2,30,40", "line 3", "xmin is '1e400', not a number in range"),
        ("a.jpg,200,100,cat,nan,2,30,40", "line 3", "xmin is 'nan', not a number in range"),
        ("a.jpg,200,100,cat,1,2,30", "line 3", "has 7 words, needed are 8"),
        ("a.jpg,200,100,,1,2,30,40", "line 3", "has the class ''"),
        ("a.jpg,200,100,cat,30,2,30,40", "line 3 (cat)", "xmax <= xmin"),
        ("a.jpg,0,100,cat,1,2,30,40", "line 3", "states an image of 0 x 100"),
        (",200,100,cat,1,2,30,40", "line 3", "names no image"),
    ],
)
def test_faults(tmp_path: Path, row: str, place: str, reason: str) -> None:
    pictures(tmp_path)
    file = text(tmp_path / "labels.csv", f"{TENSORFLOW}b.jpg,200,100,cat,10,20,30,40\n{row}\n")
    data = opened(tmp_path, "csv")
    (problem,) = [problem for problem in data.problems if problem.severity == "error"]
    assert (problem.file, problem.place) == (file, place) and reason in problem.reason
    assert (list(boxes(data)), data.facts["images"]) == (["b.jpg"], 2)
    with pytest.raises(LabelError, match=r"labels.csv \(line 3"):
        require_usable(data)


def test_two_sizes_of_one_image(tmp_path: Path) -> None:
    pictures(tmp_path)
    text(tmp_path / "labels.csv", TENSORFLOW + ROWS.replace("a.jpg,200,100,dog", "a.jpg,100,200,dog"))
    (error,) = messages(opened(tmp_path, "csv"), "error")
    assert "(line 3): states an image of 100 x 200; a line before states 200 x 100" in error


def test_a_class_that_a_model_does_not_know(tmp_path: Path) -> None:
    pictures(tmp_path)
    text(tmp_path / "labels.csv", TENSORFLOW + ROWS)
    with pytest.raises(LabelError, match=r"labels.csv \(line 3 \(dog\)\): unknown class 'dog'"):
        require_usable(open_data(tmp_path, classes=["cat"]))


@pytest.mark.parametrize(
    "content", ["epoch,loss\n1,2\n", "a.jpg,1,2,3,4\n", "filename,class\na.jpg,cat\n", "", "\0\1"]
)
def test_other_csv_is_no_data(tmp_path: Path, content: str) -> None:
    pictures(tmp_path)
    text(tmp_path / "results.csv", content)
    with pytest.raises(DataError, match="holds no known data set"):
        open_data(tmp_path)


SHARES = "filename,xmin,ymin,xmax,ymax,class\na.jpg,0.1,0.2,0.6,0.7,cat\nb.jpg,0,0,1,1,dog\n"


@pytest.mark.parametrize("content", [SHARES, "a.jpg,0.1,0.2,0.6,0.7,cat\nb.jpg,,,,,\n"])
def test_shares_under_names_of_pixels_are_refused(tmp_path: Path, content: str) -> None:
    pictures(tmp_path)
    file = text(tmp_path / "labels.csv", content)
    with pytest.raises(
        DataError, match=r"shares of the image and no pixels; multiply .* as Open Images"
    ) as caught:
        open_data(tmp_path)
    assert caught.value.file == file
    text(tmp_path / "labels.csv", SHARES.replace("filename", "ImageID"))
    assert boxes(open_data(tmp_path)) == {
        "a.jpg": [("cat", 20, 20, 120, 70)],
        "b.jpg": [("dog", 0, 0, 200, 100)],
    }
    text(tmp_path / "labels.csv", SHARES + "b.jpg,0,0,1.5,1,dog\n")  # pixels
    assert boxes(open_data(tmp_path))["b.jpg"] == [("dog", 0, 0, 1, 1), ("dog", 0, 0, 1.5, 1)]


def test_ids_of_classes_are_used_once(tmp_path: Path) -> None:
    pictures(tmp_path / "images")
    text(tmp_path / "annotations.csv", RETINANET)
    text(tmp_path / "classes.csv", "dog,0\ncat,0\n")
    with pytest.raises(DataError, match=r"classes.csv: gives one id to two classes"):
        open_data(tmp_path)


def test_a_finding_of_the_check_names_the_image(tmp_path: Path) -> None:
    pictures(tmp_path)
    text(tmp_path / "labels.csv", TENSORFLOW + ROWS + ROWS.splitlines()[-1] + "\n")
    (problem,) = (one for one in checked(tmp_path).problems if one.place != "classes")
    assert problem.place == "image b.jpg, object 2 (cat)" and "repeats object 1" in problem.reason

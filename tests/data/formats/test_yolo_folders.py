"""YOLO data sets as Darknet, Label Studio, CVAT, Roboflow and people lay them out."""

from __future__ import annotations

from pathlib import Path

import cv2
import numpy as np
import pytest

from fssd.data.formats.yolo import YOLO
from fssd.data.sample import DataSet
from fssd.data.source import find_reader, list_splits, open_data
from fssd.errors import DataError

ROW = "1 0.5 0.5 0.5 0.2\n"
BOX = [50, 40, 150, 60]  # of the row in a picture of 200 x 100


def picture(path: Path) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    cv2.imwrite(str(path), np.zeros((100, 200, 3), np.uint8))


def text(path: Path, content: str = ROW) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(content)
    return path


def opened(path: Path, split: str | None = None) -> DataSet:
    reader, root = find_reader(path)
    assert reader is YOLO
    return reader.read(root, split, None, None)


def reasons(data: DataSet) -> list[str]:
    return [f"{problem.severity}: {problem.reason}" for problem in data.problems]


NAMES = "cat\ndog\n"
DATA = (
    "classes = 2\ntrain = data/train.txt\nvalid = data/test.txt\nnames = data/obj.names\nbackup = backup/\n"
)
# Texts by file (with a row each where none is given), pictures, splits.
LAYOUTS: dict[str, tuple[dict[str, str], tuple[str, ...], tuple[str, ...]]] = {
    "Label Studio": (
        {
            "classes.txt": NAMES,
            "notes.json": '{"categories": [{"id": 0, "name": "cat"}, {"id": 1, "name": "dog"}]}',
            "labels/ab12cd34-one.txt": ROW,
        },
        ("images/ab12cd34-one.png",),
        (),
    ),
    "Label Studio, own pictures": (
        {
            "notes.json": '{"categories": [{"id": 0, "name": "cat"}, {"id": 1, "name": "dog"}]}',
            "labels/ab12cd34-one.txt": ROW,
        },
        ("images/one.png",),
        (),
    ),
    "Darknet": (
        {
            "obj.data": DATA,
            "obj.names": NAMES,
            "train.txt": "data/obj_train_data/a.png\n",
            "test.txt": "data/obj_valid_data/b.png\n",
            "obj_train_data/a.txt": ROW,
            "obj_valid_data/b.txt": ROW,
        },
        ("obj_train_data/a.png", "obj_valid_data/b.png"),
        ("train", "valid"),
    ),
    "CVAT without lists": (
        {"obj.names": NAMES, "obj_train_data/a.txt": ROW, "obj_valid_data/b.txt": ROW},
        ("obj_train_data/a.png", "obj_valid_data/b.png"),
        ("train", "valid"),
    ),
    "Roboflow's Darknet": (
        {
            "train/_darknet.labels": NAMES,
            "valid/_darknet.labels": NAMES,
            "train/a.txt": ROW,
            "valid/b.txt": ROW,
        },
        ("train/a.png", "valid/b.png"),
        ("train", "valid"),
    ),
    "side by side": ({"classes.txt": NAMES, "a.txt": ROW, "b.txt": ROW}, ("a.png", "b.png"), ()),
    "split, then kind": (
        {"classes.txt": NAMES, "train/labels/a.txt": ROW, "val/labels/b.txt": ROW},
        ("train/images/a.png", "val/images/b.png"),
        ("train", "val"),
    ),
    "kind, then split": (
        {"labels/train/classes.txt": NAMES, "labels/train/a.txt": ROW, "labels/val/b.txt": ROW},
        ("images/train/a.png", "images/val/b.png"),
        ("train", "val"),
    ),
    "in capitals": ({"classes.txt": NAMES, "Labels/Train/a.TXT": ROW}, ("images/train/a.png",), ("train",)),
    "with both endings": ({"classes.txt": NAMES, "labels/a.png.txt": ROW}, ("images/a.png",), ()),
    "VOC's folder": ({"classes.txt": NAMES, "labels/a.txt": ROW}, ("JPEGImages/a.png",), ()),
    "another folder": ({"classes.txt": NAMES, "labels/a.txt": ROW}, ("photos/a.png",), ()),
    "images twice": (
        {"classes.txt": NAMES, "labels/train/a.txt": ROW},
        ("images/train/images/a.png",),
        ("train",),
    ),
    "data.yaml below": (
        {"my/set/data.yaml": "train: images/train\nnames: [cat, dog]\n", "my/set/labels/train/a.txt": ROW},
        ("my/set/images/train/a.png",),
        ("train",),
    ),
}


@pytest.mark.parametrize("name", list(LAYOUTS))
def test_layouts(tmp_path: Path, name: str) -> None:
    texts, pictures, splits = LAYOUTS[name]
    for file, content in texts.items():
        text(tmp_path / file, content)
    for file in pictures:
        picture(tmp_path / file)
    data = opened(tmp_path)
    assert (data.classes, list_splits(tmp_path), data.problems) == (("cat", "dog"), splits, ())
    assert sorted(record.path for record in data.records) == sorted(tmp_path / file for file in pictures)
    for record in data.records:
        np.testing.assert_allclose(record.boxes, [BOX], atol=1e-4)
        assert data.classes[record.labels[0]] == "dog" and record.source.read_text() == ROW
    for split in splits:
        (record,) = opened(tmp_path, split).records
        assert split in str(record.path.relative_to(tmp_path))
    assert len({record.image_id for record in data.records}) == len(pictures)


def test_ids_are_paths(tmp_path: Path) -> None:
    for name in ("day", "night"):
        picture(tmp_path / name / "a.png")
        text(tmp_path / name / "a.txt")
    assert [record.image_id for record in opened(tmp_path).records] == ["day/a.png", "night/a.png"]


def test_labels_with_a_byte_order_mark(tmp_path: Path) -> None:
    picture(tmp_path / "a.png")
    text(tmp_path / "a.txt", f"\ufeff{ROW}")
    data = opened(tmp_path)
    np.testing.assert_allclose(data.records[0].boxes, [BOX], atol=1e-4)


def test_without_class_names(tmp_path: Path) -> None:
    picture(tmp_path / "a.png")
    text(tmp_path / "a.txt", ROW + ROW.replace("1", "3", 1))
    data = opened(tmp_path)
    assert data.classes == ("0", "1", "2", "3") and data.records[0].labels.tolist() == [1, 3]
    assert (
        reasons(data)[0].startswith("warning: no file names the classes") and "4 classes" in reasons(data)[0]
    )


def test_without_class_names_a_huge_number_is_a_fault(tmp_path: Path) -> None:
    picture(tmp_path / "a.png")
    label = text(tmp_path / "a.txt", ROW + ROW.replace("1", "99999999999", 1))
    data = opened(tmp_path)
    assert data.classes == ("0", "1")
    (problem,) = (problem for problem in data.problems if problem.severity == "error")
    assert (problem.file, problem.place) == (label, "line 2") and "class 99999999999 is not" in problem.reason


def test_class_beyond_the_names(tmp_path: Path) -> None:
    picture(tmp_path / "a.png")
    label = text(tmp_path / "a.txt", ROW + ROW.replace("1", "3", 1))
    names = text(tmp_path / "classes.txt", NAMES)
    (problem,) = opened(tmp_path).problems
    assert (problem.severity, problem.file, problem.place) == ("error", label, "line 2")
    assert f"class 3 is not among the 2 classes of {names}" in problem.reason


def test_the_nearest_class_names_count(tmp_path: Path) -> None:
    for folder, names in (("one", "cat\ndog\n"), ("two", "dog\ncat\n")):
        picture(tmp_path / folder / "a.png")
        text(tmp_path / folder / "a.txt")
        text(tmp_path / folder / "classes.txt", names)
    data = opened(tmp_path)
    assert data.classes == ("cat", "dog")
    assert [data.classes[record.labels[0]] for record in data.records] == ["dog", "cat"]
    assert data.facts["class_numbers"] == {}, "1 is a dog here and a cat there"
    picture(tmp_path / "three/b.png")
    text(tmp_path / "three/b.txt")
    with pytest.raises(DataError, match="other class names than"):
        opened(tmp_path)


def test_class_names_are_given_once(tmp_path: Path) -> None:
    text(tmp_path / "a.txt")
    picture(tmp_path / "a.png")
    text(tmp_path / "classes.txt", "cat\ncat\n")
    with pytest.raises(DataError, match=r"classes\.txt: has the class name 'cat' twice"):
        opened(tmp_path)


def test_without_class_names_numbers_may_be_written_as_floats(tmp_path: Path) -> None:
    picture(tmp_path / "a.png")
    text(tmp_path / "a.txt", "2.000000 0.5 0.5 0.5 0.2\n1e400 0.5 0.5 0.5 0.2\n")
    picture(tmp_path / "b.png")
    text(tmp_path / "b.txt", "2.000000 0.5 0.5 0.5 0.2\n")
    data = opened(tmp_path)
    assert data.classes == ("0", "1", "2") and [r.labels.tolist() for r in data.records] == [[2]]
    (problem,) = (problem for problem in data.problems if problem.severity == "error")
    assert problem.place == "line 2"


@pytest.mark.parametrize("with_yaml", [True, False])
@pytest.mark.parametrize("row", ["0 0.5 0.5 1.2 0.3\n", "cat 0.5 0.5 0.2 0.3\n", "no labels\n"])
def test_a_faulty_first_row_with_pictures_in_a_given_folder(
    tmp_path: Path, row: str, with_yaml: bool
) -> None:
    for name in "ab":
        picture(tmp_path / f"pics/train/{name}.png")
    label = text(tmp_path / "set/labels/train/b.txt", row)
    text(tmp_path / "set/labels/train/a.txt")
    text(tmp_path / "set/classes.txt", NAMES)
    text(tmp_path / "set/labels/train/readme.txt", "words")
    if with_yaml:
        text(tmp_path / "set/data.yaml", "train: images/train\nnames: [cat, dog]\n")
    data = open_data(tmp_path / "set", "train", None, tmp_path / "pics")
    assert [record.path.name for record in data.records] == ["a.png"]
    (problem,) = data.problems
    assert (problem.severity, problem.file, problem.place) == ("error", label, "line 1")


def test_faulty_labels_of_no_picture_are_named(tmp_path: Path) -> None:
    picture(tmp_path / "images/a.png")
    text(tmp_path / "labels/a.txt")
    text(tmp_path / "labels/b.txt", "cat 0.5 0.5 0.2 0.3\n")
    text(tmp_path / "labels/c.txt", "0 0.5 0.5 1.2 0.3\n")
    text(tmp_path / "labels/readme.txt", "what is here: labels\n")
    text(tmp_path / "classes.txt", NAMES)
    (note,) = reasons(opened(tmp_path))
    assert "2 label files belong to no image" in note and "b.txt" in note


def test_labels_without_pictures(tmp_path: Path) -> None:
    text(tmp_path / "labels/train/ab12cd34-a.txt")
    text(tmp_path / "labels/train/b.txt")
    text(tmp_path / "labels/classes.txt", NAMES)
    with pytest.raises(DataError, match="none of its label files has a picture of the same name"):
        opened(tmp_path / "labels")
    for name in ("a.png", "c.png"):
        picture(tmp_path / "pictures/x" / name)
    data = open_data(tmp_path / "labels", "train", None, tmp_path / "pictures")
    assert [(record.image_id, record.boxes.tolist()) for record in data.records] == [("x/a.png", [BOX])]
    missing, left = data.problems
    assert missing.severity == "error" and missing.file.name == "b.jpg"
    assert "1 of 2 pictures have no labels" in left.reason and "c.png" in left.reason


def test_yaml_with_pictures_in_a_given_folder(tmp_path: Path) -> None:
    file = text(tmp_path / "set/data.yaml", "train: images/train\nval: images/val\nnames: [cat, dog]\n")
    for split in ("train", "val"):
        text(tmp_path / f"set/labels/{split}/{split}.txt")
        picture(tmp_path / f"pictures/{split}.png")
    data = open_data(file, "val", None, tmp_path / "pictures")
    assert [(record.path.name, len(record.boxes)) for record in data.records] == [("val.png", 1)]


@pytest.mark.parametrize(
    ("stated", "folder"),
    [
        ("../valid/images", "valid"),
        ("images/val2017", "val2017"),
        ("images/val2017", "val"),
        ("images/val", "validation"),
        ("[../test/images, ../valid/images]", "valid"),
        ("pictures/held_out", "val"),
    ],
)
def test_the_labels_of_a_yaml_lie_in_folders_that_are_called_alike(
    tmp_path: Path, stated: str, folder: str
) -> None:
    file = text(tmp_path / "set/data.yaml", f"train: ../train/images\nval: {stated}\nnames: [cat, dog]\n")
    for split in ("train", folder):
        text(tmp_path / f"set/{split}/labels/{split}.txt")
        picture(tmp_path / f"pictures/{split}.png")
    found = {
        split: [record.path.stem for record in open_data(file, split, None, tmp_path / "pictures").records]
        for split in ("train", "val")
    }
    assert found == {"train": ["train"], "val": [folder]}


def test_a_split_of_a_yaml_takes_the_labels_of_the_folder_that_it_states(tmp_path: Path) -> None:
    """Not of another that is called alike: trainval beside train, or val if its pictures lie in test."""
    paths = "train: train/images\nval: test/images\ntest: test/images\n"
    file = text(tmp_path / "set/data.yaml", f"{paths}names: [cat, dog]\n")
    for folder in ("train", "trainval", "val", "test"):
        text(tmp_path / f"set/{folder}/labels/{folder}.txt")
        picture(tmp_path / f"pictures/{folder}.png")
    for split, folder in (("train", "train"), ("val", "test"), ("test", "test")):
        (record,) = open_data(file, split, None, tmp_path / "pictures").records
        assert record.path.stem == folder


@pytest.mark.parametrize("split", ["val", None])
def test_a_split_of_a_yaml_without_a_folder_of_labels(tmp_path: Path, split: str | None) -> None:
    file = text(tmp_path / "set/data.yaml", "train: images/train\nval: images/held\nnames: [cat, dog]\n")
    for folder in ("train", "held"):
        text(tmp_path / f"set/labels/{folder}/{folder}.txt")
        picture(tmp_path / f"pictures/{folder}.png")
    with pytest.raises(DataError, match="no label file lies in a folder called val") as caught:
        open_data(file, split, None, tmp_path / "pictures")
    assert (caught.value.file, caught.value.place) == (file, "val")
    left = reasons(open_data(file, "train", None, tmp_path / "pictures"))
    assert any("1 label files belong to no image" in note and "held.txt" in note for note in left)


@pytest.mark.parametrize("named", [True, False])
def test_lists_of_one_name_in_several_folders(tmp_path: Path, named: bool) -> None:
    """Exports side by side, each with its own train.txt, with the same names of pictures."""
    for folder in "ab":
        for name in ("1", "2"):
            picture(tmp_path / folder / f"obj_train_data/{name}.png")
            text(tmp_path / folder / f"obj_train_data/{name}.txt")
        text(tmp_path / folder / "train.txt", "data/obj_train_data/1.png\ndata/obj_train_data/2.png\n")
        text(tmp_path / folder / "obj.names", NAMES)
        if named:
            text(tmp_path / folder / "obj.data", DATA)
    data = opened(tmp_path, "train")
    assert [record.image_id for record in data.records] == [
        f"{folder}/obj_train_data/{name}.png" for folder in "ab" for name in "12"
    ]
    assert [record.source for record in data.records] == [
        record.path.with_suffix(".txt") for record in data.records
    ]
    assert list_splits(tmp_path) == ("train",) and data.problems == ()


def test_one_list_of_several_is_named_by_an_obj_data(tmp_path: Path) -> None:
    for folder, name in (("a", "1"), ("b", "2"), ("b", "3")):
        picture(tmp_path / folder / f"{name}.png")
        text(tmp_path / folder / f"{name}.txt")
    text(tmp_path / "a/train.txt", "1.png\n")
    text(tmp_path / "b/mine.txt", "2.png\n")
    text(tmp_path / "b/test.txt", "3.png\n")  # beside an obj.data that does not name it
    text(tmp_path / "b/obj.data", "classes = 2\nvalid = /home/eve/b/mine.txt\n")
    text(tmp_path / "classes.txt", NAMES)
    assert list_splits(tmp_path) == ("train", "valid")
    assert [record.image_id for record in opened(tmp_path, "train").records] == ["a/1.png"]
    data = opened(tmp_path, "valid")
    assert [record.image_id for record in data.records] == ["b/2.png"]
    (note,) = reasons(data)
    assert "1 pictures have labels but are in no split or list" in note and "b/3.png" in note


def test_an_obj_data_means_the_list_in_the_folders_that_it_states(tmp_path: Path) -> None:
    for folder in ("data", "other"):
        picture(tmp_path / folder / f"{folder}.png")
        text(tmp_path / folder / f"{folder}.txt")
        text(tmp_path / folder / "train.txt", f"{folder}.png\n")
    text(tmp_path / "cfg/obj.data", "classes = 2\nvalid = data/train.txt\n")
    text(tmp_path / "cfg/obj.names", NAMES)
    found = {split: [r.image_id for r in opened(tmp_path, split).records] for split in ("train", "valid")}
    assert found == {"train": ["other/other.png"], "valid": ["data/data.png"]}


def test_labelled_pictures_in_no_split_are_named(tmp_path: Path) -> None:
    for name in ("train/a", "rest/b", "rest/c"):
        picture(tmp_path / f"images/{name}.png")
        text(tmp_path / f"labels/{name}.txt")
    picture(tmp_path / "images/rest/empty.png")
    text(tmp_path / "data.yaml", "train: images/train\nnames: [cat, dog]\n")
    without, apart = reasons(opened(tmp_path))
    assert "1 of 4 pictures have no labels" in without and "empty.png" in without
    assert "2 pictures have labels but are in no split" in apart and "rest/b.png" in apart


def test_what_is_not_used_is_named(tmp_path: Path) -> None:
    for name in ("a", "b"):
        picture(tmp_path / f"images/{name}.png")
        text(tmp_path / f"labels/{name}.txt")
    picture(tmp_path / "images/empty.png")
    picture(tmp_path / "docs/logo.png")
    text(tmp_path / "labels/orphan.txt")
    text(tmp_path / "labels/orphan2.txt", "")
    text(tmp_path / "notes/readme.txt", "words")
    (tmp_path / "images/x.psd").touch()
    (tmp_path / "images/gone.png").symlink_to("nowhere")
    picture(tmp_path / "images/.ipynb_checkpoints/a-checkpoint.png")
    text(tmp_path / "classes.txt", NAMES)
    data = opened(tmp_path)
    assert len(data) == 3
    background, picture_left, odd, link, labels = reasons(data)
    assert (
        "1 of 3 pictures have no label file and are backgrounds" in background and "empty.png" in background
    )
    assert "1 of 4 pictures have no labels" in picture_left and "logo.png" in picture_left
    assert "1 .psd" in odd and "1 links" in link
    assert "2 label files belong to no image" in labels and "orphan.txt" in labels


YAML = "train: images/train\nval: images/val\nnames: [cat, dog]\n"


def test_yaml_of_another_machine(tmp_path: Path) -> None:
    for split in ("train", "valid"):
        picture(tmp_path / split / "images/a.png")
        text(tmp_path / split / "labels/a.txt")
    paths = 'path: /content/drive/set\ntrain: ../train/images\nval: "C:\\\\users\\\\set\\\\valid\\\\images"\n'
    file = text(tmp_path / "data.yaml", f"{paths}names: [cat, dog]\n")
    data = opened(tmp_path)
    assert sorted(record.path.parent.parent.name for record in data.records) == ["train", "valid"]
    assert [problem.place for problem in data.problems] == ["train", "val"]
    assert all(f"{tmp_path}" in problem.reason and problem.file == file for problem in data.problems)


def test_list_of_another_machine(tmp_path: Path) -> None:
    for name in ("a", "b"):
        picture(tmp_path / f"images/{name}.png")
        text(tmp_path / f"labels/{name}.txt")
    text(tmp_path / "train.txt", "/home/eve/images/a.png\nC:\\x\\images\\b.png\n./images/b.png\n")
    text(tmp_path / "data.yaml", "train: train.txt\nnames: [cat, dog]\n")
    data = opened(tmp_path)
    assert [record.path.name for record in data.records] == ["a.png", "b.png"]
    moved, again = reasons(data)
    assert (
        "2 of its pictures were found elsewhere" in moved and "1 of its images are listed more than" in again
    )


def test_a_list_with_a_line_that_is_no_path(tmp_path: Path) -> None:
    picture(tmp_path / "images/a.png")
    text(tmp_path / "train.txt", "images/a.png\n" + "x" * 5000 + "\n")
    text(tmp_path / "data.yaml", "train: train.txt\nnames: [cat, dog]\n")
    data = opened(tmp_path)
    assert len(data) == 1 and "cannot be opened" in data.problems[1].reason


@pytest.mark.parametrize("line", ["gone/b.png", "gone/images/train/b.png", "/nowhere/b.png"])
def test_a_list_of_pictures_in_a_folder_that_is_gone(tmp_path: Path, line: str) -> None:
    picture(tmp_path / "images/a.png")
    text(tmp_path / "labels/a.txt")
    text(tmp_path / "train.txt", f"images/a.png\n{line}\n")
    text(tmp_path / "data.yaml", "train: train.txt\nnames: [cat, dog]\n")
    data = opened(tmp_path)
    assert [len(record.boxes) for record in data.records] == [1]
    (problem,) = data.problems
    assert problem.file == tmp_path / line and problem.reason.startswith("the image file is missing; restore")


@pytest.mark.parametrize("line", ["images/a.png/b.png", "x" * 300 + "/b.png"])
def test_a_list_of_pictures_in_what_can_be_no_folder(tmp_path: Path, line: str) -> None:
    picture(tmp_path / "images/a.png")
    text(tmp_path / "labels/a.txt")
    text(tmp_path / "train.txt", f"images/a.png\n{line}\n")
    text(tmp_path / "data.yaml", "train: train.txt\nnames: [cat, dog]\n")
    (problem,) = opened(tmp_path).problems
    assert problem.severity == "error" and "cannot be opened" in problem.reason


def test_labels_beside_pictures_in_a_folder_called_images(tmp_path: Path) -> None:
    picture(tmp_path / "images/train/a.png")
    label = text(tmp_path / "images/train/a.txt")
    text(tmp_path / "data.yaml", "train: images/train\nnames: [cat, dog]\n")
    data = opened(tmp_path)
    assert data.records[0].source == label and len(data.records[0].boxes) == 1
    assert reasons(data) == [
        f"warning: 1 label files are used that YOLO itself would not find, the first is {label}"
    ]


def test_a_split_without_a_label_file(tmp_path: Path) -> None:
    for split in ("train", "val"):
        picture(tmp_path / f"images/{split}/{split}.png")
    text(tmp_path / "labels/val/val.txt")
    text(tmp_path / "labels/val/other.txt")
    text(tmp_path / "data.yaml", YAML)
    none, unused = reasons(opened(tmp_path, "train"))
    assert "none of the 1 images has a label file" in none and "labels/train/train.txt" in none
    assert "1 label files belong to no image" in unused and "other.txt" in unused  # not val.txt


def test_two_pictures_of_one_label_file(tmp_path: Path) -> None:
    for name in ("a.png", "a.jpg"):
        picture(tmp_path / "images/train" / name)
    text(tmp_path / "labels/train/a.txt")
    text(tmp_path / "data.yaml", "train: images/train\nnames: [cat, dog]\n")
    assert "1 label files are of several pictures" in reasons(opened(tmp_path))[0]


SHAPES = {
    "polygon": ("0 0.1 0.1 0.2 0.1 0.2 0.5", [20, 10, 40, 50], "polygon"),
    "oriented": ("0 0.5 0.2 0.6 0.5 0.5 0.8 0.4 0.5", [80, 20, 120, 80], "oriented box"),
}


@pytest.mark.parametrize("name", list(SHAPES))
def test_shapes_become_boxes(tmp_path: Path, name: str) -> None:
    row, box, kind = SHAPES[name]
    picture(tmp_path / "images/train/a.png")
    text(tmp_path / "labels/train/a.txt", row)
    text(tmp_path / "data.yaml", "train: images/train\nnames: [cat, dog]\n")
    data = opened(tmp_path)
    np.testing.assert_allclose(data.records[0].boxes, [box], atol=1e-4)
    assert reasons(data) == [f"warning: 1 {kind} was taken as their bounding boxes"]


def test_points_of_a_pose_are_no_polygon(tmp_path: Path) -> None:
    picture(tmp_path / "images/train/a.png")
    text(tmp_path / "labels/train/a.txt", ROW.strip() + " 0.9 0.9 0.1 0.1\n")
    text(tmp_path / "data.yaml", "train: images/train\nnames: [cat, dog]\nkpt_shape: [2, 2]\n")
    data = opened(tmp_path)
    np.testing.assert_allclose(data.records[0].boxes, [BOX], atol=1e-4)

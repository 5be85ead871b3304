"""Lists such as train.txt without a data.yaml: which texts are lists, and which picture a line means."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import pytest
from annotated import messages, picture, text

from fssd.data.sample import DataSet
from fssd.data.source import list_splits, open_data

ROW = "0 0.3 0.3 0.2 0.2\n"
ROW_OF_DOG = "1 0.3 0.3 0.2 0.2\n"


def lay(root: Path, *names: str) -> None:
    """Pictures, each with a label below labels/ for images/, else beside it; and the class names."""
    for name in names:
        picture(root / name)
        text((root / name.replace("images/", "labels/")).with_suffix(".txt"), ROW)
    text(root / "classes.txt", "cat\ndog\n")


def stems(data: DataSet) -> list[str]:
    return [record.path.stem for record in data.records]


def opened(root: Path) -> dict[str, list[str]]:
    return {split: stems(open_data(root, split)) for split in list_splits(root)}


@pytest.mark.parametrize(
    ("lists", "encoding"),
    [
        ({"train.txt": "a\nb\n", "val.txt": "c\n"}, "utf-8"),
        ({"ImageSets/Main/train.txt": "a\nb\n", "ImageSets/Main/val.txt": "c\n"}, "utf-8"),
        ({"train.txt": "images/a.png\r\nimages/b.png\r\n", "val.txt": "images/c.png\r\n"}, "utf-16"),
        ({"train.txt": "a\r\nb\r\n", "val.txt": "c\r\n"}, "utf-16"),
        ({"train_list.txt": "images/a.png\nimages/b.png\n", "val_list.txt": "images/c.png\n"}, "utf-8"),
        ({"train2017.txt": "./images/a.png\n./images/b.png\n", "val2017.txt": "./images/c.png\n"}, "utf-8"),
        ({"train_files.txt": "a.png\nb.png\n", "val_files.txt": "c.png\n"}, "utf-8"),
        ({"trainval.txt": "images/a.png\nimages/b.png\n", "test.txt": "images/c.png\n"}, "utf-8"),
        ({"training.txt": "images/a.png\nimages/b.png\n", "validation.txt": "images/c.png\n"}, "utf-8"),
    ],
)
def test_lists_are_splits(tmp_path: Path, lists: Mapping[str, str], encoding: str) -> None:
    lay(tmp_path, "images/a.png", "images/b.png", "images/c.png")
    for name, content in lists.items():
        file = text(tmp_path / name, "")
        file.write_bytes(content.encode(encoding))
    splits = [Path(name).stem.removesuffix("_list").removesuffix("_files") for name in lists]
    assert opened(tmp_path) == dict(zip(splits, (["a", "b"], ["c"]), strict=True))
    data = open_data(tmp_path)
    assert sorted(stems(data)) == ["a", "b", "c"] and data.problems == ()


def test_a_missing_name_in_a_list_of_names(tmp_path: Path) -> None:
    lay(tmp_path, "images/a.png", "images/b.png")
    text(tmp_path / "train.txt", "a\nb\ngone\n")
    assert opened(tmp_path) == {"train": ["a", "b"]}
    (error,) = messages(open_data(tmp_path), "error")
    assert "the image file is missing" in error and open_data(tmp_path).problems[-1].file.stem == "gone"


@pytest.mark.parametrize(
    "content", ["D:\\数据\\images\\a.png\n".encode("gbk"), b"labels/a.txt\nlabels/b.txt\n", b"x\ny\na\n"]
)
def test_a_list_that_is_not_used_is_named(tmp_path: Path, content: bytes) -> None:
    lay(tmp_path, "images/a.png", "images/b.png", "images/train_9.png")
    text(tmp_path / "labels/train_8.txt", "")
    text(tmp_path / "labels/train_9.txt", "0 0.3 0.3 0.2 0.2 0.9\n")  # faulty labels are no list
    file = text(tmp_path / "val.txt", "")
    file.write_bytes(content)
    assert list_splits(tmp_path) == ()
    notes = messages(open_data(tmp_path), "warning")
    (note,) = (note for note in notes if "called like" in note)
    assert "1 texts are called like lists of a split" in note and f"{file}" in note


def test_lists_are_not_used_with_pictures_of_another_folder(tmp_path: Path) -> None:
    for name in "ab":
        picture(tmp_path / f"pics/{name}.png")
        text(tmp_path / f"set/labels/{name}.txt", ROW)
    text(tmp_path / "set/classes.txt", "cat\n")
    file = text(tmp_path / "set/train.txt", "a\n")
    notes = messages(open_data(tmp_path / "set", None, None, tmp_path / "pics"), "warning")
    assert any("1 texts are called like lists" in note and f"{file}" in note for note in notes)


def test_a_picture_of_several_lists_is_read_once(tmp_path: Path) -> None:
    lay(tmp_path, "images/a.png", "images/b.png")
    for name, content in {"train": "a\n", "val": "b\n", "trainval": "a\nb\n"}.items():
        text(tmp_path / f"{name}.txt", content)
    assert opened(tmp_path) == {"train": ["a"], "val": ["b"], "trainval": ["a", "b"]}
    data = open_data(tmp_path)
    assert stems(data) == ["a", "b"]
    assert [
        "2 pictures are in several of its lists and are used once" in note
        for note in messages(data, "warning")
    ]


@pytest.mark.parametrize("own", ["val", "cam2"])
def test_a_missing_picture_is_not_that_of_another_folder(tmp_path: Path, own: str) -> None:
    lay(tmp_path, "images/train/1.png", "images/train/2.png", f"images/{own}/3.png")
    text(tmp_path / f"labels/{own}/1.txt", ROW_OF_DOG)
    text(tmp_path / "train.txt", "images/train/2.png\n")
    text(tmp_path / "val.txt", f"images/{own}/1.png\nimages/{own}/3.png\n")
    data = open_data(tmp_path, "val")
    assert stems(data) == ["3"] and data.facts["images"] == 2
    (error,) = (problem for problem in data.problems if problem.severity == "error")
    assert error.file == tmp_path / f"images/{own}/1.png" and "the image file is missing" in error.reason


def test_a_missing_picture_is_not_that_of_another_split(tmp_path: Path) -> None:
    """Also where no folder of the split is there."""
    lay(tmp_path, "images/train/1.png", "images/train/2.png")
    text(tmp_path / "train.txt", "images/train/2.png\n")
    text(tmp_path / "val.txt", "/home/eve/images/val/1.png\n")
    data = open_data(tmp_path, "val")
    assert stems(data) == [] and len(messages(data, "error")) == 1


def test_of_lines_that_could_mean_one_picture_the_one_with_its_folder_does(tmp_path: Path) -> None:
    lay(tmp_path, "a/1.png")
    text(tmp_path / "train.txt", "/data/b/1.png\n/data/a/1.png\n")
    data = open_data(tmp_path, "train")
    assert [record.path for record in data.records] == [tmp_path / "a/1.png"]
    (error,) = (problem for problem in data.problems if problem.severity == "error")
    assert error.file == Path("/data/b/1.png")


def test_lines_that_could_equally_mean_one_picture(tmp_path: Path) -> None:
    lay(tmp_path, "c/1.png", "c/2.png")
    text(tmp_path / "train.txt", "/data/a/1.png\n/data/b/1.png\nc/2.png\n")
    data = open_data(tmp_path, "train")
    assert stems(data) == ["2"] and len(messages(data, "error")) == 2


def test_names_of_one_pool_of_pictures(tmp_path: Path) -> None:
    """A folder called train can be all there is, of which the lists name parts."""
    lay(tmp_path, "train/1.png", "train/2.png")
    text(tmp_path / "train.txt", "1.png\n")
    text(tmp_path / "val.txt", "2.png\n")
    assert opened(tmp_path) == {"train": ["1"], "val": ["2"]}
    assert open_data(tmp_path).problems == ()


def test_names_in_the_folder_of_their_split(tmp_path: Path) -> None:
    lay(tmp_path, "images/train/1.png", "images/val/1.png")
    for split in ("train", "val"):
        text(tmp_path / f"lists/{split}.txt", "1\n")
        (record,) = open_data(tmp_path, None if split == "train" else split).records
        assert record.path.parent.name == split


def test_pictures_found_elsewhere_are_counted(tmp_path: Path) -> None:
    lay(tmp_path, "images/a.png", "images/b.png")
    text(tmp_path / "train.txt", "D:\\x\\pics\\a.png\nD:\\x\\images\\b.png\n")
    data = open_data(tmp_path, "train")
    assert stems(data) == ["a", "b"]
    (note,) = messages(data, "warning")
    assert "1 pictures of its lists were found elsewhere than stated" in note and "a.png" in note

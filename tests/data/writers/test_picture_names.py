"""Names of pictures: safe, in their folders, each once."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from fssd.data.sample import background_record
from fssd.data.writers import WRITERS
from fssd.data.writers.picture_names import PictureNames


def names(to: str, **splits: list[tuple[str, str]]) -> list[str]:
    """The names for pairs of an image id and a path."""
    records = {
        split: [background_record(image_id, Path(path)) for image_id, path in pairs]
        for split, pairs in splits.items()
    }
    return [file.as_posix() for files in PictureNames(WRITERS[to]).name(records).values() for file in files]


def test_ids_with_folders() -> None:
    pairs = [("night/one", "/in/JPEGImages/night/one.jpg"), ("two", "/in/JPEGImages/two.jpg")]
    assert names("voc", train=pairs) == ["JPEGImages/night/one.jpg", "JPEGImages/two.jpg"]
    assert names("yolo", train=pairs) == ["images/train/night/one.jpg", "images/train/two.jpg"]
    assert names("createml", train=pairs) == ["train/night_one.jpg", "train/two.jpg"]


def test_ids_that_are_no_paths() -> None:
    train, val = [("1", "/in/train2017/night/a.jpg")], [("1", "/in/val2017/b.jpg")]
    expected = ["images/train2017/night/a.jpg", "images/val2017/b.jpg"]
    assert names("coco", train2017=train, val2017=val) == expected


@pytest.mark.parametrize("folder", ["test", "images", "Labels", "runs", ".hidden/..x", "fold1"])
def test_folders_that_would_mislead_readers(folder: str) -> None:
    (name, other) = names("labelme", fold1=[("1", f"/in/a/{folder}/one.jpg"), ("2", "/in/b/two.jpg")])
    expected = "fold1/a/hidden/x/one.jpg" if "hidden" in folder else "fold1/a/one.jpg"
    assert (name, other) == (expected, "fold1/b/two.jpg")


def test_collisions() -> None:
    pairs = [("1", "/in/a/test/x.jpg"), ("2", "/in/a/x.jpg"), ("3", "/in/a/X.JPG"), ("4", "/in/a/x.png")]
    assert names("coco", all=pairs) == [
        "images/all/x.jpg",
        "images/all/x-2.jpg",
        "images/all/X-3.JPG",
        "images/all/x.png",
    ]
    # Of formats with a label file for each picture, x.jpg and x.png would have the same.
    assert names("labelme", all=pairs) == ["all/x.jpg", "all/x-2.jpg", "all/X-3.JPG", "all/x-4.png"]


def test_splits_in_one_folder() -> None:
    train, val = [("x", "/in/train/x.jpg")], [("x", "/in/val/x.jpg")]
    assert names("voc", train=train, val=val) == ["JPEGImages/x.jpg", "JPEGImages/val/x.jpg"]
    assert names("voc", train=train, trainval=train + val) == [
        "JPEGImages/x.jpg",
        "JPEGImages/x.jpg",
        "JPEGImages/trainval/x.jpg",
    ]


def test_a_picture_that_one_split_lists_twice() -> None:
    pairs = [("1:x", "/in/x.jpg"), ("2:x", "/in/x.jpg")]
    assert names("voc", train=pairs) == ["JPEGImages/x.jpg", "JPEGImages/train/x.jpg"]
    assert names("labelme", train=pairs) == ["train/x.jpg", "train/x-2.jpg"]


def test_characters() -> None:
    assert names("cvat", all=[("1", "/in/a\\b\n .jpg"), ("2", "/in/.c.jpg"), ("3", "/in/ü, & 'x'.jpg")]) == [
        "images/all/a_b_.jpg",
        "images/all/c.jpg",
        "images/all/ü, & 'x'.jpg",
    ]


@pytest.mark.parametrize("odd", ["\u2028", "\u2029", "\x85", "\x9c", "\x0b", "\x1e"])
def test_characters_that_end_a_line(odd: str) -> None:
    assert names("voc", all=[("1", f"/in/a{odd}b.jpg")]) == ["JPEGImages/a_b.jpg"]


@pytest.mark.parametrize("space", [" ", "\u00a0", "\u3000", "\u2003"])
def test_space_around_a_name_that_stands_in_a_list(space: str) -> None:
    pairs = [("1", f"/in/a{space}.jpg"), ("2", f"/in/{space}b.jpg"), ("3", f"/in/c{space}d.jpg")]
    expected = ["JPEGImages/a.jpg", "JPEGImages/b.jpg", f"JPEGImages/c{space}d.jpg"]
    assert names("voc", all=pairs) == expected
    assert names("voc", all=[("1", f"/in/.{space}.e.jpg")]) == ["JPEGImages/e.jpg"]


def test_suffix_of_the_content_where_the_name_has_none(
    tmp_path: Path, make_picture: Callable[..., Path]
) -> None:
    picture = make_picture(tmp_path / "a.png").rename(tmp_path / "picture")
    assert names("voc", all=[("1", str(picture))]) == ["JPEGImages/picture.png"]

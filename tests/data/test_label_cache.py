"""Labels of large data sets are kept, and read again whenever anything about them has changed."""

from __future__ import annotations

import json
import os
from collections.abc import Callable, Sequence
from dataclasses import fields, replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import yaml

from fssd.data import label_cache
from fssd.data.formats.coco import COCO
from fssd.data.formats.csv_boxes import CSV
from fssd.data.formats.reader import Reader
from fssd.data.formats.voc import VOC
from fssd.data.formats.yolo import YOLO
from fssd.data.label_cache import read_labels
from fssd.data.sample import DataSet, Record
from fssd.data.source import open_data
from fssd.errors import DataError
from fssd.storage.cache_folder import cache_folder

OLD = 1_500_000_000  # seconds; long before the test
JPEG = bytes.fromhex(  # the header of a JPEG of 100 x 80
    "ffd8ffe000104a46494600010100000100010000ffc00011080050006403012200021101031101ffd9"
)


@pytest.fixture(autouse=True)
def small_and_own(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Keeps sets of two images, in a folder of the test, also if files are as young as those of a test."""
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    monkeypatch.setattr(label_cache, "LEAST_IMAGES", 2)
    monkeypatch.setattr(label_cache, "_SETTLED", -(10**18))


def kept_folder() -> Path:
    return cache_folder() / "labels"


def counted(reader: Reader) -> tuple[Reader, list[str | None]]:
    """The reader, and the splits it was really asked for."""
    asked: list[str | None] = []

    def read(root: Path, split: str | None, classes: Sequence[str] | None, images: Path | None) -> DataSet:
        asked.append(split)
        return reader.read(root, split, classes, images)

    return replace(reader, read=read), asked


def voc(root: Path) -> Path:
    for name in ("Annotations", "JPEGImages", "ImageSets/Main"):
        (root / name).mkdir(parents=True)
    for name, kind, corner in (("a", "dog", 90), ("b b", "cat", 130), ("c", "cat", 50), ("faulty", "cat", 1)):
        corners = f"<xmin>1</xmin><ymin>2</ymin><xmax>{corner}</xmax><ymax>60</ymax>"
        item = f"<object><name>{kind}</name><difficult>1</difficult><bndbox>{corners}</bndbox></object>"
        size = "<size><width>100</width><height>80</height></size>"
        items = item if name != "c" else item * 3
        (root / f"Annotations/{name}.xml").write_text(f"<annotation>{size}{items}</annotation>")
        (root / f"JPEGImages/{name}.jpg").write_bytes(JPEG)
    (root / "ImageSets/Main/train.txt").write_text("a\nb b\nc\nfaulty\n")
    (root / "ImageSets/Main/val.txt").write_text("a\nc\n")
    return root


def coco(root: Path) -> Path:
    (root / "annotations").mkdir(parents=True)
    (root / "train").mkdir()
    notes = [
        {"id": 1, "image_id": 7, "category_id": 3, "bbox": [1, 2, 30.5, 40], "area": 500.25, "iscrowd": 1},
        {"id": 2, "image_id": 7, "category_id": 9, "bbox": [5, 5, 10, 10], "area": 70},
        {"id": 3, "image_id": 8, "category_id": 9, "bbox": [5, 5, 10, 10]},
    ]
    content = {
        "images": [{"id": i, "file_name": f"{i}.jpg", "width": 100, "height": 80} for i in (7, 8)]
        + [{"id": 9, "file_name": "9.jpg"}],
        "annotations": notes,
        "categories": [{"id": 3, "name": "dög"}, {"id": 9, "name": "cat"}],
    }
    (root / "annotations/instances_train.json").write_text(json.dumps(content))
    for name in (7, 8, 9):
        (root / f"train/{name}.jpg").write_bytes(JPEG)
    return root


def yolo(root: Path) -> Path:
    for name in ("images", "labels"):
        (root / name).mkdir(parents=True)
    for name in ("a", "b"):
        (root / f"images/{name}.jpg").write_bytes(JPEG)
        (root / f"labels/{name}.txt").write_text("0 .5 .5 .2 .2\n")
    file = root / "data.yaml"
    file.write_text(yaml.safe_dump({"path": ".", "train": "images", "names": ["dog"]}))
    return file


def assert_equal(one: DataSet, other: DataSet) -> None:
    """The same values of the same types."""
    assert (one.classes, one.problems, one.facts) == (other.classes, other.problems, other.facts)
    assert {key: type(value) for key, value in one.facts.items()} == {
        key: type(value) for key, value in other.facts.items()
    }
    assert len(one) == len(other)
    for mine, theirs in zip(one.records, other.records, strict=True):
        for field in fields(Record):
            a, b = getattr(mine, field.name), getattr(theirs, field.name)
            assert type(a) is type(b), field.name
            np.testing.assert_array_equal(a, b)
            assert getattr(a, "dtype", None) == getattr(b, "dtype", None), field.name


@pytest.mark.parametrize(("reader", "make"), [(VOC, voc), (COCO, coco), (YOLO, yolo)])
def test_the_second_time_is_as_the_first(
    reader: Reader, make: Callable[[Path], Path], tmp_path: Path
) -> None:
    root = make(tmp_path / "data")
    counting, asked = counted(reader)
    expected = reader.read(root, "train", None, None)
    assert len(expected) >= 2
    for _ in range(3):
        assert_equal(read_labels(counting, root, "train", None), expected)
    assert asked == ["train"]


def test_problems_and_facts_are_kept(tmp_path: Path) -> None:
    root = voc(tmp_path / "data")
    first, again = open_data(root, "train"), open_data(root, "train")
    assert list(kept_folder().iterdir())
    assert [problem.severity for problem in again.problems] == ["warning", "error"]
    assert_equal(again, first)
    assert open_data(coco(tmp_path / "coco")).facts["category_ids"] == (3, 9)


def change_label(root: Path) -> None:
    file = root / "Annotations/a.xml"
    file.write_text(file.read_text().replace("dog", "cow"))  # as many bytes


def same_size_and_time(root: Path) -> None:
    file = root / "Annotations/a.xml"
    times = file.stat()
    change_label(root)
    os.utime(file, ns=(times.st_atime_ns, times.st_mtime_ns))


def new_label(root: Path) -> None:
    (root / "Annotations/d.xml").write_text((root / "Annotations/a.xml").read_text().replace("dog", "cow"))


CHANGES: dict[str, Callable[[Path], object]] = {
    "a label": change_label,
    "a label, with its old time": same_size_and_time,
    "a new label": new_label,
    "a label is gone": lambda root: (root / "Annotations/c.xml").unlink(),
    "a picture is gone": lambda root: (root / "JPEGImages/a.jpg").unlink(),
    "a picture has another name": lambda root: (root / "JPEGImages/a.jpg").rename(root / "JPEGImages/a.png"),
    "the list": lambda root: (root / "ImageSets/Main/train.txt").write_text("c\n\na\n"),
}


@pytest.mark.parametrize("change", CHANGES)
def test_a_change_is_seen(change: str, tmp_path: Path) -> None:
    root = voc(tmp_path / "data")
    before = open_data(root, "train")
    CHANGES[change](root)
    expected = VOC.read(root, "train", None, None)
    with pytest.raises(AssertionError):
        assert_equal(before, expected)
    assert_equal(open_data(root, "train"), expected)


def test_a_table_of_classes_beside_the_folder(tmp_path: Path) -> None:
    root = tmp_path / "data"
    root.mkdir()
    for name in ("a", "b"):
        (root / f"{name}.jpg").write_bytes(JPEG)
    rows = "".join(f"{name},/m/1,0.1,0.5,0.1,0.5\n" for name in ("a", "b"))  # of Open Images
    (root / "labels.csv").write_text(f"ImageID,LabelName,XMin,XMax,YMin,YMax\n{rows}")
    for name in ("cat", "cow"):
        (tmp_path / "class-descriptions.csv").write_text(f"/m/1,{name}\n")
        expected = CSV.read(root, None, None, None)
        assert expected.classes == (name,)
        for _ in range(2):
            assert_equal(open_data(root), expected)
    assert len(list(kept_folder().iterdir())) == 1


def test_a_change_behind_a_link_is_seen(tmp_path: Path) -> None:
    real, root = voc(tmp_path / "real"), tmp_path / "data"
    root.mkdir()
    for name in ("Annotations", "JPEGImages", "ImageSets"):
        (root / name).symlink_to(real / name)
    (root / "around").symlink_to(root)  # a circle
    (root / "broken").symlink_to(root / "nothing")
    assert "dog" in open_data(root, "train").classes
    assert len(list(kept_folder().iterdir())) == 1
    change_label(real)
    assert "cow" in open_data(root, "train").classes


def test_each_question_has_its_own_answer(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    root = voc(tmp_path / "data")
    for _ in range(2):
        assert len(open_data(root, "train")) == 3
        assert len(open_data(root, "val")) == 2
        assert open_data(root, "val", ["dog", "cat"]).classes == ("dog", "cat")
        assert open_data(root, "val", ["cat", "dog"]).classes == ("cat", "dog")
    monkeypatch.chdir(tmp_path)
    assert open_data(Path("data"), "val").records[0].path == Path("data/JPEGImages/a.jpg")
    counting, asked = counted(VOC)
    monkeypatch.setattr(label_cache, "_code", lambda: "another version")
    read_labels(counting, root, "val", None)
    assert asked == ["val"]


def test_pictures_that_can_be_decoded_now_are_found(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """As with a newer pillow or with pillow_heif: what was left out is read."""
    counting, asked = counted(VOC)
    root = voc(tmp_path / "data")
    for _ in range(2):
        read_labels(counting, root, "val", None)
    assert asked == ["val"]
    monkeypatch.setattr(label_cache, "IMAGE_EXTENSIONS", label_cache.IMAGE_EXTENSIONS | {".new"})
    read_labels(counting, root, "val", None)
    assert asked == ["val", "val"]


def test_damage_anywhere_gives_the_right_labels(tmp_path: Path) -> None:
    root = voc(tmp_path / "data")
    expected = open_data(root, "train")
    (file,) = kept_folder().iterdir()
    whole = file.read_bytes()
    for start in range(0, len(whole), 61):
        file.write_bytes(
            whole[:start] + bytes(255 - byte for byte in whole[start : start + 4]) + whole[start + 4 :]
        )
        assert_equal(open_data(root, "train"), expected)


@pytest.mark.parametrize("content", [b"", b"PK\x03\x04 no archive"])
def test_a_damaged_cache_is_read_past(content: bytes, tmp_path: Path) -> None:
    root = voc(tmp_path / "data")
    expected = open_data(root, "train")
    (file,) = kept_folder().iterdir()
    file.write_bytes(content)
    counting, asked = counted(VOC)
    assert_equal(read_labels(counting, root, "train", None), expected)
    assert_equal(read_labels(counting, root, "train", None), expected)
    assert asked == ["train"], "it is written anew"


def test_a_cache_that_cannot_be_written_is_no_error(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "file").touch()
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "file"))
    assert len(open_data(voc(tmp_path / "data"), "train")) == 3


def test_small_sets_and_files_that_just_changed_are_not_kept(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    root = voc(tmp_path / "data")
    monkeypatch.setattr(label_cache, "LEAST_IMAGES", 4)
    open_data(root, "train")
    monkeypatch.setattr(label_cache, "LEAST_IMAGES", 2)
    monkeypatch.setattr(label_cache, "_SETTLED", 10**18)
    open_data(root, "train")
    assert not kept_folder().exists()


def test_a_folder_with_much_else_in_it_is_not_kept(tmp_path: Path) -> None:
    root = voc(tmp_path / "data")
    (root / "runs").mkdir()
    for number in range(20):
        (root / "runs" / f"{number}").touch()
    open_data(root, "train")
    assert not kept_folder().exists()


def test_labels_that_depend_on_files_elsewhere_are_not_kept(tmp_path: Path) -> None:
    file = yolo(tmp_path / "deep" / "down" / "set" / "data")
    moved = tmp_path / "data.yaml"
    moved.write_text(yaml.safe_dump({"path": str(file.parent), "train": "images", "names": ["dog"]}))
    assert len(open_data(moved, "train")) == 2
    assert kept_folder().exists()
    elsewhere = tmp_path / "deep" / "down" / "other" / "folder" / "far" / "data.yaml"
    elsewhere.parent.mkdir(parents=True)
    elsewhere.write_text(moved.read_text())
    listing = file.parent / "train.txt"
    listing.write_text("images/a.jpg\nimages/b.jpg\n")
    kept = len(list(kept_folder().iterdir()))
    open_data(elsewhere, "train")
    elsewhere.write_text(elsewhere.read_text().replace("train: images", f"train: {listing}"))
    open_data(elsewhere, "train")
    assert len(list(kept_folder().iterdir())) == kept


def test_joined_sources_are_kept_one_by_one(tmp_path: Path) -> None:
    voc(tmp_path / "voc")
    coco(tmp_path / "coco")
    file = tmp_path / "joined.yaml"
    file.write_text(yaml.safe_dump({"sources": [{"data": "voc"}, {"data": "coco"}]}))
    first = open_data(file, "train")
    assert len(list(kept_folder().iterdir())) == 2
    assert_equal(open_data(file, "train"), first)


def test_the_folder_is_bounded(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    roots = [voc(tmp_path / f"data{number}") for number in range(3)]
    for number, root in enumerate(roots):
        known = set(kept_folder().glob("*")) if number else set()
        open_data(root, "train")
        (new,) = set(kept_folder().glob("*")) - known
        os.utime(new, (OLD + number, OLD + number))
        size = new.stat().st_size
    open_data(roots[0], "train")  # used last now
    monkeypatch.setattr(label_cache, "MOST_BYTES", 3 * size + 10)
    open_data(voc(tmp_path / "data3"), "train")
    counting, asked = counted(VOC)
    for root in (roots[0], roots[2], tmp_path / "data3"):
        read_labels(counting, root, "train", None)
    assert asked == []
    read_labels(counting, roots[1], "train", None)
    assert asked == ["train"]


def test_errors_of_the_reader_stay_errors(tmp_path: Path) -> None:
    root = voc(tmp_path / "data")
    for _ in range(2):
        with pytest.raises(DataError, match="no split 'test'"):
            open_data(root, "test")


def test_values_that_would_come_back_otherwise_are_not_kept(tmp_path: Path) -> None:
    root = voc(tmp_path / "data")

    def read(*arguments: Any) -> DataSet:
        data = VOC.read(*arguments)
        return replace(data, facts={**data.facts, "numbers": {1: 2}})  # JSON has texts as keys

    for _ in range(2):
        assert read_labels(replace(VOC, read=read), root, "train", None).facts["numbers"] == {1: 2}
    assert not kept_folder().exists()

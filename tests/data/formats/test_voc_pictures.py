"""Which picture an xml file of Pascal VOC gets: its own, one that it names, or none."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

import pytest

from fssd.data.formats.voc import VOC, read_voc
from fssd.data.sample import DataSet
from fssd.data.source import open_data

OBJECT = (
    "<object><name>cat</name><bndbox>"
    "<xmin>5</xmin><ymin>6</ymin><xmax>20</xmax><ymax>30</ymax></bndbox></object>"
)


def lay(root: Path, labels: Mapping[str, str], pictures: Sequence[str]) -> None:
    """Xml files by path, with the names of pictures that they state, and empty pictures."""
    for name in (*labels, *pictures):
        (root / name).parent.mkdir(parents=True, exist_ok=True)
    for name, stated in labels.items():
        size = "<size><width>64</width><height>48</height></size>"
        filename = f"<filename>{stated}</filename>" if stated else ""
        (root / name).write_text(f"<annotation>{filename}{size}{OBJECT}</annotation>")
    for name in pictures:
        (root / name).touch()


def pairs(data: DataSet, root: Path) -> dict[str, str]:
    names = [(record.source, record.path) for record in data.records]
    return {str(source.relative_to(root)): str(path.relative_to(root)) for source, path in names}


def errors(data: DataSet) -> list[tuple[Path, str]]:
    return [(item.file, item.reason) for item in data.problems if item.severity == "error"]


Layout = tuple[dict[str, str], list[str], dict[str, str]]
SEVERAL: dict[str, Layout] = {
    "beside": ({"a.xml": "a.png"}, ["a.jpg", "a.png"], {"a.xml": "a.png"}),
    "capitals": ({"xml/a.xml": "a.JPG"}, ["images/a.JPG", "images/a.png"], {"xml/a.xml": "images/a.JPG"}),
    "other capitals": (
        {"xml/a.xml": "A.PNG"},
        ["images/a.jpg", "images/a.png"],
        {"xml/a.xml": "images/a.png"},
    ),
    "not stated": ({"xml/a.xml": ""}, ["images/a.JPG", "images/a.png"], {"xml/a.xml": "images/a.JPG"}),
    "by stated name": (
        {"xml/1.xml": "a.png"},
        ["images/a.jpg", "images/a.png"],
        {"xml/1.xml": "images/a.png"},
    ),
    "in a folder": (
        {"xml/a.xml": "a.png"},
        ["images/x/a.jpg", "images/x/a.png"],
        {"xml/a.xml": "images/x/a.png"},
    ),
    "whole names": (
        {"xml/a.jpg.xml": "a.jpg", "xml/a.png.xml": "a.png"},
        ["img/a.jpg", "img/a.png"],
        {"xml/a.jpg.xml": "img/a.jpg", "xml/a.png.xml": "img/a.png"},
    ),
    "whole name and stem": (
        {"xml/a.jpg.xml": "", "xml/a.xml": ""},
        ["img/a.jpg", "img/a.png"],
        {"xml/a.jpg.xml": "img/a.jpg", "xml/a.xml": "img/a.png"},
    ),
}


@pytest.mark.parametrize("layout", SEVERAL)
def test_of_several_pictures_the_stated_one(tmp_path: Path, layout: str) -> None:
    labels, pictures, expected = SEVERAL[layout]
    lay(tmp_path, labels, pictures)
    assert pairs(read_voc(tmp_path, None), tmp_path) == expected


MISSING: dict[str, tuple[dict[str, str], list[str], str, str]] = {
    "another folder has one without labels": (
        {"xml/cam2/1.xml": "1.jpg", "xml/cam2/2.xml": "2.jpg"},
        ["images/cam1/1.jpg", "images/cam2/2.jpg"],
        "xml/cam2/1.xml",
        "images/cam2/1.jpg",
    ),
    "another folder has labels and one without": (
        {"xml/cam1/2.xml": "2.jpg", "xml/cam2/1.xml": "1.jpg"},
        ["images/cam1/1.jpg", "images/cam1/2.jpg"],
        "xml/cam2/1.xml",
        "images/1.jpg",
    ),
    "another folder has one": (
        {"Annotations/cam1/1.xml": "1.jpg", "Annotations/cam2/1.xml": "1.jpg"},
        ["JPEGImages/cam1/1.jpg"],
        "Annotations/cam2/1.xml",
        "JPEGImages/1.jpg",
    ),
    "another split has one": (
        {"Annotations/train/a.xml": "a.jpg", "Annotations/val/b.xml": "", "Annotations/val/a.xml": ""},
        ["JPEGImages/train/a.jpg", "JPEGImages/val/b.jpg"],
        "Annotations/val/a.xml",
        "JPEGImages/val/a.jpg",
    ),
    "another split has one without labels": (
        {"Annotations/val/b.xml": "", "Annotations/val/a.xml": ""},
        ["JPEGImages/train/a.jpg", "JPEGImages/val/b.jpg"],
        "Annotations/val/a.xml",
        "JPEGImages/val/a.jpg",
    ),
}


@pytest.mark.parametrize("layout", MISSING)
def test_a_picture_is_not_lent(tmp_path: Path, layout: str) -> None:
    labels, pictures, missing, where = MISSING[layout]
    lay(tmp_path, labels, pictures)
    data = read_voc(tmp_path, None)
    assert set(pairs(data, tmp_path)) == labels.keys() - {missing}
    ((file, reason),) = errors(data)
    assert file == tmp_path / where and "the image file is missing" in reason


RIVALS: dict[str, tuple[dict[str, str], set[str]]] = {
    "of its own": ({"xml/b.xml": "b.jpg", "xml/x.xml": "b.jpg"}, {"xml/b.xml"}),
    "of its whole name": ({"xml/b.jpg.xml": "", "xml/b.xml": "b.jpg"}, {"xml/b.jpg.xml"}),
    "of two others": ({"xml/c.xml": "b.jpg", "xml/x.xml": "b.jpg", "xml/q.xml": "q.jpg"}, {"xml/q.xml"}),
}


@pytest.mark.parametrize("layout", RIVALS)
def test_a_picture_has_one_xml_file(tmp_path: Path, layout: str) -> None:
    labels, expected = RIVALS[layout]
    lay(tmp_path, labels, ["images/b.jpg", "images/q.jpg"])
    data = read_voc(tmp_path, None)
    assert set(pairs(data, tmp_path)) == expected
    assert {file for file, _ in errors(data)} == {tmp_path / name for name in labels.keys() - expected}
    assert all(
        f"{tmp_path / 'images/b.jpg'} is that of another xml file" in reason for _, reason in errors(data)
    )


def test_a_picture_of_the_training_split_is_not_in_val(tmp_path: Path) -> None:
    lay(tmp_path, {"Annotations/b.xml": "b.jpg", "Annotations/x.xml": "b.jpg"}, ["JPEGImages/b.jpg"])
    (tmp_path / "ImageSets/Main").mkdir(parents=True)
    for split, name in (("train", "b"), ("val", "x")):
        (tmp_path / "ImageSets/Main" / f"{split}.txt").write_text(name)
    assert pairs(read_voc(tmp_path, "train"), tmp_path) == {"Annotations/b.xml": "JPEGImages/b.jpg"}
    data = read_voc(tmp_path, "val")
    assert not data.records and errors(data)[0][0] == tmp_path / "Annotations/x.xml"


def test_pictures_of_another_split_are_not_given(tmp_path: Path) -> None:
    lay(tmp_path, {"own/train/xml/a.xml": "", "own/val/xml/b.xml": ""}, ["pics/val/a.jpg", "pics/val/b.jpg"])
    data = open_data(tmp_path / "own", None, None, tmp_path / "pics")
    assert pairs(data, tmp_path) == {"own/val/xml/b.xml": "pics/val/b.jpg"}
    assert len(errors(data)) == 1


APART: dict[str, tuple[list[str], list[str], str]] = {
    "flat labels": (["a.xml", "b.xml"], ["train/a.jpg", "val/b.jpg"], "train, val"),
    "in a part": (["test/c.xml", "a.xml", "b.xml"], ["c.jpg", "train/a.jpg", "val/b.jpg"], "train, val"),
    "of the labels": (["train/a.xml", "val/b.xml"], ["train/a.jpg", "val/b.jpg"], ""),
    "one": (["a.xml", "b.xml"], ["train/a.jpg", "train/b.jpg"], ""),
    "none": (["a.xml", "b.xml"], ["x/a.jpg", "y/b.jpg"], ""),
    "lists": (["a.xml", "b.xml", "trainval.txt"], ["train/a.jpg", "val/b.jpg"], ""),
}


@pytest.mark.parametrize("layout", APART)
def test_splits_that_the_given_pictures_alone_tell_are_named(tmp_path: Path, layout: str) -> None:
    labels, pictures, told = APART[layout]
    lay(tmp_path / "labels", dict.fromkeys(labels, ""), [])
    lay(tmp_path / "pics", {}, pictures)
    for file in (tmp_path / "labels").glob("*.txt"):
        file.write_text("a\nb\n")
    data = open_data(tmp_path / "labels", None, None, tmp_path / "pics")
    notes = [item for item in data.problems if "called like splits" in item.reason]
    assert len(data) == len(pictures) and len(notes) == bool(told)
    for note in notes:
        assert (note.severity, note.file) == ("warning", tmp_path / "pics")
        assert f"({told})" in note.reason


LENT: dict[str, Layout] = {
    "a stated path": (
        {"xml/night/a.xml": "day/a.jpg"},
        ["images/day/a.jpg"],
        {"xml/night/a.xml": "images/day/a.jpg"},
    ),
    "one of a deeper folder": (
        {"xml/x/a.xml": ""},
        ["images/x/y/a.jpg"],
        {"xml/x/a.xml": "images/x/y/a.jpg"},
    ),
    "a folder of xml": (
        {"annotations/xmls/a.xml": ""},
        ["images/a.jpg"],
        {"annotations/xmls/a.xml": "images/a.jpg"},
    ),
    "folders of splits": (
        {"xml/xmls/a.xml": ""},
        ["images/val/a.jpg"],
        {"xml/xmls/a.xml": "images/val/a.jpg"},
    ),
    "of one that cannot be decoded": (
        {"xml/a.xml": "b.heic"},
        ["images/b.heic"],
        {"xml/a.xml": "images/b.heic"},
    ),
}


@pytest.mark.parametrize("layout", LENT)
def test_a_picture_is_lent(tmp_path: Path, layout: str) -> None:
    labels, pictures, expected = LENT[layout]
    lay(tmp_path, labels, pictures)
    data = read_voc(tmp_path, None)
    assert pairs(data, tmp_path) == expected and data.problems == ()


def test_a_picture_of_a_folder_called_otherwise_is_named(tmp_path: Path) -> None:
    lay(tmp_path, {"xml/one/a.xml": "a.jpg"}, ["images/two/a.jpg"])
    data = read_voc(tmp_path, None)
    assert pairs(data, tmp_path) == {"xml/one/a.xml": "images/two/a.jpg"}
    (note,) = data.problems
    assert note.severity == "warning" and "1 pictures were found by name" in note.reason
    assert str(tmp_path / "images/two/a.jpg") in note.reason


def test_the_stated_picture_tells_the_split(tmp_path: Path) -> None:
    lay(
        tmp_path,
        {"xml/1.xml": "a.jpg", "xml/2.xml": "b.jpg"},
        ["images/train/a.jpg", "images/val/b.jpg"],
    )
    assert VOC.splits(tmp_path) == ("train", "val")
    assert pairs(read_voc(tmp_path, "val"), tmp_path) == {"xml/2.xml": "images/val/b.jpg"}


NAMELESS = {
    "root": "/",
    "parent": "..",
    "long": "x" * 260 + ".jpg",
    "address": "http://h/a.jpg?" + "x=1&amp;" * 90,
}


@pytest.mark.parametrize("name", NAMELESS)
def test_a_name_that_no_file_can_have_costs_its_image_alone(tmp_path: Path, name: str) -> None:
    lay(tmp_path, {"b.xml": "b.jpg", "z.xml": NAMELESS[name]}, ["b.jpg", "w.jpg"])
    data = open_data(tmp_path)
    assert pairs(data, tmp_path) == {"b.xml": "b.jpg"}
    ((_, reason),) = errors(data)
    assert "the image file is missing" in reason


def test_a_link_in_a_circle_is_no_folder(tmp_path: Path) -> None:
    lay(tmp_path, {"a.xml": ""}, ["a.jpg"])
    for name in ("loop.yaml", "images", "loop.xml"):
        (tmp_path / name).symlink_to(name)
    assert pairs(open_data(tmp_path), tmp_path) == {"a.xml": "a.jpg"}

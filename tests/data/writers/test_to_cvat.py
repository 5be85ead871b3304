"""CVAT's files, read by ElementTree and json alone."""

from __future__ import annotations

import json
from pathlib import Path
from xml.etree import ElementTree

from fssd.data.writers.convert import convert_data


def test_files(source: Path, tmp_path: Path) -> None:
    convert_data(source, "cvat", tmp_path / "out")
    root = ElementTree.parse(tmp_path / "out/annotations.xml").getroot()
    assert (root.tag, root.findtext("version")) == ("annotations", "1.1")
    names = ['a "quoted" <dog> & co', "斑馬, plains", "empty class", "ant"]
    assert [item.findtext("name") for item in root.findall("meta/project/labels/label")] == names
    assert [item.text for item in root.iterfind("meta/project/tasks/task/subset")] == ["train", "val"]
    stated = root.findall("meta/project/labels/label/attributes/attribute")
    assert {(item.findtext("name"), item.findtext("input_type")) for item in stated} == {
        ("difficult", "checkbox")
    }
    images = root.findall("image")
    assert [image.get("id") for image in images] == ["0", "1", "2", "3"]
    assert {(image.get("name"), image.get("subset")) for image in images} == {
        ("train/night/one.png", "train"),
        ("train/day/one.png", "train"),
        ("train/no object, & café's.png", "train"),
        ("val/night/one.png", "val"),
    }
    assert all((tmp_path / "out/images" / str(image.get("name"))).is_file() for image in images)
    (image,) = (image for image in images if image.get("name") == "train/night/one.png")
    assert (image.get("width"), image.get("height")) == ("100", "80")
    first, second = image.findall("box")
    assert [first.get(side) for side in ("xtl", "ytl", "xbr", "ybr")] == ["10.1", "20.3", "50.7", "60.9"]
    assert [second.get(side) for side in ("xtl", "ytl", "xbr", "ybr")] == ["0", "0", "100", "80"]
    assert (first.get("label"), first.get("occluded"), first.get("source")) == (names[0], "0", "manual")
    assert [(item.get("name"), item.text) for item in first] == [("difficult", "true")]
    assert list(second) == []
    labels = json.loads((tmp_path / "out/labels.json").read_text())
    assert [item["name"] for item in labels] == names
    assert [item["name"] for item in labels[0]["attributes"]] == ["difficult"]

"""VOC's files, read by ElementTree alone."""

from __future__ import annotations

from pathlib import Path
from xml.etree import ElementTree

from fssd.data.writers.convert import convert_data


def test_files(source: Path, tmp_path: Path) -> None:
    convert_data(source, "voc", tmp_path / "out")
    root = ElementTree.parse(tmp_path / "out/Annotations/night/one.xml").getroot()
    assert root.tag == "annotation"
    assert (root.findtext("folder"), root.findtext("filename")) == ("JPEGImages", "night/one.png")
    assert [root.findtext(f"size/{tag}") for tag in ("width", "height", "depth")] == ["100", "80", "3"]
    first, second = root.findall("object")
    assert first.findtext("name") == 'a "quoted" <dog> & co'
    assert (first.findtext("difficult"), second.findtext("difficult")) == ("1", "0")
    sides = ("xmin", "ymin", "xmax", "ymax")
    assert [first.findtext(f"bndbox/{side}") for side in sides] == ["10.1", "20.3", "50.7", "60.9"]
    assert [second.findtext(f"bndbox/{side}") for side in sides] == ["0", "0", "100", "80"]  # no 1 is added
    empty = ElementTree.parse(tmp_path / "out/Annotations/no object, & café's.xml").getroot()
    assert empty.findall("object") == []
    labels = (tmp_path / "out/labelmap.txt").read_text(encoding="utf-8").splitlines()
    assert labels[1] == 'a "quoted" <dog> & co:::' and labels[3:] == ["empty class:::", "ant:::"]
    sets = {file.name for file in (tmp_path / "out/ImageSets/Main").iterdir()}
    assert sets == {"train.txt", "val.txt"}

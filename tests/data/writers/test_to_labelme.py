"""LabelMe's files, read by json alone."""

from __future__ import annotations

import json
from pathlib import Path

from fssd.data.writers.convert import convert_data


def test_files(source: Path, tmp_path: Path) -> None:
    convert_data(source, "labelme", tmp_path / "out")
    content = json.loads((tmp_path / "out/train/night/one.json").read_text())
    assert (tmp_path / "out/train/night" / content["imagePath"]).is_file()
    assert (content["imageWidth"], content["imageHeight"], content["imageData"]) == (100, 80, None)
    assert content["flags"] == {} and content["version"].split(".")[0] == "5"
    first, second = content["shapes"]
    assert first == {
        "label": 'a "quoted" <dog> & co',
        "points": [[10.1, 20.3], [50.7, 60.9]],
        "group_id": None,
        "description": "",
        "shape_type": "rectangle",
        "flags": {"difficult": True},
        "mask": None,
    }
    assert (second["label"], second["flags"]) == ("斑馬, plains", {})
    empty = json.loads((tmp_path / "out/train/no object, & café's.json").read_text())
    assert empty["shapes"] == []
    names = (tmp_path / "out/labels.txt").read_text(encoding="utf-8")
    assert names == 'a "quoted" <dog> & co\n斑馬, plains\nempty class\nant\n'

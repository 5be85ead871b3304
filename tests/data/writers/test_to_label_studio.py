"""Label Studio's files, read by json alone: percent of an image of 100 x 80 that are worked out by hand."""

from __future__ import annotations

import json
from pathlib import Path
from urllib.parse import parse_qs, urlsplit
from xml.etree import ElementTree

import pytest

from fssd.data.writers.convert import convert_data


def test_files(source: Path, tmp_path: Path) -> None:
    convert_data(source, "label-studio", tmp_path / "out")
    tasks = json.loads((tmp_path / "out/train.json").read_text())
    urls = [urlsplit(task["data"]["image"]) for task in tasks]
    assert all(url.path == "/data/local-files/" for url in urls)
    files = [parse_qs(url.query)["d"][0] for url in urls]
    assert set(files) == {
        f"images/train/{name}.png" for name in ("night/one", "day/one", "no object, & café's")
    }
    assert all((tmp_path / "out" / file).is_file() for file in files)
    (annotation,) = tasks[files.index("images/train/night/one.png")]["annotations"]
    first, second = annotation["result"]
    assert first["type"] == "rectanglelabels"
    assert (first["original_width"], first["original_height"], first["image_rotation"]) == (100, 80, 0)
    assert first["value"].pop("rectanglelabels") == ['a "quoted" <dog> & co']
    # 10.1 of 100, 20.3 of 80, 40.6 of 100, 40.6 of 80
    expected = {"x": 10.1, "y": 25.375, "width": 40.6, "height": 50.75, "rotation": 0}
    assert first["value"] == pytest.approx(expected, abs=1e-6)
    assert second["value"]["width"] == second["value"]["height"] == 100
    assert first["id"] != second["id"]
    (empty,) = tasks[files.index("images/train/no object, & café's.png")]["annotations"]
    assert empty["result"] == []


def test_labeling_config(source: Path, tmp_path: Path) -> None:
    convert_data(source, "label-studio", tmp_path / "out")
    view = ElementTree.parse(tmp_path / "out/labeling_config.xml").getroot()
    image, control = view.find("Image"), view.find("RectangleLabels")
    assert image is not None and control is not None
    assert (image.get("name"), image.get("value"), control.get("toName")) == ("image", "$image", "image")
    assert [item.get("value") for item in control][2] == "empty class"
    tasks = json.loads((tmp_path / "out/val.json").read_text())
    (region, _) = tasks[0]["annotations"][0]["result"]
    assert (region["from_name"], region["to_name"]) == (control.get("name"), image.get("name"))

"""YOLO's files, read as text: shares of an image of 100 x 80 that are worked out by hand."""

from __future__ import annotations

from pathlib import Path

import pytest
import yaml

from fssd.data.source import list_splits
from fssd.data.writers import WRITERS
from fssd.data.writers.convert import convert_data
from fssd.errors import ConfigError


def test_files(source: Path, tmp_path: Path) -> None:
    convert_data(source, "yolo", tmp_path / "out")
    described = yaml.safe_load((tmp_path / "out/data.yaml").read_text(encoding="utf-8"))
    assert described == {
        "train": "images/train",
        "val": "images/val",
        "names": {0: 'a "quoted" <dog> & co', 1: "斑馬, plains", 2: "empty class", 3: "ant"},
    }
    first, second = (tmp_path / "out/labels/train/night/one.txt").read_text().splitlines()
    # (10.1 + 50.7) / 2 / 100, (20.3 + 60.9) / 2 / 80, (50.7 - 10.1) / 100, (60.9 - 20.3) / 80
    words = first.split()
    assert words[0] == "0"
    assert list(map(float, words[1:])) == pytest.approx([0.304, 0.5075, 0.406, 0.5075], abs=1e-9)
    assert second == "1 0.5 0.5 1 1"
    assert (tmp_path / "out/labels/train/no object, & café's.txt").read_text() == ""
    assert (tmp_path / "out/images/val/night/one.png").is_file()


@pytest.mark.parametrize(
    ("name", "expected"),
    [("train2017", "train"), ("valid", "val"), ("validation", "val"), ("Test", "test"), ("testing", "test")],
)
def test_names_of_splits(name: str, expected: str) -> None:
    assert WRITERS["yolo"].split(name) == expected


def test_splits_that_yolo_has_no_name_for(source: Path, tmp_path: Path) -> None:
    convert_data(source, "voc", tmp_path / "voc")
    sets = tmp_path / "voc" / "ImageSets" / "Main"
    (sets / "val.txt").rename(sets / "fold1.txt")
    with pytest.raises(ConfigError, match="'fold1' is none of them; choose with --splits"):
        convert_data(tmp_path / "voc", "yolo", tmp_path / "out")
    (sets / "fold1.txt").rename(sets / "training.txt")
    with pytest.raises(ConfigError, match="2 splits would be called 'train'"):
        convert_data(tmp_path / "voc", "yolo", tmp_path / "out")
    convert_data(tmp_path / "voc", "yolo", tmp_path / "out", splits=("training",))
    assert list_splits(tmp_path / "out") == ("train",)

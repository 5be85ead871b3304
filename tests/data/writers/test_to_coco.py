"""COCO's files, read by json alone."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from fssd.data.writers.convert import convert_data


def test_files(source: Path, tmp_path: Path) -> None:
    convert_data(source, "yolo", tmp_path / "yolo")  # whose ids are names, so that COCO's are new
    convert_data(tmp_path / "yolo", "coco", tmp_path / "out")
    train = json.loads((tmp_path / "out/annotations/instances_train.json").read_text())
    names = ['a "quoted" <dog> & co', "斑馬, plains", "empty class", "ant"]
    assert [(row["id"], row["name"]) for row in train["categories"]] == list(enumerate(names, 1))
    assert [row["id"] for row in train["images"]] == [1, 2, 3]
    assert all((row["width"], row["height"]) == (100, 80) for row in train["images"])
    keys = {row["file_name"]: row["id"] for row in train["images"]}
    assert set(keys) == {"night/one.png", "day/one.png", "no object, & café's.png"}
    assert all((tmp_path / "out/images/train" / name).is_file() for name in keys)
    assert [row["id"] for row in train["annotations"]] == [1, 2, 3]
    rows = [row for row in train["annotations"] if row["image_id"] == keys["night/one.png"]]
    assert [row["category_id"] for row in rows] == [1, 2]
    assert rows[0]["bbox"] == pytest.approx([10.1, 20.3, 40.6, 40.6], abs=1e-4)  # x, y, width, height
    assert rows[0]["area"] == pytest.approx(40.6 * 40.6, abs=1e-2)
    assert rows[1]["bbox"] == [0, 0, 100, 80] and rows[1]["area"] == 8000
    assert all(row["iscrowd"] == 0 and row["segmentation"] == [] for row in rows)


def test_flags_and_areas(source: Path, tmp_path: Path) -> None:
    convert_data(source, "coco", tmp_path / "out")
    train, val = (
        json.loads((tmp_path / f"out/annotations/instances_{split}.json").read_text())
        for split in ("train", "val")
    )
    assert [row["area"] for row in train["annotations"]] == [5.5, 5.5, 5.5]
    assert [row.get("difficult") for row in train["annotations"]] == [1, None, None]
    assert [row["iscrowd"] for row in val["annotations"]] == [1, 0]
    assert [row["id"] for row in val["categories"]] == [10, 20, 30, 40]  # as in the source

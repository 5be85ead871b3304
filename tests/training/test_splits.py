"""Splits of a run: found by their names, else chosen; trained images are not measured by accident."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest
import yaml

from fssd.config.train_config import TrainConfig
from fssd.data.division import read_division
from fssd.errors import ConfigError, DataError
from fssd.training.splits import name_splits, open_splits
from fssd.training.start import complete


@pytest.fixture
def train_alone(scenes: Path, tmp_path: Path) -> Path:
    """A data set of the 12 training scenes, without any other split."""
    return joined(tmp_path / "alone.yaml", scenes, {"train": "train"})


def joined(file: Path, scenes: Path, splits: dict[str, str]) -> Path:
    file.write_text(yaml.safe_dump({"sources": [{"data": str(scenes), "split": splits}]}))
    return file


def config(data: Path, out: Path, **changes: Any) -> TrainConfig:
    return complete(TrainConfig(data=data, out=out, iterations=1, **changes))


def test_names_of_the_data_set(scenes: Path, tmp_path: Path) -> None:
    named = name_splits(config(scenes, tmp_path))
    assert (named.train_split, named.val_split, named.val_share) == ("train", "val", None)
    splits = open_splits(config(scenes, tmp_path))
    assert splits.val is not None and splits.division is None
    assert (len(splits.train), len(splits.val)) == (12, 4)
    assert splits.config == named


def test_no_validation_split(train_alone: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    splits = open_splits(config(train_alone, tmp_path))
    assert splits.val is not None and splits.division is not None
    assert (splits.config.val_split, splits.config.val_share) == ("auto", 0.15)
    ids = [{record.image_id for record in side.records} for side in (splits.train, splits.val)]
    assert len(ids[0] | ids[1]) == 12 and not ids[0] & ids[1] and ids[1]
    told = capsys.readouterr().err
    assert "split train: 12 images" in told
    assert (
        f"evaluation on {len(ids[1])} of these images (--val-share 0.15), training on {len(ids[0])}" in told
    )


def test_a_share_instead_of_the_split_and_none(scenes: Path, train_alone: Path, tmp_path: Path) -> None:
    splits = open_splits(config(scenes, tmp_path, val_share=0.4))
    assert splits.val is not None and len(splits.train) + len(splits.val) == 12
    for changes in ({"val_share": 0.0}, {"val_split": "none"}):
        plain = open_splits(config(train_alone, tmp_path, **changes))
        assert (plain.val, plain.division, len(plain.train)) == (None, None, 12)
    every = open_splits(config(scenes, tmp_path, train_split="none", val_split="none"))
    assert len(every.train) == 16


def test_a_resumed_run_keeps_its_division(train_alone: Path, tmp_path: Path) -> None:
    first = open_splits(config(train_alone, tmp_path)).division
    assert first is not None
    val = min(first.train)
    content = {"seed": 0, "share": 0.15, "val": [val], "train": sorted((first.train | first.val) - {val})}
    (tmp_path / "division.json").write_text(json.dumps(content))
    kept = open_splits(config(train_alone, tmp_path), resume=True)
    assert kept.val is not None and [record.image_id for record in kept.val.records] == [val]
    assert open_splits(config(train_alone, tmp_path)).division == first, "of a new run"


def test_a_resumed_run_refuses_other_pictures(tmp_path: Path) -> None:
    """COCO's numbers may be of other pictures when the data set was exported again."""
    data = tmp_path / "data"
    data.mkdir()
    names = [f"{name}.png" for name in "abcdef"]
    for name in ("_new.png", *names):
        cv2.imwrite(str(data / name), np.zeros((48, 64, 3), np.uint8))

    def export(names: list[str]) -> None:
        images = [{"id": i, "file_name": n, "width": 64, "height": 48} for i, n in enumerate(names)]
        content = {"images": images, "annotations": [], "categories": [{"id": 1, "name": "dog"}]}
        (data / "_annotations.coco.json").write_text(json.dumps(content))

    export(names)
    out = tmp_path / "run"
    out.mkdir()
    first = open_splits(config(data, out)).division
    assert first is not None
    first.save(out)
    assert open_splits(config(data, out), resume=True).division == replace(first, notes=())
    export(["_new.png", *names])
    with pytest.raises(
        ConfigError, match=r"division.json: 6 of its images .*image 0 was a.png and is \S+_new.png"
    ):
        open_splits(config(data, out), resume=True)


def test_trained_images_are_measured_on_request_alone(scenes: Path, tmp_path: Path) -> None:
    data = joined(tmp_path / "same.yaml", scenes, {"train": "train", "val": "train+val"})
    with pytest.raises(ConfigError, match=r"12 of 16 images of the split .val. are trained .*--seen-images"):
        open_splits(config(data, tmp_path))
    splits = open_splits(config(data, tmp_path, seen_images=True))
    assert splits.val is not None and len(splits.val) == 16


def test_which_split_to_train_on_is_asked(scenes: Path, tmp_path: Path) -> None:
    data = joined(tmp_path / "odd.yaml", scenes, {"red": "train", "blue": "val"})
    with pytest.raises(DataError, match=r"no split to train on; splits here: blue, red; .*--train-split"):
        open_splits(config(data, tmp_path))
    assert len(open_splits(config(data, tmp_path, train_split="blue", val_split="red")).train) == 4


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"val_split": "val", "val_share": 0.2}, "--val-split or --val-share"),
        ({"val_split": "val", "folds": 3}, "--val-split or --folds"),
        ({"val_share": 0.2, "folds": 3}, "--val-share or --folds"),
        ({"folds": 3, "fold": 4}, "no fold 4 of 3"),
        ({"folds": 1}, "folds is 1"),
        ({"folds": 3}, "folds is 3, but a run validates on one of them; give --fold too, 1 to 3"),
        ({"val_share": 1.0}, "val_share is 1.0"),
    ],
)
def test_settings_that_exclude_each_other(tmp_path: Path, changes: dict[str, Any], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        config(tmp_path, tmp_path, **changes)


def test_no_division_no_file(tmp_path: Path) -> None:
    assert read_division(tmp_path) is None

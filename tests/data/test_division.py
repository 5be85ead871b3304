"""Images for validation: the same for ever, of every class, and never parted from their near-duplicates."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest

from fssd.data import groups
from fssd.data.division import divide, read_division
from fssd.data.groups import group_images
from fssd.data.sample import DataSet, Record
from fssd.errors import ConfigError, DataError


def photograph(seed: int) -> Any:
    noise = np.random.default_rng(seed).integers(0, 255, (12, 16, 3), np.uint8)
    return cv2.resize(noise, (64, 48), interpolation=cv2.INTER_CUBIC)


def dataset(folder: Path, labels: dict[str, Sequence[int]], looks: dict[str, int] | None = None) -> DataSet:
    """One image of each id with objects of these labels; ids with equal `looks` show one photograph."""
    records = []
    for number, (name, own) in enumerate(labels.items()):
        path = folder / f"{name}.png"
        path.parent.mkdir(parents=True, exist_ok=True)
        cv2.imwrite(str(path), photograph((looks or {}).get(name, 1000 + number)))
        boxes = np.tile(np.array([1, 1, 9, 9], np.float32), (len(own), 1))
        flags = np.zeros(len(own), bool)
        records.append(Record(name, path, path, 64, 48, boxes, np.array(own, np.int64), flags, flags))
    return DataSet(("cat", "dog", "cow"), tuple(records))


def test_share_is_about_what_was_asked_for_and_a_seed_chooses(tmp_path: Path) -> None:
    data = dataset(tmp_path, {f"{i:03}": [i % 2] for i in range(300)})
    division = divide(data, seed=0, share=0.15)
    assert division.train.isdisjoint(division.val)
    assert division.train | division.val == {record.image_id for record in data.records}
    # Binomial: 45 with a standard deviation of 6.2; three of them to each side.
    assert 26 <= len(division.val) <= 64
    assert divide(data, seed=0, share=0.15).val == division.val
    assert divide(data, seed=1, share=0.15).val != division.val


def test_adding_images_moves_none(tmp_path: Path) -> None:
    labels = {f"{i:03}": [i % 2] for i in range(200)}
    before = divide(dataset(tmp_path, labels), seed=3)
    after = divide(dataset(tmp_path, labels | {f"new{i:03}": [i % 2] for i in range(60)}), seed=3)
    assert before.val == {name for name in after.val if not name.startswith("new")}
    assert any(name.startswith("new") for name in after.val)


@pytest.mark.parametrize("seed", range(6))
def test_a_rare_class_is_on_both_sides(tmp_path: Path, seed: int) -> None:
    labels = {f"{i:02}": [0] for i in range(40)} | {"rare1": [0, 2], "rare2": [2], "single": [1]}
    division = divide(dataset(tmp_path, labels), seed)
    assert len({"rare1", "rare2"} & division.val) == 1
    # A class that one image has stays where the image is; all of them have to be somewhere.
    assert "single" in division.train | division.val


@pytest.mark.parametrize("seed", range(4))
def test_near_duplicates_stay_together(tmp_path: Path, seed: int) -> None:
    pairs = {f"{kind}{i}": [0] for i in range(20) for kind in "ab"}
    looks = {name: int(name[1:]) for name in pairs}
    division = divide(dataset(tmp_path, pairs, looks), seed)
    assert {f"b{name[1:]}" for name in division.val if name[0] == "a"} == {
        name for name in division.val if name[0] == "b"
    }


def test_frames_and_augmented_copies_stay_together(tmp_path: Path) -> None:
    names = [
        "one_frame_0001", "one_frame_0250", "two-frame-7", "deep/one_frame_0002",
        "walk_mp4-12_jpg.rf.0a1b2c", "walk_mp4-90_jpg.rf.ffee11", "cat_jpg.rf.aa11", "cat_jpg.rf.bb22",
        "plain_7", "plain_8", "IMG_0001", "IMG_0002",
    ]  # fmt: skip
    keys = dict(
        zip(names, group_images(dataset(tmp_path, {name: [0] for name in names}).records).keys, strict=True)
    )
    groups_of = {key: {name for name in names if keys[name] == key} for key in keys.values()}
    assert {frozenset(group) for group in groups_of.values()} == {
        frozenset(group)
        for group in (
            {"one_frame_0001", "one_frame_0250"}, {"two-frame-7"}, {"deep/one_frame_0002"},
            {"walk_mp4-12_jpg.rf.0a1b2c", "walk_mp4-90_jpg.rf.ffee11"},
            {"cat_jpg.rf.aa11", "cat_jpg.rf.bb22"},
            {"plain_7"}, {"plain_8"}, {"IMG_0001"}, {"IMG_0002"},
        )
    }  # fmt: skip


def test_one_film_is_cut_into_parts(tmp_path: Path) -> None:
    """A film that is all of the data cannot stay on one side; blocks of 25 frames do."""
    data = dataset(tmp_path, {f"frame_{i:04}": [0] for i in range(100)})
    keys = group_images(data.records).keys
    assert [len(set(keys[i : i + 25])) for i in (0, 25, 50, 75)] == [1, 1, 1, 1]
    assert len(set(keys)) == 4
    division = divide(data, seed=0)
    assert division.val and division.train


def test_images_that_all_look_alike_are_divided_with_a_note(tmp_path: Path) -> None:
    labels = {f"{i:02}": [0] for i in range(30)}
    division = divide(dataset(tmp_path, labels, dict.fromkeys(labels, 5)), seed=0)
    assert 1 <= len(division.val) <= 15
    assert "look alike" in division.notes[0]


def test_many_images_are_not_compared(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(groups, "MOST_COMPARED", 3)
    labels = {name: [0] for name in "abcd"}
    found = group_images(dataset(tmp_path, labels, {"a": 1, "b": 1}).records)
    assert found.keys == ("a", "b", "c", "d")
    assert "more than 3" in found.notes[0]


def test_folds_share_out_every_image_once_and_every_class(tmp_path: Path) -> None:
    labels = {f"{i:02}": [0] for i in range(30)} | {f"r{i}": [2] for i in range(6)}
    data = dataset(tmp_path, labels)
    parts = [divide(data, 0, folds=3, fold=fold).val for fold in (1, 2, 3)]
    assert sorted(name for part in parts for name in part) == sorted(labels)
    assert [len(part) for part in parts] == [12, 12, 12]
    assert [sum(name[0] == "r" for name in part) for part in parts] == [2, 2, 2]


def test_too_few_images(tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"1 usable images are 1 groups .* too few for 2 parts"):
        divide(dataset(tmp_path, {"a": [0]}), 0)
    with pytest.raises(DataError, match="too few for 3 parts"):
        divide(dataset(tmp_path, {"a": [0], "b": [0]}), 0, folds=3, fold=1)


def test_file(tmp_path: Path) -> None:
    division = divide(dataset(tmp_path, {f"{i}": [0] for i in range(10)}), 0)
    division.save(tmp_path)
    content = json.loads((tmp_path / "division.json").read_text())
    assert (content["seed"], content["share"], content["val"]) == (0, 0.15, sorted(division.val))
    read = read_division(tmp_path)
    assert read is not None and (read.train, read.val) == (division.train, division.val)
    assert read_division(tmp_path / "other") is None
    (tmp_path / "division.json").write_text("{")
    with pytest.raises(DataError, match=r"division.json: is damaged"):
        read_division(tmp_path)


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ({"share": 0.0}, "share is 0.0; it must be above 0 and below 1"),
        ({"share": 1.5}, "share is 1.5; it must be above 0 and below 1"),
        ({"share": float("nan")}, "share is nan"),
        ({"folds": 3}, "fold is 0 of 3 folds; it must be between 1 and 3"),
        ({"folds": 3, "fold": 4}, "fold is 4 of 3 folds"),
        ({"folds": -1, "fold": 1}, "fold is 1 of -1 folds"),
    ],
)
def test_shares_and_folds_that_are_none(tmp_path: Path, given: dict[str, Any], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        divide(dataset(tmp_path, {"a": [0], "b": [0], "c": [0]}), seed=0, **given)

"""Images for validation: the same for ever, of every class, and never parted from their near-duplicates."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest

from fssd.data import groups
from fssd.data.division import divide, read_division
from fssd.data.groups import group_images
from fssd.data.sample import DataSet, Record
from fssd.data.shards.write_shards import shard_data
from fssd.data.source import open_data
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


def numbered_set(folder: Path, names: Sequence[str]) -> Path:
    """A COCO data set, whose ids are numbers from 1; no two pictures look alike."""
    for number, name in enumerate(names, 1):
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        cv2.imwrite(str(folder / name), photograph(number))
    images = [{"id": i, "file_name": n, "width": 64, "height": 48} for i, n in enumerate(names, 1)]
    content = {"images": images, "annotations": [], "categories": [{"id": 1, "name": "dog"}]}
    (folder / "_annotations.coco.json").write_text(json.dumps(content))
    return folder


def groups_of(data: DataSet) -> set[frozenset[str]]:
    """The groups as names of pictures."""
    keys = group_images(data.records).keys
    pairs = list(zip(keys, data.records, strict=True))
    return {frozenset(r.path.name for own, r in pairs if own == key) for key in keys}


def test_pictures_of_one_film_stay_together_where_ids_are_numbers(tmp_path: Path) -> None:
    copies = [f"{animal}_jpg.rf.{letter}.png" for animal in ("cat", "dog", "cow") for letter in "abc"]
    frames = [f"walk_frame_{number}.png" for number in (1, 2, 300)]
    plain = [f"deep/{number}.png" for number in range(4)]
    data = open_data(numbered_set(tmp_path / "here", [*copies, *frames, *plain]))
    assert [record.image_id for record in data.records][:2] == ["1", "2"]
    expected = {frozenset(copies[i : i + 3]) for i in (0, 3, 6)} | {frozenset(frames)}
    assert groups_of(data) == expected | {frozenset({f"{number}.png"}) for number in range(4)}
    # The names of the groups, which decide their sides, stay where the data set is moved or becomes shards.
    keys = group_images(data.records).keys
    assert set(keys) == {"cat_jpg", "dog_jpg", "cow_jpg", "walk*", "deep/0", "deep/1", "deep/2", "deep/3"}
    shard_data(tmp_path / "here", tmp_path / "shards", shard_size=20_000)
    (tmp_path / "here").rename(tmp_path / "moved")
    for place in ("moved", "shards"):
        assert group_images(open_data(tmp_path / place).records).keys == keys
    assert len(list((tmp_path / "shards").glob("*.tar"))) > 1, "a film lies in several shards"


def test_films_of_joined_sets_stay_together(tmp_path: Path) -> None:
    """Frames that the other set has too get a prefix in their ids; the others of the film have none."""
    sources = []
    for name, frames in (("one", range(1, 4)), ("two", range(1, 8))):
        for frame in frames:
            path = tmp_path / name / f"walk_frame_{frame}.png"
            path.parent.mkdir(exist_ok=True)
            cv2.imwrite(str(path), photograph(100 * len(sources) + frame))
            path.with_suffix(".txt").write_text("0 .5 .5 .2 .2\n")
        (tmp_path / name / "classes.txt").write_text("dog\n")
        sources.append({"data": str(tmp_path / name)})
    for number in range(16):  # so that no film is most of the images
        path = tmp_path / "one" / f"{number}.png"
        cv2.imwrite(str(path), photograph(1000 + number))
        path.with_suffix(".txt").write_text("")
    (tmp_path / "joined.yaml").write_text(json.dumps({"sources": sources}))
    data = open_data(tmp_path / "joined.yaml")
    assert {"2:walk_frame_1.png", "walk_frame_7.png"} <= {record.image_id for record in data.records}
    keys = group_images(data.records).keys
    films = [
        {k for k, r in zip(keys, data.records, strict=True) if r.path.match(f"{p}/walk*")}
        for p in ("one", "two")
    ]
    assert [len(film) for film in films] == [1, 1]


def test_films_are_known_by_ids_too(tmp_path: Path) -> None:
    """As in VOC, where an xml may name its picture otherwise."""
    data = dataset(tmp_path, {f"picture{i}": [0] for i in range(100)})
    named = [replace(r, image_id=f"frame_{i}" if i < 60 else f"{i}") for i, r in enumerate(data.records)]
    keys = group_images(named).keys
    assert [len(set(keys[start:end])) for start, end in ((0, 25), (25, 50), (50, 60), (60, 100))] == [
        1,
        1,
        1,
        40,
    ]
    assert len(set(keys)) == 43


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

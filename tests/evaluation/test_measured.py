"""Images that a model is measured on: a split, or those that its run kept; not those it was trained on."""

from __future__ import annotations

import json
import shutil
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import cv2
import numpy as np
import pytest
import yaml

from fssd.config.train_config import TrainConfig, to_values
from fssd.data.division import Division, divide
from fssd.data.scenes import make_scenes
from fssd.data.shards.write_shards import shard_data
from fssd.data.source import open_data
from fssd.errors import ConfigError, DataError
from fssd.evaluation.measured import measured_images, trained_on


def run_folder(folder: Path, data: Path, division: Division | None = None, split: str = "train") -> Path:
    """The model file of a run on `data`."""
    folder.mkdir()
    config = TrainConfig(data=data, out=folder, train_split=split, val_split="auto" if division else "val")
    (folder / "config.yaml").write_text(yaml.safe_dump(to_values(config)))
    if division is not None:
        division.save(folder)
    return folder / "best.safetensors"


@pytest.fixture
def train_alone(scenes: Path, tmp_path: Path) -> Path:
    file = tmp_path / "alone.yaml"
    file.write_text(yaml.safe_dump({"sources": [{"data": str(scenes), "split": {"train": "train"}}]}))
    return file


def kept(scenes: Path, *numbers: int) -> Division:
    """The training scenes, these of them kept for evaluation."""
    ids = (scenes / "ImageSets/Main/train.txt").read_text().split()
    val = frozenset(ids[number] for number in numbers)
    return Division(frozenset(ids) - val, val, {"seed": 0, "share": 0.15})


def test_the_split_of_the_data_set(scenes: Path, tmp_path: Path) -> None:
    model = run_folder(tmp_path / "run", scenes)
    dataset, name = measured_images(scenes, "auto", [model], 0.0)
    assert (len(dataset), name) == (4, "val")


def test_what_the_run_kept(scenes: Path, train_alone: Path, tmp_path: Path) -> None:
    division = kept(scenes, 2, 5, 7)
    model = run_folder(tmp_path / "run", train_alone, division)
    dataset, name = measured_images(train_alone, "auto", [model], 0.0)
    assert ({record.image_id for record in dataset.records}, name) == (division.val, "val")
    assert dataset.facts["images"] == 3
    other = run_folder(tmp_path / "other", train_alone, kept(scenes, 5, 7, 9))
    both, _ = measured_images(train_alone, "auto", [model, other], 0.0)
    assert {record.image_id for record in both.records} == kept(scenes, 5, 7).val, "of two: what both kept"


def test_what_the_run_kept_of_several_splits(tmp_path: Path) -> None:
    """The images that a run kept come from the splits it was trained on, not from `train` alone."""
    data = make_scenes(tmp_path / "data", train=6, val=3, size=64)
    sets = data / "ImageSets" / "Main"
    (sets / "val.txt").rename(sets / "extra.txt")
    ids = [(sets / f"{name}.txt").read_text().split() for name in ("train", "extra")]
    division = Division(frozenset(ids[0][2:] + ids[1][1:]), frozenset([*ids[0][:2], ids[1][0]]), {"seed": 0})
    model = run_folder(tmp_path / "run", data, division, split="train+extra")
    dataset, _ = measured_images(data, "auto", [model], 0.0)
    assert {record.image_id for record in dataset.records} == division.val


@pytest.mark.parametrize("spelling", ["relative", "link", "yaml"])
def test_trained_images_by_another_path(
    scenes: Path, train_alone: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, spelling: str
) -> None:
    model = run_folder(tmp_path / "run", scenes)
    monkeypatch.chdir(scenes.parent)
    (tmp_path / "link").symlink_to(scenes)
    data = {"relative": Path(scenes.name), "link": tmp_path / "link", "yaml": train_alone}[spelling]
    with pytest.raises(ConfigError, match=r"trained on 12 of these 12 images, .*--seen-images"):
        measured_images(data, "train", [model], 0.0)


def test_trained_images(scenes: Path, train_alone: Path, tmp_path: Path) -> None:
    model = run_folder(tmp_path / "run", scenes)
    with pytest.raises(ConfigError, match=r"trained on 12 of these 12 images, .*--seen-images"):
        measured_images(scenes, "train", [model], 0.0)
    assert len(measured_images(scenes, "train", [model], 0.0, seen_images=True)[0]) == 12
    divided = run_folder(tmp_path / "divided", train_alone, kept(scenes, 0, 1))
    with pytest.raises(ConfigError, match="trained on 10 of these 12 images"):
        measured_images(train_alone, "train", [divided], 0.0)


def test_a_model_alone_is_measured_on_anything(scenes: Path, tmp_path: Path) -> None:
    assert trained_on(tmp_path / "model.safetensors") is None
    assert len(measured_images(scenes, "train", [tmp_path / "model.safetensors"], 0.0)[0]) == 12
    assert len(measured_images(scenes, None, [], 0.0)[0]) == 16


def test_no_validation_split_and_nothing_kept(train_alone: Path, tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"no validation split; splits here: train; choose one with --split"):
        measured_images(train_alone, "auto", [tmp_path / "model.safetensors"], 0.0)


def test_other_images_than_those_kept(scenes: Path, train_alone: Path, tmp_path: Path) -> None:
    division = Division(frozenset({"x"}), frozenset({"y"}), {"seed": 0, "share": 0.15})
    model = run_folder(tmp_path / "run", scenes, division)
    with pytest.raises(DataError, match=r"lacks 2 of the 2 images that .* was divided into .*; give --split"):
        measured_images(train_alone, "auto", [model], 0.0)
    one, other = (run_folder(tmp_path / f"{n}", train_alone, kept(scenes, n)) for n in (1, 2))
    with pytest.raises(DataError, match="none of the images that all runs kept"):
        measured_images(train_alone, "auto", [one, other], 0.0)


def numbered_set(folder: Path, names: Sequence[str]) -> Path:
    """A COCO data set without splits; its ids are numbers from 1."""
    for name in names:
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        if not (folder / name).exists():
            cv2.imwrite(str(folder / name), np.zeros((48, 64, 3), np.uint8))
    images = [{"id": i, "file_name": n, "width": 64, "height": 48} for i, n in enumerate(names, 1)]
    content = {"images": images, "annotations": [], "categories": [{"id": 1, "name": "dog"}]}
    (folder / "_annotations.coco.json").write_text(json.dumps(content))
    return folder


NAMES = [f"picture{number}.png" for number in range(1, 9)]


@pytest.fixture
def numbered_run(tmp_path: Path) -> tuple[Path, Path]:
    """A COCO data set and the model of a run that kept picture2 and picture7 of it."""
    data = numbered_set(tmp_path / "numbered", NAMES)
    whole = divide(open_data(data), 0, 0.2)
    division = replace(whole, train=frozenset("134568"), val=frozenset("27"))
    return data, run_folder(tmp_path / "run", data, division, split="none")


def test_numbers_as_ids(numbered_run: tuple[Path, Path]) -> None:
    data, model = numbered_run
    dataset, _ = measured_images(data, "auto", [model], 0.0)
    assert [record.path.name for record in dataset.records] == ["picture2.png", "picture7.png"]


def test_an_image_that_moved_the_numbers(numbered_run: tuple[Path, Path]) -> None:
    data, model = numbered_run
    numbered_set(data, ["new.png", *NAMES])
    with pytest.raises(
        DataError,
        match=r"numbered: is not the data set .*: 8 images have other pictures \(first: image 1"
        r" was picture1.png and is \S+numbered/new.png\).* give --split",
    ):
        measured_images(data, "auto", [model], 0.0)
    with pytest.raises(ConfigError, match="trained on 6 of these 9 images"):
        measured_images(data, None, [model], 0.0)
    assert len(measured_images(data, None, [model], 0.0, seen_images=True)[0]) == 9


def test_another_data_set_with_the_same_numbers(numbered_run: tuple[Path, Path], tmp_path: Path) -> None:
    other = numbered_set(tmp_path / "other", [f"photograph{number}.png" for number in range(12)])
    with pytest.raises(
        DataError, match=r"other: is not the data set .*8 images have other pictures.*--split"
    ):
        measured_images(other, "auto", [numbered_run[1]], 0.0)
    assert len(measured_images(other, None, [numbered_run[1]], 0.0)[0]) == 12


def test_images_that_are_gone(numbered_run: tuple[Path, Path], tmp_path: Path) -> None:
    data, model = numbered_run
    numbered_set(data, NAMES[:-1])
    assert len(measured_images(data, "auto", [model], 0.0)[0]) == 2, "those kept for evaluation are there"
    shutil.copytree(data, tmp_path / "elsewhere")
    with pytest.raises(
        DataError, match=r"elsewhere: lacks 1 of the 8 images .* \(first: 8\).*; give --split"
    ):
        measured_images(tmp_path / "elsewhere", "auto", [model], 0.0)
    numbered_set(data, NAMES[:5])
    with pytest.raises(DataError, match=r"lacks 1 of the 2 images that .* kept for evaluation \(first: 7\)"):
        measured_images(data, "auto", [model], 0.0)


def test_images_that_cannot_be_read_any_more(numbered_run: tuple[Path, Path]) -> None:
    data, model = numbered_run
    (data / "picture7.png").unlink()
    dataset, _ = measured_images(data, "auto", [model], 0.2)
    assert [record.image_id for record in dataset.records] == ["2"]


@pytest.mark.parametrize("way", ["moved", "shards", "later"])
def test_the_same_data_elsewhere(numbered_run: tuple[Path, Path], tmp_path: Path, way: str) -> None:
    data, model = numbered_run
    if way == "moved":
        data = data.rename(tmp_path / "moved")
    elif way == "shards":
        shard_data(data, tmp_path / "shards")
        data = tmp_path / "shards"
    else:
        numbered_set(data, [*NAMES, "deep/new.png"])
    dataset, _ = measured_images(data, "auto", [model], 0.0)
    assert [record.path.name for record in dataset.records] == ["picture2.png", "picture7.png"]


def test_pictures_of_one_name_in_several_folders(tmp_path: Path) -> None:
    names = [f"{number}/image.png" for number in range(1, 9)]
    data = numbered_set(tmp_path / "numbered", names)
    model = run_folder(tmp_path / "run", data, divide(open_data(data), 0, 0.2), split="none")
    numbered_set(data, ["0/image.png", *names])
    with pytest.raises(DataError, match=r"8 images have other pictures \(first: image 1 was 1/image.png"):
        measured_images(data, "auto", [model], 0.0)


def test_a_division_of_an_earlier_version_knows_ids_alone(numbered_run: tuple[Path, Path]) -> None:
    data, model = numbered_run
    file = model.parent / "division.json"
    content = json.loads(file.read_text())
    assert content.pop("pictures") == {str(number): name for number, name in enumerate(NAMES, 1)}
    file.write_text(json.dumps(content))
    numbered_set(data, ["new.png", *NAMES])
    dataset, _ = measured_images(data, "auto", [model], 0.0)
    assert [record.image_id for record in dataset.records] == ["2", "7"]


def test_ids_of_an_earlier_version(tmp_path: Path) -> None:
    """They were whole paths where two pictures of a data.yaml share a name."""
    for name in "ab":
        for number in (1, 2):
            path = tmp_path / name / "images" / f"{number}.png"
            path.parent.mkdir(parents=True, exist_ok=True)
            cv2.imwrite(str(path), np.zeros((8, 8, 3), np.uint8))
    file = tmp_path / "data.yaml"
    file.write_text("train: [a/images, b/images]\nnames: [dog]\n")
    paths = [str(tmp_path / name / "images" / f"{number}.png") for name in "ab" for number in (1, 2)]
    division = Division(frozenset(paths[1:]), frozenset(paths[:1]), {"seed": 0})
    model = run_folder(tmp_path / "run", file, division)
    dataset, _ = measured_images(file, "auto", [model], 0.0)
    assert [record.image_id for record in dataset.records] == ["a/images/1.png"]
    with pytest.raises(ConfigError, match="trained on 3 of these 4 images"):
        measured_images(file, "train", [model], 0.0)


def test_moved_data_is_opened_with_the_splits_of_the_run(tmp_path: Path) -> None:
    data = make_scenes(tmp_path / "data", train=6, val=3, size=64)
    sets = data / "ImageSets" / "Main"
    (sets / "val.txt").rename(sets / "extra.txt")
    division = divide(open_data(data, "train+extra"), 0, 0.4)
    model = run_folder(tmp_path / "run", data, division, split="train+extra")
    dataset, _ = measured_images(data.rename(tmp_path / "moved"), "auto", [model], 0.0)
    assert {record.image_id for record in dataset.records} == division.val


def test_pictures_in_another_folder(scenes: Path, tmp_path: Path) -> None:
    """Labels and image sets alone; the pictures are named by `images`, also by the run's own settings."""
    labels, pictures = tmp_path / "labels", tmp_path / "pictures"
    for name in ("Annotations", "ImageSets"):
        shutil.copytree(scenes / name, labels / name)
    shutil.copytree(scenes / "JPEGImages", pictures)
    model = run_folder(tmp_path / "run", labels)
    config = TrainConfig(data=labels, images=pictures, out=tmp_path / "run", train_split="train")
    (tmp_path / "run/config.yaml").write_text(yaml.safe_dump(to_values(config)))
    dataset, _ = measured_images(labels, "auto", [model], 0.0, images=pictures)
    assert {record.path.parent for record in dataset.records} == {pictures} and len(dataset) == 4
    with pytest.raises(ConfigError, match="trained on 12 of these 12 images"):
        measured_images(labels, "train", [model], 0.0, images=pictures)
    moved = pictures.rename(tmp_path / "moved")
    assert len(measured_images(labels, "auto", [model], 0.0, images=moved)[0]) == 4, (
        "not where the run had them"
    )
    with pytest.raises(ConfigError, match="trained on 12 of these 12 images"):
        measured_images(labels, "train", [model], 0.0, images=moved)
    with pytest.raises(DataError, match="the image file is missing"):
        measured_images(labels, "auto", [model], 0.0)
    with pytest.raises(DataError, match="is no folder; give the one that holds the images"):
        measured_images(labels, "auto", [model], 0.0, images=tmp_path / "none")

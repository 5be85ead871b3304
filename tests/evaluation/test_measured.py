"""Images that a model is measured on: a split, or those that its run kept; not those it was trained on."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest
import yaml

from fssd.config.train_config import TrainConfig, to_values
from fssd.data.division import Division
from fssd.data.scenes import make_scenes
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
    with pytest.raises(DataError, match="none of the images that the run kept"):
        measured_images(train_alone, "auto", [model], 0.0)


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

"""Which YAML of a folder is that of its data."""

from __future__ import annotations

from pathlib import Path

import pytest
from annotated import as_json, messages, picture, text

from fssd.data.source import find_reader, open_data, other_formats
from fssd.errors import DataError


@pytest.mark.parametrize("name", ["DATA.YAML", "Data.yml", "SIGNS.YAML", "below/DATA.YAML"])
def test_yaml_in_capitals(tmp_path: Path, name: str) -> None:
    file = text(tmp_path / name, "train: images\nnames: [cat, dog]\n")
    picture(file.parent / "images/a.png")
    text(file.parent / "labels/a.txt", "1 0.5 0.5 0.5 0.2\n")
    for path in (tmp_path, file):
        data = open_data(path, "train")
        assert data.classes == ("cat", "dog") and data.records[0].labels.tolist() == [1]
    text(file.parent / "data.yaml", "train: images\nnames: [ant, bee]\n")
    assert open_data(tmp_path, "train").classes == ("ant", "bee")


def lay(root: Path, name: str, content: str = "train: images/train\nnames: [cat, dog]\n") -> Path:
    """A data set of one picture with its YAML."""
    picture((root / name).parent / "images/train/a.png")
    text((root / name).parent / "labels/train/a.txt", "1 0.5 0.5 0.5 0.2\n")
    return text(root / name, content)


@pytest.mark.parametrize("other", ["two/data.yaml", "two/below/data.yaml"])
def test_several_data_sets_below(tmp_path: Path, other: str) -> None:
    for name in ("one/data.yaml", other):
        lay(tmp_path, name)
    with pytest.raises(DataError, match=f"holds several data sets, .*one/data.yaml and .*{other}"):
        find_reader(tmp_path)


def test_a_yaml_below_that_of_its_data_set(tmp_path: Path) -> None:
    file = lay(tmp_path, "one/data.yaml")
    lay(tmp_path, "one/part/data.yaml")
    assert find_reader(tmp_path)[1] == file


@pytest.mark.parametrize("name", ["one/coco128.yaml", "one/dataset.yml"])
def test_a_yaml_below_by_another_name(tmp_path: Path, name: str) -> None:
    file = lay(tmp_path, name)
    picture(tmp_path / "one/images/train/b.png")
    text(tmp_path / "one/labels/train/b.txt", "1 0.5 0.5 0.5 0.2\n")
    text(tmp_path / "one/tr.txt", "images/train/a.png\n")
    text(tmp_path / "one/va.txt", "images/train/b.png\n")
    text(file, "train: tr.txt\nval: va.txt\nnames: [cat, dog]\n")
    text(tmp_path / "code/coco.yaml", "path: ../sets/coco\ntrain: images/train2017\nnames: [cat, cow]\n")
    assert find_reader(tmp_path)[1] == file and other_formats(tmp_path) == ()
    data = open_data(tmp_path, "val")
    assert data.classes == ("cat", "dog") and [record.path.stem for record in data.records] == ["b"]


@pytest.mark.parametrize("others", [["two/labels/c.txt"], ["one/more.yaml"]])
def test_yamls_below_that_are_not_used_are_named(tmp_path: Path, others: list[str]) -> None:
    """Of several, or beside other labels, none is chosen."""
    lay(tmp_path, "one/cats.yaml")
    picture(tmp_path / "two/images/c.png")
    for name in others:
        text(tmp_path / name, "train: images\nnames: [x]\n" if "yaml" in name else "0 0.5 0.5 0.5 0.2\n")
    reader, root = find_reader(tmp_path)
    assert (reader.name, root) == ("yolo", tmp_path)
    (note,) = (note for note in messages(open_data(tmp_path), "warning") if "YAML" in note)
    count = 1 + sum("yaml" in name for name in others)
    assert f"{count} YAML files of data sets lie here and are not used" in note and "cats.yaml" in note


def test_labels_outside_the_folder_of_a_yaml_are_named(tmp_path: Path) -> None:
    file = lay(tmp_path, "a/data.yaml")
    picture(tmp_path / "b/images/b.png")
    text(tmp_path / "b/labels/b.txt", "0 0.5 0.5 0.5 0.2\n")
    assert other_formats(tmp_path) == (f"yolo outside that of {file}",) and other_formats(file) == ()
    assert len(open_data(tmp_path)) == 1


def test_labels_that_a_yaml_names_in_a_folder_beside_it_are_its_own(tmp_path: Path) -> None:
    picture(tmp_path / "train/images/a.png")
    text(tmp_path / "train/labels/a.txt", "1 0.5 0.5 0.5 0.2\n")
    text(tmp_path / "cfg/data.yaml", "train: ../train/images\nnames: [cat, dog]\n")
    assert other_formats(tmp_path) == () and len(open_data(tmp_path, "train")) == 1


def test_pictures_of_a_yaml_without_labels_are_counted(tmp_path: Path) -> None:
    lay(tmp_path, "data.yaml")
    picture(tmp_path / "images/train/b.png")
    (note,) = messages(open_data(tmp_path, "train"), "warning")
    assert "1 of 2 pictures have no label file and are backgrounds" in note and "b.png" in note


DOGS = "train: images/train\nnames: [dog, cow]\n"


def test_several_data_sets_in_one_folder(tmp_path: Path) -> None:
    lay(tmp_path, "cats.yaml")
    lay(tmp_path, "dogs.yaml", DOGS)
    with pytest.raises(DataError, match=r"holds several data sets, .*cats\.yaml and .*dogs\.yaml; give one"):
        open_data(tmp_path)
    lay(tmp_path, "data.yaml", DOGS)
    assert open_data(tmp_path).classes == ("dog", "cow")


@pytest.mark.parametrize(
    "other",
    [
        "nc: 80\ndepth_multiple: 0.33\n",  # of a model
        "task: detect\nval: true\nnames: [x]\n",  # of a training
        "train: images/train\nnames: [cat, dog]\n",  # a copy
        "train: [\n",
    ],
)
@pytest.mark.parametrize("name", ["a.yaml", "z.yaml"])
def test_yaml_beside_that_of_the_data(tmp_path: Path, name: str, other: str) -> None:
    lay(tmp_path, "cats.yaml")
    text(tmp_path / name, other)
    assert open_data(tmp_path, "train").classes == ("cat", "dog")


@pytest.mark.parametrize(
    "content",
    [
        "names: {0: cat}\nstride: 32\n",  # of an exported model
        "nc: 80\ndepth_multiple: 0.33\n",
        "train:\n  lr: 0.1\nmodel: x\n",
    ],
)
def test_a_yaml_of_a_model_beside_labels(tmp_path: Path, content: str) -> None:
    picture(tmp_path / "images/a.png")
    text(tmp_path / "labels/a.txt", "1 0.5 0.5 0.5 0.2\n")
    text(tmp_path / "classes.txt", "cat\ndog\n")
    file = text(tmp_path / "config.yaml", content)
    data = open_data(tmp_path)
    assert data.classes == ("cat", "dog") and len(data) == 1 and data.problems == ()
    with pytest.raises(DataError):
        open_data(file)


def test_a_yaml_of_a_training_beside_labels_of_another_format(tmp_path: Path) -> None:
    picture(tmp_path / "a.png")
    box = {"label": "cat", "shape_type": "rectangle", "points": [[1, 1], [20, 20]]}
    as_json(
        tmp_path / "a.json", {"shapes": [box], "imagePath": "a.png", "imageHeight": 100, "imageWidth": 200}
    )
    text(tmp_path / "config.yaml", "train:\n  lr: 0.1\n")
    assert find_reader(tmp_path)[0].name == "labelme"


@pytest.mark.parametrize("content", ["train: images\n", "train: [\n"])
def test_the_only_yaml_of_pictures_is_told_what_is_wrong(tmp_path: Path, content: str) -> None:
    picture(tmp_path / "images/a.png")
    text(tmp_path / "labels/a.txt", "1 0.5 0.5 0.5 0.2\n")
    file = text(tmp_path / "signs.yaml", content)
    with pytest.raises(DataError) as caught:
        open_data(tmp_path)
    assert caught.value.file == file


def test_several_data_sets_in_a_folder_of_another_format(tmp_path: Path) -> None:
    """They are named as what is not read, and no fault of the labels that are."""
    for name in ("one/data.yaml", "two/data.yaml"):
        lay(tmp_path, name)
    content = {
        "images": [{"id": 1, "file_name": "a.png"}],
        "annotations": [{"id": 1, "image_id": 1, "category_id": 1, "bbox": [10, 10, 20, 20]}],
        "categories": [{"id": 1, "name": "cat"}],
    }
    as_json(tmp_path / "annotations/instances_train.json", content)
    assert find_reader(tmp_path)[0].name == "coco" and other_formats(tmp_path) == ("yolo",)

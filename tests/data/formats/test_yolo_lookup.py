"""Which label file is whose: by its own name first, and no box goes to another picture."""

from __future__ import annotations

from pathlib import Path
from unicodedata import normalize

import pytest
from annotated import messages, picture, text

from fssd.data.formats.lookup import PictureFinder
from fssd.data.formats.yolo import read_yolo
from fssd.data.formats.yolo_folders import pairs_of_folder
from fssd.data.formats.yolo_lookup import LabelFinder
from fssd.data.source import open_data

ROW = "0 0.5 0.5 0.5 0.5\n"


def data_set(root: Path, pictures: list[str], labels: list[str]) -> Path:
    for name in pictures:
        picture(root / "images" / name)
    for name in labels:
        text(root / "labels" / name, ROW)
    return text(root / "data.yaml", "names: [dog]\ntrain: images\n")


@pytest.mark.parametrize(
    ("labels", "expected"),
    [
        # A date of eight digits looks like the hash of Label Studio.
        (
            ["20240101-cam1.txt", "20240102-cam1.txt"],
            {
                "20240101-cam1.jpg": "20240101-cam1.txt",
                "20240102-cam1.jpg": "20240102-cam1.txt",
                "cam1.jpg": None,
            },
        ),
        (["20240101-cam1.jpg.txt"], {"20240101-cam1.jpg": "20240101-cam1.jpg.txt", "cam1.jpg": None}),
        (["20240101-cam1.txt", "b.txt"], {"cam1.jpg": None, "b.jpg": "b.txt"}),  # of a picture that is gone
        (["20241399-cam1.txt"], {"cam1.jpg": "20241399-cam1.txt"}),  # no date
        (["ab12cd34-cam1.txt"], {"cam1.jpg": "ab12cd34-cam1.txt"}),
        (["cam-ab12cd34-1.txt", "b.txt"], {"cam-1.jpg": None, "b.jpg": "b.txt"}),
        (["ab12cd34-x.txt", "a2222222-x.txt", "b.txt"], {"x.jpg": None, "b.jpg": "b.txt"}),  # whose?
        (["ab12cd34-x.txt", "x.txt"], {"x.jpg": "x.txt"}),
        (["a.txt"], {"A.jpg": None, "a.jpg": "a.txt"}),
        (["a.txt"], {"A.jpg": "a.txt"}),
        (["a.jpg.txt"], {"a.jpg": None, "a.jpg.jpg": "a.jpg.txt"}),
        (["a.jpg.txt"], {"a.jpg": "a.jpg.txt"}),
        (["a.txt", "a.jpg.txt"], {"a.jpg": "a.txt", "a.jpg.jpg": "a.jpg.txt"}),
        (["a.TXT"], {"a.jpg": "a.TXT", "A.jpg": None}),
        (["a.txt"], {"a.jpg": "a.txt", "a.png": "a.txt"}),  # which is reported
        (["caf\u00e9.txt"], {"cafe\u0301.jpg": "caf\u00e9.txt"}),
        (["cafe\u0301.txt"], {"caf\u00e9.jpg": "cafe\u0301.txt"}),
        (["CAFE\u0301.txt"], {"caf\u00e9.jpg": "CAFE\u0301.txt"}),
        (["caf\u00e9.txt"], {"cafe\u0301.jpg": None, "caf\u00e9.jpg": "caf\u00e9.txt"}),
    ],
)
@pytest.mark.parametrize("with_yaml", [True, False])
def test_a_label_file_belongs_to_the_picture_of_its_name(
    tmp_path: Path, labels: list[str], expected: dict[str, str | None], with_yaml: bool
) -> None:
    file = data_set(tmp_path, list(expected), labels)
    if with_yaml:
        records = read_yolo(file, "train").records
        found = {r.path.name: r.source.name if len(r.boxes) else None for r in records}
    else:
        pairs = pairs_of_folder(tmp_path, PictureFinder(tmp_path))
        found = {pair.picture.name: pair.label and pair.label.name for pair in pairs}
    assert found == expected


def test_a_label_file_of_a_picture_in_another_split_is_not_lent(tmp_path: Path) -> None:
    for name in ("train/20240101-cam1.png", "val/cam1.png"):
        picture(tmp_path / "images" / name)
    text(tmp_path / "labels/20240101-cam1.txt", ROW)
    file = text(tmp_path / "data.yaml", "names: [dog]\ntrain: images/train\nval: images/val\n")
    assert [len(read_yolo(file, split).records[0].boxes) for split in ("train", "val")] == [1, 0]


@pytest.mark.parametrize(
    "expected",
    [
        {"images/1.png": "labels/1.txt", "backgrounds/1.png": None},
        {"backgrounds/1.png": None, "images/1.png": "labels/1.txt"},
        {"images/1.png": "labels/1.txt", "images/empty/1.png": None},
        {"imgs/1.png": "annotations/1.txt", "none/1.png": None},
        {"1.png": "1.txt", "labels/sub/1.png": None, "a/1.png": "a/1.txt"},
        {"cam/1.png": None, "images/cam/1.png": "labels/cam/1.txt"},
        {"photos/1.png": "labels/1.txt", "photos/2.png": "labels/2.txt"},  # where no other wants it
    ],
)
def test_a_label_file_where_yolo_looks_is_not_lent(tmp_path: Path, expected: dict[str, str | None]) -> None:
    """labels/x.txt of images/x.jpg, or x.txt beside it, is not that of a background called x.jpg."""
    for name, label in expected.items():
        picture(tmp_path / name)
        if label:
            text(tmp_path / label, ROW)
    found = LabelFinder(tmp_path).find([tmp_path / name for name in expected])
    assert found == {tmp_path / name: tmp_path / label for name, label in expected.items() if label}


@pytest.mark.parametrize(
    ("labels", "pictures", "expected"),
    [
        (["cam1/1", "cam2/1"], ["cam1/1"], ["cam1/1"]),
        (["a", "old/a"], ["a"], ["a"]),
        (["11111111-x", "a2222222-x"], ["x"], []),
        (["ab12cd34-x", "x"], ["x"], ["x"]),
        (["one/1", "two/1"], ["1"], []),
        (["one/1", "two/1"], ["three/1"], []),
        (["train/1", "val/1"], ["train/1", "val/1"], ["train/1", "val/1"]),
        (["a", "b"], ["x/a", "x/b"], ["x/a", "x/b"]),
    ],
)
def test_two_label_files_do_not_share_a_given_picture(
    tmp_path: Path, labels: list[str], pictures: list[str], expected: list[str]
) -> None:
    for number, name in enumerate(labels):
        text(tmp_path / f"labels/{name}.txt", f"{number} 0.5 0.5 0.5 0.5\n")
    for name in pictures:
        picture(tmp_path / f"pics/{name}.jpg")
    text(tmp_path / "labels/classes.txt", "dog\ncat\n")
    data = open_data(tmp_path / "labels", None, None, tmp_path / "pics")
    found = {record.path.relative_to(tmp_path / "pics").with_suffix("").as_posix() for record in data.records}
    assert found == set(expected) and len(data) == len(expected)
    assert len(messages(data, "error")) == len(labels) - len(expected)


def test_copies_of_labels_in_two_splits_are_of_one_given_picture(tmp_path: Path) -> None:
    """Their overlap is told where they are used."""
    for split in ("train", "trainval"):
        text(tmp_path / f"labels/{split}/1.txt", ROW)
    picture(tmp_path / "pics/1.jpg")
    text(tmp_path / "labels/classes.txt", "dog\n")
    for split in ("train", "trainval"):
        assert len(open_data(tmp_path / "labels", split, None, tmp_path / "pics")) == 1


def test_given_pictures_in_folders_of_splits(tmp_path: Path) -> None:
    for split in ("train", "val"):
        picture(tmp_path / f"pics/{split}/{split}.jpg")
        text(tmp_path / f"labels/{split}.txt", ROW)
    text(tmp_path / "labels/classes.txt", "dog\n")
    (note,) = messages(open_data(tmp_path / "labels", None, None, tmp_path / "pics"), "warning")
    assert "the pictures lie in folders of the splits train, val, their labels in none" in note
    for split in ("train", "val"):
        (tmp_path / f"labels/{split}.txt").rename(text(tmp_path / f"labels/{split}/{split}.txt", ""))
    assert open_data(tmp_path / "labels", None, None, tmp_path / "pics").problems == ()


def test_folders_in_another_form_of_unicode(tmp_path: Path) -> None:
    picture(tmp_path / "images" / normalize("NFD", "Größe") / "a.png")
    text(tmp_path / "labels" / normalize("NFC", "Größe") / "a.txt", ROW)
    text(tmp_path / "train.txt", "./images/" + normalize("NFC", "Größe") + "/a.png\n")
    file = text(tmp_path / "data.yaml", "names: [dog]\ntrain: train.txt\n")
    (record,) = read_yolo(file, "train").records
    assert record.path.is_file() and len(record.boxes) == 1


@pytest.mark.parametrize("name", ["classes", "labels", "Classes"])
@pytest.mark.parametrize("with_yaml", [True, False])
def test_pictures_called_like_lists_of_names(tmp_path: Path, name: str, with_yaml: bool) -> None:
    file = data_set(tmp_path, [f"{name}.png", "a.png"], [f"{name}.txt", "a.txt"])
    if not with_yaml:
        file.unlink()
        text(tmp_path / "classes.txt", "dog\n")
    data = open_data(tmp_path)
    assert data.classes == ("dog",) and [len(record.boxes) for record in data.records] == [1, 1]
    assert data.problems == ()


def test_a_list_of_names_among_labels_is_none_of_them(tmp_path: Path) -> None:
    data_set(tmp_path, ["a.png", "classes.png"], ["a.txt"])
    text(tmp_path / "labels/classes.txt", "dog\ncat\n")
    data = open_data(tmp_path)
    assert {r.path.stem: len(r.boxes) for r in data.records} == {"a": 1, "classes": 0}

"""Data sets come back from every format: boxes, classes, splits, flags, pictures; and what is refused."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest
from PIL import Image as Pillow

from fssd.data.check import check_data
from fssd.data.source import list_splits, open_data
from fssd.data.writers import WRITERS
from fssd.data.writers.convert import convert_data
from fssd.data.writers.writer import Writer, WrittenSet
from fssd.errors import ConfigError, DataError, ImageError

MakePicture = Callable[..., Path]
Content = dict[str, dict[bytes, list[Any]]]


def read(root: Path) -> Content:
    """Split -> content of the picture -> sorted (class, box, difficult, crowd)."""
    found: Content = {}
    for split in list_splits(root) or ("all",):
        data = open_data(root, None if split == "all" else split)
        assert not [problem for problem in data.problems if problem.severity == "error"]
        found[split] = {
            record.path.read_bytes(): sorted(
                (data.classes[label], tuple(box), bool(difficult), bool(crowd))
                for box, label, difficult, crowd in zip(
                    record.boxes.tolist(), record.labels, record.difficult, record.crowd, strict=True
                )
            )
            for record in data.records
        }
    return found


def without(content: Content, *flags: int) -> Content:
    """The same without flags that a format does not have: 2 is difficult, 3 is crowd."""
    return {
        split: {
            key: [tuple(False if i in flags else value for i, value in enumerate(row)) for row in rows]
            for key, rows in pictures.items()
        }
        for split, pictures in content.items()
    }


def assert_equal(one: Content, other: Content) -> None:
    assert set(one) == set(other)
    for split, pictures in one.items():
        assert set(pictures) == set(other[split])
        for key, rows in pictures.items():
            assert len(rows) == len(other[split][key])
            for mine, theirs in zip(rows, other[split][key], strict=True):
                assert (mine[0], mine[2:]) == (theirs[0], theirs[2:])
                np.testing.assert_allclose(mine[1], theirs[1], atol=1e-4)


LOST = {
    "voc": (3,),
    "yolo": (2, 3),
    "labelme": (3,),
    "cvat": (3,),
    "label-studio": (2, 3),
    "createml": (2, 3),
}


@pytest.mark.parametrize("to", WRITERS)
def test_comes_back(source: Path, tmp_path: Path, to: str) -> None:
    convert_data(source, to, tmp_path / "out")
    assert_equal(read(tmp_path / "out"), without(read(source), *LOST.get(to, ())))
    report = check_data(tmp_path / "out")
    assert report.ok
    assert {name: counts.objects for name, counts in report.splits.items()} == {"train": 3, "val": 2}


@pytest.mark.parametrize("to", WRITERS)
@pytest.mark.parametrize("via", WRITERS)
def test_comes_back_from_any_format(source: Path, tmp_path: Path, via: str, to: str) -> None:
    convert_data(source, via, tmp_path / "via")
    convert_data(tmp_path / "via", to, tmp_path / "out")
    lost = {*LOST.get(to, ()), *LOST.get(via, ())}
    assert_equal(read(tmp_path / "out"), without(read(source), *lost))


@pytest.mark.parametrize("to", ["coco", "yolo", "cvat"])
def test_classes_and_their_order_come_back(source: Path, tmp_path: Path, to: str) -> None:
    convert_data(source, to, tmp_path / "out")
    for split in ("train", "val"):
        assert open_data(tmp_path / "out", split).classes == open_data(source, split).classes


def test_folders_stay_and_equal_names_do_not_collide(source: Path, tmp_path: Path) -> None:
    convert_data(source, "voc", tmp_path / "voc")
    convert_data(source, "yolo", tmp_path / "yolo")
    train = {"night/one", "day/one", "no object, & café's"}
    lines = (tmp_path / "voc/ImageSets/Main/train.txt").read_text(encoding="utf-8").splitlines()
    assert set(lines) == train
    assert (tmp_path / "voc/ImageSets/Main/val.txt").read_text() == "val/night/one\n"  # night/one is train's
    labels = tmp_path / "yolo" / "labels" / "train"
    assert {file.relative_to(labels).with_suffix("").as_posix() for file in labels.rglob("*.txt")} == train


def test_a_picture_of_two_splits_keeps_the_flags_of_each(tmp_path: Path, make_picture: MakePicture) -> None:
    make_picture(tmp_path / "in/images/a.jpg")
    image = {"id": 1, "file_name": "a.jpg", "width": 100, "height": 80}
    row = {"id": 1, "image_id": 1, "category_id": 1, "bbox": [1, 2, 3, 4], "area": 12, "iscrowd": 0}
    (tmp_path / "in/annotations").mkdir()
    for difficult, split in enumerate(("train", "val")):
        content = {"images": [image], "annotations": [row | {"difficult": difficult}]}
        text = json.dumps(content | {"categories": [{"id": 1, "name": "ant"}]})
        (tmp_path / f"in/annotations/instances_{split}.json").write_text(text)
    convert_data(tmp_path / "in", "voc", tmp_path / "out")
    flags = [open_data(tmp_path / "out", split).records[0].difficult.tolist() for split in ("train", "val")]
    assert flags == [[False], [True]]


def test_without_splits(tmp_path: Path, make_picture: MakePicture) -> None:
    make_picture(tmp_path / "in/JPEGImages/a.jpg")
    box = "<xmin>1</xmin><ymin>2</ymin><xmax>3</xmax><ymax>4</ymax>"
    item = f"<object><name>ant</name><bndbox>{box}</bndbox></object>"
    xml = f"<annotation><size><width>100</width><height>80</height></size>{item}</annotation>"
    (tmp_path / "in/Annotations").mkdir()
    (tmp_path / "in/Annotations/a.xml").write_text(xml)
    for to in WRITERS:
        convert_data(tmp_path / "in", to, tmp_path / to)
        splits = {"yolo": ("train",)}.get(to, ())
        assert list_splits(tmp_path / to) == splits
        assert len(open_data(tmp_path / to)) == 1


def test_chosen_splits(source: Path, tmp_path: Path) -> None:
    convert_data(source, "cvat", tmp_path / "val", splits=("val",))
    assert list_splits(tmp_path / "val") == ("val",)
    assert len(convert_data(source, "cvat", tmp_path / "all", splits=("none",)).content.splits[""]) == 4
    assert list_splits(tmp_path / "all") == ()


def test_a_split_whose_folder_is_missing(tmp_path: Path, make_picture: MakePicture) -> None:
    """Roboflow states a test split, and writes no folder for one that is empty."""
    for split in ("train", "valid"):
        make_picture(tmp_path / f"in/{split}/images/a.png")
    content = "names: [dog]\ntrain: ../train/images\nval: ../valid/images\ntest: ../test/images\n"
    (tmp_path / "in/data.yaml").write_text(content)
    with pytest.raises(DataError, match=r"data.yaml \(test\): .*remove the line; .*: --splits train val$"):
        convert_data(tmp_path / "in", "voc", tmp_path / "out")
    with pytest.raises(DataError, match=r"remove the line$"):
        convert_data(tmp_path / "in", "voc", tmp_path / "out", splits=["test"])
    made = convert_data(tmp_path / "in", "voc", tmp_path / "out", splits=["train", "val"])
    assert [len(images) for images in made.content.splits.values()] == [1, 1]


def test_an_image_set_that_holds_two_others(source: Path, tmp_path: Path) -> None:
    convert_data(source, "voc", tmp_path / "voc")
    sets = tmp_path / "voc" / "ImageSets" / "Main"
    both = sorted((sets / "train.txt").read_text().splitlines() + (sets / "val.txt").read_text().splitlines())
    (sets / "trainval.txt").write_text("\n".join(both))
    notes = convert_data(tmp_path / "voc", "yolo", tmp_path / "yolo").notes
    assert list_splits(tmp_path / "yolo") == ("train", "val")
    assert "split trainval is left out beside train and val; --splits takes it" in notes
    convert_data(tmp_path / "voc", "voc", tmp_path / "again")
    assert_equal(read(tmp_path / "again"), read(tmp_path / "voc"))
    assert len(list((tmp_path / "again").rglob("*.png"))) == 4  # none is written twice


def test_images_in_no_split_are_reported(source: Path, tmp_path: Path) -> None:
    convert_data(source, "voc", tmp_path / "voc")
    (tmp_path / "voc/ImageSets/Main/val.txt").unlink()
    notes = convert_data(tmp_path / "voc", "coco", tmp_path / "out").notes
    left = tmp_path / "voc/JPEGImages/val/night/one.png"
    assert (
        f"1 images are in no split and left out, the first is {left}; --splits none takes every image"
        in notes
    )


def test_coco_keeps_whole_numbers_as_ids(tmp_path: Path, make_picture: MakePicture) -> None:
    make_picture(tmp_path / "in/val/a.jpg")
    content = {
        "images": [{"id": 139, "file_name": "a.jpg", "width": 100, "height": 80}],
        "categories": [{"id": 90, "name": "toothbrush"}],
        "annotations": [{"id": 1, "image_id": 139, "category_id": 90, "bbox": [1, 2, 3, 4]}],
    }
    (tmp_path / "in/annotations").mkdir()
    (tmp_path / "in/annotations/instances_val.json").write_text(json.dumps(content))
    made = convert_data(tmp_path / "in", "coco", tmp_path / "out")
    written = json.loads((tmp_path / "out/annotations/instances_val.json").read_text())
    assert [row["id"] for row in written["images"]] == [139]
    assert [row["id"] for row in written["categories"]] == [90]
    assert [(row["image_id"], row["category_id"]) for row in written["annotations"]] == [(139, 90)]
    assert made.notes == ()


def test_pictures_are_copied_or_linked(source: Path, tmp_path: Path) -> None:
    convert_data(source, "createml", tmp_path / "copied")
    convert_data(source, "createml", tmp_path / "linked", link=True)
    original = source / "val" / "night" / "one.png"
    copied, linked = (tmp_path / folder / "val" / "night_one.png" for folder in ("copied", "linked"))
    assert copied.read_bytes() == original.read_bytes() and not copied.samefile(original)
    assert linked.samefile(original)


def test_no_pixel_is_decoded(source: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*_: object) -> None:
        raise AssertionError("decoded")

    monkeypatch.setattr(Pillow.Image, "load", refuse)
    monkeypatch.setattr(cv2, "imdecode", refuse)
    convert_data(source, "yolo", tmp_path / "out")


def turned(path: Path) -> Path:
    """A picture of 40 x 20 whose left half is red, stored on its side with EXIF orientation 6."""
    upright = np.zeros((20, 40, 3), np.uint8)
    upright[:, :20, 0] = 255
    exif = Pillow.Exif()
    exif[0x0112] = 6  # turn the stored pixels clockwise by 90 degrees
    path.parent.mkdir(parents=True, exist_ok=True)
    Pillow.fromarray(np.rot90(upright)).save(path, quality=95, exif=exif)
    return path


def test_exif(tmp_path: Path) -> None:
    turned(tmp_path / "in/images/train/a.jpg")
    (tmp_path / "in/data.yaml").write_text("train: images/train\nnames: [red]\n")
    (tmp_path / "in/labels/train").mkdir(parents=True)
    (tmp_path / "in/labels/train/a.txt").write_text("0 0.25 0.5 0.5 1\n")  # the left half of what is seen
    notes = convert_data(tmp_path / "in", "voc", tmp_path / "kept").notes
    assert any("1 pictures are turned by EXIF" in note and "--upright" in note for note in notes)
    kept = tmp_path / "kept/JPEGImages/a.jpg"
    assert kept.read_bytes() == (tmp_path / "in/images/train/a.jpg").read_bytes()
    notes = convert_data(tmp_path / "in", "voc", tmp_path / "upright", upright=True).notes
    assert "1 pictures that EXIF turns are written upright, compressed again" in notes
    stored = Pillow.open(tmp_path / "upright/JPEGImages/a.jpg")
    assert stored.size == (40, 20) and not stored.getexif()
    pixels = np.asarray(stored)
    assert pixels[10, 5, 0] > 200 and pixels[10, 35, 0] < 50
    for out in ("kept", "upright"):
        (record,) = open_data(tmp_path / out).records
        assert (record.width, record.height) == (40, 20)
        assert record.boxes.tolist() == [[0, 0, 20, 20]]
        assert check_data(tmp_path / out).ok


def test_pictures_that_cannot_be_read(
    source: Path, tmp_path: Path, make_picture: MakePicture, capsys: pytest.CaptureFixture[str]
) -> None:
    convert_data(source, "voc", tmp_path / "in")
    bad = tmp_path / "in/JPEGImages/day/one.png"
    bad.write_bytes(b"no picture")
    with pytest.raises(ImageError, match=r"day/one\.png: is no image"):
        convert_data(tmp_path / "in", "yolo", tmp_path / "out")
    assert not (tmp_path / "out").exists()
    convert_data(tmp_path / "in", "yolo", tmp_path / "out", bad_share=0.4)
    assert f"left out: {bad}: is no image" in capsys.readouterr().err
    assert len(open_data(tmp_path / "out")) == 3
    make_picture(bad, size=(30, 30))
    with pytest.raises(ImageError, match=r"is 30 x 30 pixels, its labels in .* state 100 x 80"):
        convert_data(tmp_path / "in", "yolo", tmp_path / "other")


def test_faults_and_warnings_of_labels_are_told(source: Path, tmp_path: Path) -> None:
    convert_data(source, "yolo", tmp_path / "in")
    labels = tmp_path / "in/labels/train/day/one.txt"
    labels.write_text("3 0.98 0.5 0.1 0.1\n")
    notes = convert_data(tmp_path / "in", "coco", tmp_path / "out").notes
    assert any(f"{labels} (line 1): box (93, 36, 103, 44) leaves the image" in note for note in notes)
    labels.write_text("7 0.5 0.5 0.1 0.1\n")
    with pytest.raises(DataError, match="class 7 is not among"):
        convert_data(tmp_path / "in", "coco", tmp_path / "other")


def test_box_outside_an_image_whose_size_the_labels_do_not_state(
    tmp_path: Path, make_picture: MakePicture
) -> None:
    make_picture(tmp_path / "a.jpg")
    content: dict[str, Any] = {
        "images": [{"id": 1, "file_name": "a.jpg"}],
        "categories": [{"id": 1, "name": "x"}],
    }
    content["annotations"] = [{"id": 1, "image_id": 1, "category_id": 1, "bbox": [90, 70, 20, 20]}]
    (tmp_path / "all.json").write_text(json.dumps(content))
    convert_data(tmp_path / "all.json", "voc", tmp_path / "clipped")
    written = (tmp_path / "clipped/Annotations/a.xml").read_text()
    assert "<xmax>100</xmax>" in written and "<ymax>80</ymax>" in written
    content["annotations"][0]["bbox"] = [200, 70, 20, 20]
    (tmp_path / "all.json").write_text(json.dumps(content))
    with pytest.raises(DataError, match="lies outside the image of 100 x 80"):
        convert_data(tmp_path / "all.json", "voc", tmp_path / "out")


def test_refused_before_anything_is_written(source: Path, tmp_path: Path) -> None:
    (tmp_path / "full").mkdir()
    (tmp_path / "full" / "mine.txt").write_text("mine")
    with pytest.raises(ConfigError, match="exists already"):
        convert_data(source, "voc", tmp_path / "full")
    with pytest.raises(ConfigError, match=r"no format 'yollo'.* did you mean 'yolo'"):
        convert_data(source, "yollo", tmp_path / "out")
    with pytest.raises(ConfigError, match="lies inside the data set"):
        convert_data(source, "voc", source / "out")
    with pytest.raises(ConfigError, match="'tset' is none of them"):
        convert_data(source, "yolo", tmp_path / "out", splits=("tset",))
    with pytest.raises(DataError, match="no split 'tset'"):
        convert_data(source, "voc", tmp_path / "out", splits=("tset",))
    assert [path.name for path in tmp_path.iterdir()] == ["full"]
    assert [path.name for path in (tmp_path / "full").iterdir()] == ["mine.txt"]


def test_class_names_that_label_files_cannot_hold(tmp_path: Path, make_picture: MakePicture) -> None:
    make_picture(tmp_path / "a.jpg")
    for names, message in (
        (["a\nb"], "holds a character"),
        (["a\x85b"], "holds a character"),
        (["a", "a "], "differ in spaces"),
    ):
        content = {"images": [{"id": 1, "file_name": "a.jpg"}], "annotations": []}
        categories = [{"id": key, "name": name} for key, name in enumerate(names)]
        (tmp_path / "all.json").write_text(json.dumps({**content, "categories": categories}))
        with pytest.raises(ConfigError, match=message):
            convert_data(tmp_path / "all.json", "voc", tmp_path / "out")


def test_another_format_is_one_more_row(
    source: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def write(root: Path, content: WrittenSet) -> None:
        rows = [
            f"{image.file} {item.name} {item.width:.1f}"
            for image in content.images
            for item in content.objects(image)
        ]
        (root / "widths.txt").write_text("\n".join(rows), encoding="utf-8")

    toy = Writer("toy", "Toy", frozenset({"folders"}), folder=lambda split: f"toys/{split}", write=write)
    monkeypatch.setitem(WRITERS, "toy", toy)
    convert_data(source, "toy", tmp_path / "out", splits=("val",))
    assert (tmp_path / "out" / "widths.txt").read_text(encoding="utf-8").splitlines() == [
        "toys/val/night/one.png 斑馬, plains 2.0",
        "toys/val/night/one.png ant 2.0",
    ]
    assert (tmp_path / "out" / "toys" / "val" / "night" / "one.png").is_file()


def test_an_archive(source: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    archive = shutil.make_archive(str(tmp_path / "coco"), "zip", source)
    convert_data(archive, "coco", tmp_path / "out", splits=("val",))
    assert_equal(read(tmp_path / "out"), {"val": read(source)["val"]})
    assert (tmp_path / "out/images/val/night/one.png").is_file()

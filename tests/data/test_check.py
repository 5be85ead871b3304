"""`check_data` finds what the readers cannot see, and counts what it went through."""

from __future__ import annotations

import json
import os
from pathlib import Path

import numpy as np
import pytest
from PIL import Image as Pillow
from rich.console import Console

from fssd.data.check import CheckReport, Seen, check_data
from fssd.errors import DataError

REAL = os.environ.get("FSSD_TEST_DATA", "")
needs_data = pytest.mark.skipif(not REAL, reason="FSSD_TEST_DATA does not name a folder of data sets")
SHAPE = (80, 100)
EXIF = (
    "EXIF turns or mirrors it (orientation {}); its boxes must be those of the turned image: look at them in"
    " `--report`"
)


def picture(path: Path, seed: int = 0, orientation: int = 1, kind: str = "JPEG") -> Path:
    """A noisy picture of 100 x 80 as stored; equal seeds make equal files."""
    values = Pillow.Exif()
    values[0x0112] = orientation
    pixels = np.random.default_rng(seed).integers(0, 256, (*SHAPE, 3), np.uint8)
    path.parent.mkdir(parents=True, exist_ok=True)
    Pillow.fromarray(pixels).save(path, kind, exif=values)
    return path


def box(*corners: float, name: str = "dog") -> str:
    tags = zip(("xmin", "ymin", "xmax", "ymax"), corners, strict=True)
    inner = "".join(f"<{tag}>{value}</{tag}>" for tag, value in tags)
    return f"<object><name>{name}</name><bndbox>{inner}</bndbox></object>"


def add(
    root: Path,
    name: str,
    *boxes: str,
    split: str = "train",
    size: tuple[int, int] = (100, 80),
    seed: int = -1,
) -> Path:
    """One image of a VOC folder with its label and its line in the image set; returns the XML file."""
    path = picture(root / "JPEGImages" / f"{name}.jpg", seed=seed if seed >= 0 else sum(name.encode()))
    assert path.is_file()
    xml = root / "Annotations" / f"{name}.xml"
    listed = root / "ImageSets/Main" / f"{split}.txt"
    for file in (xml, listed):
        file.parent.mkdir(parents=True, exist_ok=True)
    header = f"<size><width>{size[0]}</width><height>{size[1]}</height></size>"
    xml.write_text(f"<annotation>{header}{''.join(boxes)}</annotation>")
    with listed.open("a") as lines:
        lines.write(f"{name}\n")
    return xml


def findings(report: CheckReport) -> list[tuple[str, str, str, str]]:
    """(severity, file name, place, reason), without what is said about classes."""
    return [
        (problem.severity, problem.file.name, problem.place, problem.reason)
        for problem in report.problems
        if problem.place != "classes"
    ]


def only(report: CheckReport) -> tuple[str, str, str, str]:
    (found,) = findings(report)
    return found


def test_sound_data(tmp_path: Path) -> None:
    add(
        tmp_path,
        "a",
        box(1, 1, 50, 50, name="ant"),
        box(2, 2, 60, 60, name="bee"),
        box(5, 5, 60, 60, name="bee"),
    )
    add(tmp_path, "b")
    add(tmp_path, "c", box(1, 1, 50, 50, name="ant"), split="val")
    report = check_data(tmp_path)
    assert report.ok and findings(report) == []
    train, val = report.splits["train"], report.splits["val"]
    assert (train.images, train.usable, train.backgrounds, train.objects) == (2, 2, 1, 3)
    assert train.per_class == {"ant": 1, "bee": 2} and val.per_class == {"ant": 1, "bee": 0}


def test_truncated_image(tmp_path: Path) -> None:
    add(tmp_path, "a", box(1, 1, 50, 50))
    file = tmp_path / "JPEGImages/a.jpg"
    file.write_bytes(file.read_bytes()[:-500])
    report = check_data(tmp_path)
    severity, name, _, reason = only(report)
    assert (severity, name) == ("error", "a.jpg") and "truncated" in reason
    assert report.splits["train"].usable == 0 and report.splits["train"].images == 1
    assert findings(check_data(tmp_path, decode=False)) == []


@pytest.mark.parametrize("decode", [True, False])
def test_text_as_image(tmp_path: Path, decode: bool) -> None:
    add(tmp_path, "a", box(1, 1, 50, 50))
    (tmp_path / "JPEGImages/a.jpg").write_text("<html>")
    severity, name, _, reason = only(check_data(tmp_path, decode=decode))
    assert (severity, name) == ("error", "a.jpg") and "no image" in reason


def test_missing_image_and_reader_problems(tmp_path: Path) -> None:
    add(tmp_path, "a", box(1, 1, 50, 50))
    add(tmp_path, "b", box(5, 1, 5, 50))
    add(tmp_path, "c", box(-20, 1, 50, 50))
    (tmp_path / "JPEGImages/a.jpg").unlink()
    report = check_data(tmp_path)
    assert [(row[0], row[1], row[2]) for row in findings(report)] == [
        ("error", "b.xml", "object 1 (dog)"),
        ("error", "a.jpg", ""),
        ("warning", "c.xml", "object 1 (dog)"),
    ]
    assert (report.errors, report.ok) == (2, False)


def test_other_format_than_the_name_says(tmp_path: Path) -> None:
    add(tmp_path, "a", box(1, 1, 50, 50))
    picture(tmp_path / "JPEGImages/a.jpg", kind="PNG")
    severity, name, _, reason = only(check_data(tmp_path))
    assert (severity, name) == (
        "warning",
        "a.jpg",
    ) and "is a PNG file although its name ends in '.jpg'" in reason


def test_size_that_differs(tmp_path: Path) -> None:
    add(tmp_path, "a", box(1, 1, 50, 50), size=(101, 80))
    report = check_data(tmp_path)
    severity, name, _, reason = only(report)
    assert (
        (severity, name) == ("error", "a.jpg")
        and "is 100 x 80 pixels" in reason
        and "state 101 x 80" in reason
    )
    assert report.splits["train"].objects == 0


def test_labels_made_on_the_unturned_image(tmp_path: Path) -> None:
    add(tmp_path, "a", box(1, 1, 50, 50))
    picture(tmp_path / "JPEGImages/a.jpg", orientation=6)
    severity, name, _, reason = only(check_data(tmp_path))
    assert (severity, name) == ("error", "a.jpg") and "EXIF turns this image to 80 x 100" in reason


def test_labels_made_on_the_turned_image_are_right(tmp_path: Path) -> None:
    add(tmp_path, "a", box(1, 1, 50, 50), size=(80, 100))
    picture(tmp_path / "JPEGImages/a.jpg", orientation=6)
    assert findings(check_data(tmp_path)) == []


@pytest.mark.parametrize("orientation", [2, 3, 4])
def test_turned_image_whose_size_does_not_show_it(tmp_path: Path, orientation: int) -> None:
    add(tmp_path, "a", box(1, 1, 50, 50))
    add(tmp_path, "background")
    for name in ("a", "background"):
        picture(tmp_path / f"JPEGImages/{name}.jpg", orientation=orientation, seed=len(name))
    severity, name, _, reason = only(check_data(tmp_path))
    assert (severity, name) == ("warning", "a.jpg")
    assert reason.startswith(f"EXIF turns or mirrors it (orientation {orientation}); ")


def test_turned_square(tmp_path: Path) -> None:
    add(tmp_path, "a", box(1, 1, 50, 50), size=(80, 80))
    values = Pillow.Exif()
    values[0x0112] = 6
    Pillow.new("RGB", (80, 80)).save(tmp_path / "JPEGImages/a.jpg", exif=values)
    assert only(check_data(tmp_path))[::3] == ("warning", EXIF.format(6))


@pytest.mark.parametrize("decode", [True, False])
def test_turned_image_of_a_format_without_sizes(tmp_path: Path, decode: bool) -> None:
    for name, orientation in (("a", 6), ("b", 1)):
        picture(tmp_path / f"images/{name}.jpg", orientation=orientation, seed=orientation)
        (tmp_path / "labels").mkdir(exist_ok=True)
        (tmp_path / f"labels/{name}.txt").write_text("0 .5 .5 .2 .2\n")
    (tmp_path / "data.yaml").write_text("train: images\nnames: [dog]\n")
    assert only(check_data(tmp_path, decode=decode)) == ("warning", "a.jpg", "", EXIF.format(6))


def test_tiny_and_repeated_boxes(tmp_path: Path) -> None:
    boxes = [
        box(1, 1, 50, 50),
        box(3, 3, 3.5, 9),
        box(1, 1, 50, 50),
        box(1, 1, 50, 50, name="cat"),
        box(4, 4, 5, 5),
    ]
    add(tmp_path, "a", *boxes)
    report = check_data(tmp_path)
    tiny, repeated = findings(report)
    assert tiny[:3] == ("warning", "a.xml", "object 2 (dog)") and "0.5 x 6 pixels" in tiny[3]
    assert repeated[:3] == ("warning", "a.xml", "object 3 (dog)") and "repeats object 1" in repeated[3]
    assert report.ok and report.splits["train"].objects == 5


def test_image_in_two_splits(tmp_path: Path) -> None:
    add(tmp_path, "a", box(1, 1, 50, 50), split="train", seed=1)
    add(tmp_path, "b", box(1, 1, 50, 50), split="val", seed=1)  # the same bytes under another name
    add(tmp_path, "c", split="val", seed=2)
    add(tmp_path, "d", split="val", seed=2)  # twice in one split leaks nothing
    severity, name, _, reason = only(check_data(tmp_path))
    assert (severity, name) == ("warning", "b.jpg") and "in split 'train'" in reason and "a.jpg" in reason


def test_trainval_is_left_out_unless_asked_for(tmp_path: Path) -> None:
    add(tmp_path, "a", split="train")
    add(tmp_path, "b", split="val")
    (tmp_path / "ImageSets/Main/trainval.txt").write_text("a\nb\n")
    assert list(check_data(tmp_path).splits) == ["train", "val"]
    report = check_data(tmp_path, ["trainval"])
    assert list(report.splits) == ["trainval"] and report.splits["trainval"].images == 2


def test_classes_without_an_object(tmp_path: Path) -> None:
    original = tmp_path / "VOC2012"  # the name by which VOC's own folders, and so their classes, are known
    original.mkdir()
    add(original, "a", box(1, 1, 50, 50, name="dog"))
    problem, few = check_data(original).problems
    assert (few.severity, few.place) == ("warning", "classes") and "dog (1)" in few.reason
    assert (problem.severity, problem.file, problem.place) == ("warning", original, "classes")
    assert problem.reason.startswith("19 of 20 classes have no object in any split: aeroplane, ")
    assert "dog," not in problem.reason


def test_classes_in_few_training_images(tmp_path: Path) -> None:
    for number in range(11):
        own = [box(1, 1, 50, 50, name="ant")] + [box(2, 2, 60, 60, name="bee")] * 2 * (number < 10)
        add(tmp_path, f"t{number}", *own)
        add(tmp_path, f"v{number}", box(1, 1, 50, 50, name="bee"), split="val", seed=100 + number)
    report = check_data(tmp_path, decode=False)
    (few,) = [problem for problem in report.problems if problem.place == "classes"]
    assert few.severity == "warning" and few.file == tmp_path and report.ok
    assert few.reason == (
        "1 class is in 10 or fewer training images: bee (10); label more of them, or repeat their images with"
        " --oversample"
    )
    train = report.splits["train"]
    assert train.per_class == {"ant": 11, "bee": 20} and train.images_per_class == {"ant": 11, "bee": 10}


def test_a_class_of_crowds_alone(tmp_path: Path) -> None:
    """COCO's crowds are counted, but training learns nothing from them."""
    (tmp_path / "annotations").mkdir()
    (tmp_path / "images").mkdir()
    Pillow.new("RGB", (100, 80)).save(tmp_path / "images/a.jpg")
    rows = [
        {"id": n, "image_id": 1, "category_id": n, "bbox": [10, 20, 30, 40], "iscrowd": n - 1} for n in (1, 2)
    ]
    value = {
        "images": [{"id": 1, "file_name": "a.jpg", "width": 100, "height": 80}],
        "annotations": rows,
        "categories": [{"id": 1, "name": "cat"}, {"id": 2, "name": "dog"}],
    }
    (tmp_path / "annotations/train.json").write_text(json.dumps(value))
    report = check_data(tmp_path)
    assert report.splits["train"].per_class == {"cat": 1, "dog": 1}
    reasons = [problem.reason for problem in report.problems]
    assert "training has nothing but crowds of dog, which are not learned without --crowds" in reasons
    assert any("cat (1);" in reason for reason in reasons), "and not dog (1)"


@pytest.mark.parametrize("decode", [True, False])
def test_a_split_that_is_in_another_is_told_once(tmp_path: Path, decode: bool) -> None:
    for name in ("a", "b", "c"):
        add(tmp_path, name, box(1, 1, 50, 50))
    (tmp_path / "ImageSets/Main/val.txt").write_text("a\nc\n")
    severity, name, place, reason = only(check_data(tmp_path, decode=decode))
    assert (severity, name, place) == ("warning", tmp_path.name, "split 'val'")
    assert reason.startswith("all its 2 images are in split 'train' too")


@pytest.mark.parametrize("link", ["symlink_to", "hardlink_to"])
def test_one_file_under_two_names_is_seen_without_decoding(tmp_path: Path, link: str) -> None:
    add(tmp_path, "a", box(1, 1, 50, 50))
    add(tmp_path, "b", box(1, 1, 50, 50), split="val")
    file = tmp_path / "JPEGImages/b.jpg"
    file.unlink()
    getattr(file, link)(tmp_path / "JPEGImages/a.jpg")
    severity, name, _, reason = only(check_data(tmp_path, decode=False))
    assert (severity, name) == ("warning", "b.jpg") and "in split 'train' as" in reason


def test_a_faulty_image_in_two_splits_is_named_once(tmp_path: Path) -> None:
    for name in ("a", "b"):
        add(tmp_path, name, box(1, 1, 50, 50))
    add(tmp_path, "c", box(1, 1, 50, 50), split="val")
    file = tmp_path / "JPEGImages/a.jpg"
    whole = file.read_bytes()
    file.write_bytes(whole[: len(whole) // 3] + whole[-2:])
    with (tmp_path / "ImageSets/Main/val.txt").open("a") as lines:
        lines.write("a\n")
    severity, name, _, reason = only(check_data(tmp_path))
    assert (severity, name) == ("error", "a.jpg") and "the JPEG is damaged" in reason


def test_a_split_without_an_object_is_an_error(tmp_path: Path) -> None:
    add(tmp_path, "a", box(1, 1, 50, 50))
    add(tmp_path, "b", split="val")
    add(tmp_path, "c", split="val")
    severity, name, place, reason = only(check_data(tmp_path))
    assert (severity, name, place) == ("error", tmp_path.name, "split 'val'")
    assert reason == "none of its 2 usable images has an object; add labels or leave it out"


def test_empty_split_is_a_finding(tmp_path: Path) -> None:
    add(tmp_path, "a", box(1, 1, 50, 50))
    (tmp_path / "ImageSets/Main/val.txt").touch()
    report = check_data(tmp_path)
    assert only(report)[:2] == ("error", "val.txt")
    assert report.splits["val"].images == 0 and report.splits["train"].images == 1


def test_split_that_is_not_there(tmp_path: Path) -> None:
    add(tmp_path, "a")
    severity, name, _, reason = only(check_data(tmp_path, ["test"]))
    assert (severity, name) == ("error", "test.txt") and "no split 'test'" in reason


def test_none_is_every_image(tmp_path: Path) -> None:
    add(tmp_path, "a")
    report = check_data(tmp_path, ["none"])
    assert report.splits["all"].images == 1 and list(report.splits) == ["all"]


def test_no_data_at_all(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="no such file"):
        check_data(tmp_path / "none")


def test_voc_without_image_sets(tmp_path: Path) -> None:
    add(tmp_path, "a")
    (tmp_path / "ImageSets/Main/train.txt").unlink()
    assert check_data(tmp_path).splits["all"].images == 1


def test_coco_without_sizes_is_measured(tmp_path: Path) -> None:
    picture(tmp_path / "images/a.jpg")
    boxes = [[1, 1, 10, 10], [90, 70, 20, 20], [100, 1, 5, 5]]
    notes = [{"id": n, "image_id": 7, "category_id": 1, "bbox": corners} for n, corners in enumerate(boxes)]
    content = {
        "images": [{"id": 7, "file_name": "a.jpg"}],
        "annotations": notes,
        "categories": [{"id": 1, "name": "dog"}],
    }
    (tmp_path / "annotations").mkdir()
    (tmp_path / "annotations/instances_train.json").write_text(json.dumps(content))
    outside, leaving = findings(check_data(tmp_path))
    assert outside[:3] == ("error", "instances_train.json", "annotation id 2") and "outside" in outside[3]
    assert leaving[:3] == ("warning", "instances_train.json", "annotation id 1") and "leaves" in leaving[3]


def test_classes_that_are_written_almost_alike(tmp_path: Path) -> None:
    names = ("Cat", "cat", "traffic light", "Traffic_Light", "cats")
    add(tmp_path, "a", *(box(1, 1, 50, 50 + number, name=name) for number, name in enumerate(names)))
    reasons = [problem.reason.partition(" differ ") for problem in check_data(tmp_path).problems]
    assert [who for who, differ, _ in reasons if differ] == [
        "'Cat' and 'cat'",
        "'Traffic_Light' and 'traffic light'",
    ]


def test_progress_is_told(tmp_path: Path) -> None:
    for name, split in (("a", "train"), ("b", "train"), ("c", "val")):
        add(tmp_path, name, box(1, 1, 50, 50), split=split)
    (tmp_path / "JPEGImages/b.jpg").write_bytes(b"no image")
    told: list[tuple[str, int, int]] = []
    check_data(tmp_path, watch=lambda *state: told.append(state))
    assert told == [("train", 1, 2), ("train", 2, 2), ("val", 1, 1)]


def test_report_as_json_and_table(tmp_path: Path) -> None:
    add(tmp_path, "a[red]", box(5, 1, 5, 50, name="dog"))
    add(tmp_path, "b", box(5, 1, 50, 50, name="[b]"))
    report = check_data(tmp_path)
    plain = json.loads(json.dumps(report.to_json()))
    assert (plain["ok"], plain["errors"], plain["warnings"]) == (False, 1, 2)
    assert plain["problems"][0]["file"] == str(tmp_path / "Annotations/a[red].xml")
    assert plain["splits"]["train"]["images"] == 2 and plain["splits"]["train"]["per_class"] == {
        "[b]": 1,
        "dog": 0,
    }
    console = Console(width=200, record=True, file=open(os.devnull, "w"))  # noqa: SIM115, PTH123
    console.print(report.table(limit=1), report.summary())
    shown = console.export_text()
    assert "a[red].xml" in shown and "xmax <= xmin" in shown and "and 2 more" in shown and "[b]" in shown


@needs_data
@pytest.mark.parametrize(
    ("name", "errors", "backgrounds"),
    [("bccd", 2, 0), ("coco128", 0, 2), ("coco-tiny", 0, 0), ("voc2012-animals", 0, 0)],
)
def test_real_data(name: str, errors: int, backgrounds: int) -> None:
    report = check_data(Path(REAL) / name, decode=name != "voc2012-animals")  # the largest: headers only
    assert report.errors == errors
    assert sum(counts.backgrounds for counts in report.splits.values()) == backgrounds


def test_a_visitor_sees_every_usable_image(tmp_path: Path) -> None:
    add(tmp_path, "good", box(10, 10, 50, 50), box(20, 20, 60, 60, name="cat"))
    add(tmp_path, "faulty", box(10, 10, 10, 50))
    add(tmp_path, "late", split="val")
    seen: list[Seen] = []
    report = check_data(tmp_path, visit=seen.append)
    assert [(one.split, one.record.image_id) for one in seen] == [("train", "good"), ("val", "late")]
    assert len(seen) == sum(counts.usable for counts in report.splits.values())
    assert [seen[0].classes[label] for label in seen[0].record.labels] == ["dog", "cat"]
    assert (seen[0].header.width, seen[0].header.height) == (100, 80)
    assert seen[0].image is not None
    assert seen[0].image.shape == (*SHAPE, 3)
    seen.clear()
    check_data(tmp_path, decode=False, visit=seen.append)
    assert [one.image for one in seen] == [None, None]


def test_pictures_in_another_folder(tmp_path: Path) -> None:
    add(tmp_path / "data", "a", box(1, 1, 50, 50))
    (tmp_path / "data/JPEGImages").rename(tmp_path / "pictures")
    assert "missing" in only(check_data(tmp_path / "data"))[3]
    report = check_data(tmp_path / "data", images=tmp_path / "pictures")
    assert report.ok and report.splits["train"].usable == 1


def test_the_format_is_named_and_those_that_are_not_read(tmp_path: Path) -> None:
    add(tmp_path, "a", box(1, 1, 50, 50))
    assert check_data(tmp_path).format == "voc"
    content = {"images": [], "annotations": [], "categories": []}
    (tmp_path / "annotations").mkdir()
    (tmp_path / "annotations/instances_train.json").write_text(json.dumps(content))
    report = check_data(tmp_path)
    assert report.format == "voc"
    assert "labels in the format coco lie there too" in only(report)[3]

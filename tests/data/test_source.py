"""One way in: formats are recognised, sources joined, classes chosen by name, bad sets refused."""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Sequence
from pathlib import Path

import cv2
import numpy as np
import pytest

from fssd.data import source
from fssd.data.check import check_data
from fssd.data.formats.labels import LabelledObject, build_record
from fssd.data.formats.reader import Reader
from fssd.data.sample import DataSet, Problem
from fssd.data.source import find_reader, list_splits, open_data, other_formats, problem_error, require_usable
from fssd.errors import ConfigError, DataError, ImageError, LabelError

REAL = os.environ.get("FSSD_TEST_DATA", "")
needs_data = pytest.mark.skipif(not REAL, reason="FSSD_TEST_DATA does not name a folder of data sets")


def image(path: Path) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    cv2.imwrite(str(path), np.zeros((100, 100, 3), np.uint8))


def text(path: Path, content: str) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(content)
    return path


def voc(root: Path, split: str, images: dict[str, list[str]]) -> Path:
    """A VOC folder with objects of the given classes on each image, all 10 x 10 at (i, i)."""
    for name, classes in images.items():
        image(root / "JPEGImages" / f"{name}.jpg")
        boxes = "".join(
            f"<object><name>{c}</name><bndbox><xmin>{i}</xmin><ymin>{i}</ymin><xmax>{i + 10}</xmax>"
            f"<ymax>{i + 10}</ymax></bndbox></object>"
            for i, c in enumerate(classes)
        )
        size = "<size><width>100</width><height>100</height></size>"
        text(root / "Annotations" / f"{name}.xml", f"<annotation>{size}{boxes}</annotation>")
    text(root / "ImageSets/Main" / f"{split}.txt", "\n".join(images))
    return root


def coco(root: Path, split: str, images: dict[str, list[str]], names: list[str]) -> Path:
    rows, notes = [], []
    for number, (name, classes) in enumerate(images.items(), 1):
        image(root / split / f"{name}.jpg")
        rows.append({"id": number, "file_name": f"{name}.jpg", "width": 100, "height": 100})
        for i, c in enumerate(classes):
            box = [i, i, 10, 10]
            notes.append(
                {"id": len(notes), "image_id": number, "category_id": 10 * names.index(c), "bbox": box}
            )
    categories = [{"id": 10 * number, "name": name} for number, name in enumerate(names)]
    content = {"images": rows, "annotations": notes, "categories": categories}
    text(root / "annotations" / f"instances_{split}.json", json.dumps(content))
    return root


def yolo(root: Path) -> Path:
    image(root / "images/train/a.png")
    text(root / "labels/train/a.txt", "0 .5 .5 .1 .1")
    text(root / "data.yaml", "train: images/train\nnames: [cat]")
    return root


def contents(data: DataSet) -> dict[str, list[str]]:
    """Image id -> class names, in order."""
    return {record.image_id: [data.classes[label] for label in record.labels] for record in data.records}


def test_formats_are_recognised(tmp_path: Path) -> None:
    flat = voc(tmp_path / "flat", "train", {"a": ["ant"]})
    voc(tmp_path / "outer/VOCdevkit/VOC2007", "train", {"a": ["ant"]})
    cocos = coco(tmp_path / "coco", "train2017", {"a": ["ant"]}, ["bee", "ant"])
    yolos = yolo(tmp_path / "yolo")
    expected = {
        flat: ("voc", {"a": ["ant"]}),
        tmp_path / "outer": ("voc", {"a": ["ant"]}),
        tmp_path / "outer/VOCdevkit": ("voc", {"a": ["ant"]}),
        tmp_path / "outer/VOCdevkit/VOC2007": ("voc", {"a": ["ant"]}),
        cocos: ("coco", {"1": ["ant"]}),
        cocos / "annotations/instances_train2017.json": ("coco", {"1": ["ant"]}),
        yolos: ("yolo", {"train/a.png": ["cat"]}),
        yolos / "data.yaml": ("yolo", {"train/a.png": ["cat"]}),
    }
    for path, (kind, images) in expected.items():
        for split in ("train", None):
            data = open_data(path, split)
            assert (data.facts["format"], contents(data), data.facts["images"]) == (kind, images, 1)
        assert list_splits(path)[0].startswith("train") and len(list_splits(path)) == 1


def test_nothing_known(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="no such file or folder"):
        open_data(tmp_path / "none")
    with pytest.raises(DataError, match=r"looked for .*VOC.*COCO.*YOLO") as caught:
        open_data(tmp_path)
    assert caught.value.file == tmp_path
    with pytest.raises(DataError, match="is no data set"):
        open_data(text(tmp_path / "a.csv", "x"))


def test_coco_folder_joins_its_splits(tmp_path: Path) -> None:
    for split in ("train", "val"):
        coco(tmp_path, split, {split: ["ant"]}, ["bee", "ant"])
    assert list_splits(tmp_path) == ("train", "val")
    data = open_data(tmp_path, "train+val")
    assert contents(data) == {"1:1": ["ant"], "2:1": ["ant"]}  # both files count their images from 1
    assert data.facts["category_ids"] == (0, 10) and data.facts["images"] == 2
    with pytest.raises(DataError, match="no split 'test'; splits here: train, val"):
        open_data(tmp_path, "test")
    with pytest.raises(DataError, match="no split 'val'; splits here: train"):
        open_data(tmp_path / "annotations/instances_train.json", "val")


def test_classes_of_a_model(tmp_path: Path) -> None:
    root = voc(tmp_path, "train", {"a": ["dog", "cat"]})
    data = open_data(root, "train", ["cat", "cow", "dog"])
    assert data.classes == ("cat", "cow", "dog") and data.records[0].labels.tolist() == [2, 0]
    (problem,) = open_data(root, "train", ["cat"]).problems
    assert problem.place == "object 1 (dog)" and "unknown class 'dog'" in problem.reason


# A format in one place: `boxes.txt` holds a class, an image and a box on each line, all in a split "train".


def read_toy(root: Path, split: str | None, classes: Sequence[str] | None, images: Path | None) -> DataSet:
    if split not in (None, "train"):
        raise DataError(f"there is no split {split!r}", file=root)
    names = tuple(classes or toy_classes(root))
    index = {name: label for label, name in enumerate(names)}
    records, problems = [], []
    for number, line in enumerate(root.read_text().splitlines(), 1):
        name, file, *numbers = line.split()
        x1, y1, x2, y2 = map(float, numbers)
        item = LabelledObject(name, (x1, y1, x2, y2), f"line {number}")
        path = (images or root.parent) / file
        record, found = build_record(file, path, root, (100, 100), objects=[item], index=index)
        problems += found
        if record is not None:
            records.append(record)
    facts = {"format": "toy", "images": len(root.read_text().splitlines())}
    return DataSet(names, tuple(records), tuple(problems), facts)


def toy_classes(root: Path) -> tuple[str, ...]:
    return tuple(sorted({line.split()[0] for line in root.read_text().splitlines()}))


def find_toy(path: Path) -> Path | None:
    file = path / "boxes.txt" if path.is_dir() else path
    return file if file.name == "boxes.txt" and file.is_file() else None


TOY = Reader("toy", "boxes.txt (toy)", find_toy, lambda _: ("train",), toy_classes, read_toy)


def test_another_format_is_one_more_row(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    empty = tmp_path / "empty"
    empty.mkdir()
    monkeypatch.setattr(source, "READERS", (TOY, *source.READERS))
    for name in ("a", "b"):
        image(tmp_path / f"toy/{name}.jpg")
    root = text(tmp_path / "toy/boxes.txt", "dog a.jpg 10 10 30 40\ncat b.jpg 5 5 205 50\n")

    for path in (root, root.parent):
        assert list_splits(path) == ("train",)
        data = open_data(path, "train")
        assert (data.classes, contents(data)) == (("cat", "dog"), {"a.jpg": ["dog"], "b.jpg": ["cat"]})
    report = check_data(root.parent)
    assert (report.ok, report.splits["train"].objects) == (True, 2)
    (problem,) = [problem for problem in report.problems if problem.file == root]
    assert problem.place == "line 2" and "leaves the image" in problem.reason
    with pytest.raises(LabelError, match=r"boxes\.txt \(line 1\): unknown class 'dog'"):
        require_usable(open_data(root, "train", ["cat"]))

    voc(tmp_path / "kit", "train", {"x": ["cow"]})
    file = text(tmp_path / "all.yaml", "sources: [{data: toy}, {data: kit}]")
    assert contents(open_data(file, "train")) == {"a.jpg": ["dog"], "b.jpg": ["cat"], "x": ["cow"]}
    with pytest.raises(DataError, match=r"looked for boxes\.txt \(toy\), .*VOC.*data\.yaml.*\(YOLO"):
        open_data(empty)


JOINED = """
sources:
  - {data: kit, split: {train: 2007_train+2012_train, val: 2007_val}}
  - {data: coco, split: {train: train}}
"""


@pytest.fixture
def joined(tmp_path: Path) -> Path:
    """Four sources' worth: a devkit of two years and a COCO folder that has a training split only."""
    voc(tmp_path / "kit/VOC2007", "train", {"a": ["dog", "puppy"], "7": ["cow"]})
    voc(tmp_path / "kit/VOC2007", "val", {"b": ["cow"]})
    voc(tmp_path / "kit/VOC2012", "train", {"c": []})
    coco(tmp_path / "coco", "train", {"x": ["kitten", "dog"]}, ["dog", "kitten"])
    return tmp_path


def test_joined_sources(joined: Path) -> None:
    file = text(joined / "all.yaml", JOINED)
    train, val = open_data(file, "train"), open_data(file, "val")
    assert train.classes == val.classes == ("cow", "dog", "puppy", "kitten")
    expected = {"a": ["dog", "puppy"], "7": ["cow"], "c": [], "1": ["kitten", "dog"]}
    assert contents(train) == expected
    assert contents(val) == {"b": ["cow"]}
    assert list_splits(file) == ("train", "val")
    assert other_formats(file) == (), "a file that joins sources is no YOLO yaml"
    assert other_formats(joined) == ("coco", "joined") and find_reader(joined)[0].name == "voc"
    assert (train.facts["images"], train.facts["format"], val.facts["images"]) == (4, "coco+voc", 1)
    assert contents(open_data(file)) == {**expected, "b": ["cow"]}
    boxes = {record.image_id: record.boxes.tolist() for record in train.records}
    assert boxes["1"] == [[0, 0, 10, 10], [1, 1, 11, 11]]


def test_joined_sources_that_call_a_split_differently(tmp_path: Path) -> None:
    for name, split in (("kit", "valid"), ("other", "val")):
        voc(tmp_path / name, "train", {f"{name}-a": ["dog"]})
        voc(tmp_path / name, split, {f"{name}-b": ["dog"]})
    file = text(tmp_path / "all.yaml", "sources: [{data: kit}, {data: other}]")
    assert list_splits(file) == ("train", "val")
    assert set(contents(open_data(file, "val"))) == {"kit-b", "other-b"}


def test_a_joined_source_without_splits(tmp_path: Path) -> None:
    voc(tmp_path / "kit", "train", {"a": ["dog"]})
    voc(tmp_path / "kit", "val", {"b": ["dog"]})
    voc(tmp_path / "flat", "x", {"c": ["dog"]})
    shutil.rmtree(tmp_path / "flat/ImageSets")
    file = text(tmp_path / "all.yaml", "sources: [{data: kit}, {data: flat}]")
    with pytest.raises(DataError, match=r"\(sources\[1\]\): .*flat has no splits; .* `split: {train: null}`"):
        open_data(file, "train")
    assert set(contents(open_data(file))) == {"a", "b", "c"}
    own = "{train: train, val: val}"
    text(file, f"sources: [{{data: kit, split: {own}}}, {{data: flat, split: {{train: null}}}}]")
    assert [set(contents(open_data(file, split))) for split in ("train", "val")] == [{"a", "c"}, {"b"}]
    assert list_splits(file) == ("train", "val")


def test_classes_of_every_format(tmp_path: Path, joined: Path) -> None:
    expected = {
        joined / "kit": ("cow", "dog", "puppy"),
        joined / "coco": ("dog", "kitten"),
        yolo(tmp_path / "yolo"): ("cat",),
        text(joined / "all.yaml", "map: {puppy: dog}" + JOINED): ("cow", "dog", "kitten"),
    }
    for path, classes in expected.items():
        reader, root = find_reader(path)
        assert reader.classes(root) == classes == open_data(path).classes


def test_sources_are_looked_for_beside_the_file_and_then_where_the_command_runs(
    joined: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (joined / "deep").mkdir()
    file = text(joined / "deep" / "all.yaml", JOINED)
    monkeypatch.chdir(joined)
    assert len(open_data(file, "train")) == len(open_data(text(joined / "all.yaml", JOINED), "train")) > 0


def test_selection_and_renames(joined: Path) -> None:
    file = text(joined / "all.yaml", "classes: [cat, dog]\nmap: {puppy: dog, kitten: cat}" + JOINED)
    train = open_data(file, "train")
    assert train.classes == ("cat", "dog") and train.problems == ()
    assert contents(train) == {"a": ["dog", "dog"], "7": [], "c": [], "1": ["cat", "dog"]}
    kept = next(
        record for record in open_data(file, "train", ["dog", "cat"]).records if record.image_id == "1"
    )
    assert kept.labels.tolist() == [1, 0]
    assert kept.boxes.tolist() == [[0, 0, 10, 10], [1, 1, 11, 11]]


def test_selection_drops_boxes_with_their_labels(joined: Path) -> None:
    file = text(joined / "all.yaml", "classes: [puppy]" + JOINED)
    record = open_data(file, "train").records[0]
    assert record.boxes.tolist() == [[1, 1, 11, 11]]
    assert len(record.labels) == len(record.difficult) == len(record.crowd) == 1


def test_a_source_with_its_pictures_elsewhere(joined: Path) -> None:
    (joined / "coco/train").rename(joined / "pictures")
    content = JOINED.replace("data: coco,", "data: coco, images: pictures,")
    file = text(joined / "all.yaml", content)
    (record,) = (record for record in open_data(file, "train").records if record.image_id == "1")
    assert record.path == joined / "pictures/x.jpg"
    with pytest.raises(DataError, match=r"\(sources\[1\]\): there is no nowhere"):
        open_data(text(joined / "all.yaml", content.replace("pictures", "nowhere")), "train")


def test_class_of_another_split_is_known(joined: Path) -> None:
    file = text(joined / "all.yaml", "classes: [kitten, cow]" + JOINED)  # no kitten among the sources of val
    assert contents(open_data(file, "val")) == {"b": ["cow"]}


def test_class_that_a_model_does_not_know(joined: Path) -> None:
    file = text(joined / "all.yaml", "classes: [dog, kitten]" + JOINED)
    data = open_data(file, "train", ["dog"])
    (problem,) = data.problems  # cow and puppy were dropped on purpose
    assert problem.file.name == "instances_train.json" and problem.place == "image 1, object 1 (kitten)"
    assert sorted(contents(data)) == ["7", "a", "c"]
    with pytest.raises(LabelError, match="unknown class 'kitten'"):
        require_usable(data)


@pytest.mark.parametrize(
    ("sources", "shared"),
    [
        ("[{data: one}, {data: one}]", 2),
        ("[{data: one, split: {train: train}}, {data: one, split: {train: null}}]", 2),
        ("[{data: one}, {data: link}, {data: two}]", 2),
        ("[{data: one}, {data: two}]", 0),
    ],
)
def test_pictures_that_two_sources_have_are_told(tmp_path: Path, sources: str, shared: int) -> None:
    for name in ("one", "two"):
        voc(tmp_path / name, "train", {"a": ["dog"], "b": ["dog"]})
    (tmp_path / "link").symlink_to("one")
    file = text(tmp_path / "all.yaml", f"sources: {sources}")
    notes = [problem.reason for problem in open_data(file, "train").problems if problem.file == file]
    told = [f"{shared} pictures are listed twice, the first is"] if shared else []
    assert [note[: len(told[0])] for note in notes] == told
    assert not shared or "with the ids 1:a and 2:a" in notes[0]


def test_a_picture_that_a_source_has_twice_is_told_once(tmp_path: Path) -> None:
    voc(tmp_path / "one", "train", {"a": ["dog"], "b": ["dog"]})
    picture = tmp_path / "one/JPEGImages/b.jpg"
    picture.unlink()
    picture.symlink_to("a.jpg")
    voc(tmp_path / "two", "train", {"c": ["dog"]})
    file = text(tmp_path / "all.yaml", "sources: [{data: one}, {data: two}]")
    (note,) = (item for item in open_data(file, "train").problems if "listed twice" in item.reason)
    assert note.file == tmp_path / "one" and note.reason.startswith("1 pictures are listed twice")


def test_ids_are_prefixed_only_when_they_collide(tmp_path: Path) -> None:
    voc(tmp_path / "one", "train", {"a": [], "b": []})
    voc(tmp_path / "two", "train", {"a": [], "c": []})
    file = text(tmp_path / "all.yaml", "sources: [{data: one}, {data: two}]")
    assert list(contents(open_data(file, "train"))) == ["1:a", "b", "2:a", "c"]


@pytest.mark.parametrize(
    ("content", "kind", "message"),
    [
        ("class: [dog]" + JOINED, ConfigError, r"all\.yaml: unknown key 'class'; did you mean 'classes'"),
        (
            "sources: [{data: coco, splits: {}}]",
            ConfigError,
            r"sources\[0\]\): unknown key 'splits'.*'split'",
        ),
        (
            "classes: [dgo]" + JOINED,
            DataError,
            r"\(classes\): no source has a class 'dgo'; did you mean 'dog'",
        ),
        ("map: {pupy: dog}" + JOINED, DataError, r"\(map\): no source has a class 'pupy'.*'puppy'"),
        ("classes: dog" + JOINED, DataError, r"\(classes\): must be a list"),
        ("classes: [dog, dog]" + JOINED, DataError, r"\(classes\): must be a list of class names, each once"),
        ("map: [dog]" + JOINED, DataError, r"\(map\): must give"),
        ("sources: []", DataError, r"\(sources\): must be a list"),
        ("sources: [{split: {}}]", DataError, r"\(sources\[0\]\): needs `data:`"),
        ("sources: [{data: coco, split: train}]", DataError, r"\(sources\[0\]\.split\): must map"),
        ("sources: [{data: gone}]", DataError, r"\(sources\[0\]\): there is no gone, neither"),
        ("sources: [{data: all.yaml}]", DataError, "joins sources itself"),
        ("sources: [{data: kit, split: {val: 2007_val}}]", DataError, "no source has a split 'train'.*val"),
    ],
)
def test_unusable_yaml(joined: Path, content: str, kind: type[Exception], message: str) -> None:
    file = text(joined / "all.yaml", content)
    with pytest.raises(kind, match=message):
        open_data(file, "train")


def test_usable_share(tmp_path: Path) -> None:
    root = voc(tmp_path, "train", {name: ["dog"] for name in "abcd"})
    require_usable(open_data(root, "train"))
    (root / "JPEGImages/b.jpg").unlink()
    data = open_data(root, "train")
    assert sorted(contents(data)) == ["a", "c", "d"]
    with pytest.raises(
        ImageError, match=r"b\.jpg: .*missing.*\(1 of 4 images have errors, 0\.0% are allowed\)"
    ):
        require_usable(data)
    with pytest.raises(ImageError):
        require_usable(data, 0.24)
    require_usable(data, 0.25)


def test_warnings_are_usable_and_nothing_left_is_not(tmp_path: Path) -> None:
    root = voc(tmp_path, "train", {"a": ["dog"]})
    (record,) = open_data(root, "train").records
    warning = Problem("warning", Path("a.xml"), "object 1", "clipped")
    require_usable(DataSet(("dog",), (record,), (warning,), {"images": 1}))
    (root / "JPEGImages/a.jpg").unlink()
    with pytest.raises(ImageError):
        require_usable(open_data(root, "train"), 1.0)
    with pytest.raises(DataError, match="no image"):
        require_usable(DataSet(("dog",), ()))


@pytest.mark.parametrize(
    ("file", "place", "kind"),
    [
        ("a.JPG", "", ImageError),
        ("a.xml", "", LabelError),
        ("a.txt", "line 3", LabelError),
        ("a.json", "annotation id 3", LabelError),
        ("a.yaml", "", DataError),
    ],
)
def test_problems_become_typed_errors(file: str, place: str, kind: type[DataError]) -> None:
    error = problem_error(Problem("error", Path(file), place, "is odd"))
    assert type(error) is kind
    assert (error.file, error.place) == (Path(file), place) and str(error).endswith("is odd")


@needs_data
def test_real_sources_join(tmp_path: Path) -> None:
    sources = [{"data": str(Path(REAL) / name)} for name in ("coco128", "coco-tiny")]
    file = text(tmp_path / "a.yaml", json.dumps({"classes": ["dog", "person"], "sources": sources}))
    data = open_data(file, "train")
    assert len(data) == 208 and [problem.severity for problem in data.problems] == ["warning"] * 2
    assert len({record.image_id for record in data.records}) == 208
    assert {label for record in data.records for label in record.labels.tolist()} == {0, 1}

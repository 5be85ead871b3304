"""Pascal VOC folders: splits, class order, boxes, and every fault with file and place."""

from __future__ import annotations

import filecmp
import os
from collections.abc import Sequence
from pathlib import Path
from unicodedata import normalize

import cv2
import numpy as np
import pytest

from fssd.data.formats.voc import VOC, VOC_CLASSES, read_voc
from fssd.data.sample import DataSet, Problem
from fssd.data.source import find_reader, open_data
from fssd.errors import DataError

BOX = (10, 20, 30, 40)
REAL = os.environ.get("FSSD_TEST_DATA", "")
needs_data = pytest.mark.skipif(not REAL, reason="FSSD_TEST_DATA does not name a folder of data sets")


def obj(name: str = "dog", box: tuple[object, ...] = BOX, extra: str = "") -> str:
    tags = "".join(
        f"<{tag}>{value}</{tag}>" for tag, value in zip(("xmin", "ymin", "xmax", "ymax"), box, strict=True)
    )
    return f"<object><name>{name}</name>{extra}<bndbox>{tags}</bndbox></object>"


def xml(
    *objects: str, size: str = "<size><width>100</width><height>80</height></size>", filename: str = ""
) -> str:
    return f"<annotation><filename>{filename}</filename>{size}{''.join(objects)}</annotation>"


def write(root: Path, image_id: str, content: str, extension: str | None = ".jpg") -> Path:
    for folder in ("Annotations", "JPEGImages", "ImageSets/Main"):
        (root / folder).mkdir(parents=True, exist_ok=True)
    if extension is not None:
        cv2.imwrite(str(root / "JPEGImages" / f"{image_id}{extension}"), np.zeros((80, 100, 3), np.uint8))
    file = root / "Annotations" / f"{image_id}.xml"
    file.write_text(content, encoding="utf-8")
    return file


def lay(root: Path, label: str, picture: str) -> None:
    for name in (label, picture):
        (root / name.lstrip("/")).parent.mkdir(parents=True, exist_ok=True)
    (root / label.lstrip("/")).write_text(xml(obj("dog", BOX)))
    cv2.imwrite(str(root / picture.lstrip("/")), np.zeros((80, 100, 3), np.uint8))


def write_set(root: Path, split: str, *lines: str) -> Path:
    file = root / "ImageSets" / "Main" / f"{split}.txt"
    file.parent.mkdir(parents=True, exist_ok=True)
    file.write_text("".join(line + "\n" for line in lines))
    return file


def ids(data: DataSet) -> list[str]:
    return [record.image_id for record in data.records]


def only_error(data: DataSet) -> Problem:
    """The single problem of a set whose single image has an error."""
    assert not data.records
    (problem,) = data.problems
    assert problem.severity == "error"
    return problem


def test_boxes_are_taken_as_they_stand(tmp_path: Path) -> None:
    file = write(
        tmp_path,
        "a",
        xml(obj("dog", (1, 2.5, 100, 80)), obj("cat", BOX, "<difficult>1</difficult>"), obj("dog", BOX)),
    )
    write_set(tmp_path, "train", "a")
    data = read_voc(tmp_path, "train")
    (record,) = data.records
    assert data.problems == () and len(data) == 1
    assert record.path == tmp_path / "JPEGImages" / "a.jpg" and record.source == file
    assert (record.width, record.height) == (100, 80)
    assert record.boxes.dtype == np.float32
    assert record.boxes.tolist() == [[1, 2.5, 100, 80], [10, 20, 30, 40], [10, 20, 30, 40]]
    assert [data.classes[label] for label in record.labels] == ["dog", "cat", "dog"]
    assert record.difficult.tolist() == [False, True, False]
    assert not record.crowd.any()


@pytest.mark.parametrize(("word", "meaning"), [("True", True), ("1", True), ("false", False), ("", False)])
def test_difficult_by_its_meaning(tmp_path: Path, word: str, meaning: bool) -> None:
    write(tmp_path, "a", xml(obj("dog", BOX, f"<difficult>{word}</difficult>")))
    assert read_voc(tmp_path, None).records[0].difficult.tolist() == [meaning]


def test_difficult_without_a_meaning(tmp_path: Path) -> None:
    file = write(tmp_path, "a", xml(obj("dog", BOX, "<difficult>2</difficult>")))
    problem = only_error(read_voc(tmp_path, None))
    assert (problem.file, problem.place) == (file, "object 1 (dog)")
    assert "<difficult> is '2', neither true nor false" in problem.reason


LAYOUTS = {
    "annots/a.xml": "images/a.jpg",
    "annotations/a.xml": "Images/a.jpg",
    "a.xml": "a.jpg",
    "Annotations/night/a.xml": "JPEGImages/night/a.jpg",
}


@pytest.mark.parametrize("label", LAYOUTS)
def test_layouts(tmp_path: Path, label: str) -> None:
    lay(tmp_path, label, LAYOUTS[label])
    (tmp_path / "environment.yml").write_text("name: x\n - broken")
    (tmp_path / "other.xml").write_text("<project/>")
    reader, root = find_reader(tmp_path)
    (record,) = reader.read(root, None, None, None).records
    assert reader is VOC and record.path == tmp_path / LAYOUTS[label] and record.boxes.tolist() == [list(BOX)]
    assert record.image_id == ("night/a" if "night" in label else "a")


@pytest.mark.parametrize("names", [("train", "valid", "test"), ("Training", "Validation", "Testing")])
@pytest.mark.parametrize(("labels", "pictures"), [("", ""), ("Annotations", "Images")])
def test_folders_are_splits(tmp_path: Path, names: Sequence[str], labels: str, pictures: str) -> None:
    for number, name in enumerate(names):
        for image in ["same", "a", "b", "c"][: number + 1]:
            lay(tmp_path / name, f"{labels}/{image}.xml", f"{pictures}/{image}.jpg")
    reader, root = find_reader(tmp_path)
    assert reader is VOC and reader.splits(root) == tuple(name.lower() for name in names)
    assert [len(reader.read(root, split, None, None)) for split in ("train", "val", "test", None)] == [
        1,
        2,
        3,
        6,
    ]
    folder = tmp_path / names[1] / pictures
    assert {record.path.parent for record in reader.read(root, "val", None, None).records} == {folder}
    with pytest.raises(DataError, match="no split 'dev'; splits here"):
        reader.read(root, "dev", None, None)


def test_image_sets_name_images_in_folders(tmp_path: Path) -> None:
    for name in ("night/a", "day/a"):
        lay(tmp_path, f"Annotations/{name}.xml", f"JPEGImages/{name}.jpg")
    write_set(tmp_path, "default", "night/a", "day/a")
    assert VOC.splits(tmp_path) == ("default",)
    assert ids(read_voc(tmp_path, "default")) == ["night/a", "day/a"]


def test_ids_with_spaces(tmp_path: Path) -> None:
    for name in ("photo", "photo (1)", "my photo 1", "my photo", "x -1"):
        write(tmp_path, name, xml(obj("dog")))
    write_set(tmp_path, "train", "photo", "my photo")
    write_set(tmp_path, "val", "photo (1)", "my photo 1", "x -1")
    write_set(tmp_path, "dog_val", "photo (1)  1", "my photo -1", "photo\t0")
    assert VOC.splits(tmp_path) == ("train", "val")
    assert ids(read_voc(tmp_path, "train")) == ["photo", "my photo"]
    assert ids(read_voc(tmp_path, "val")) == ["photo (1)", "my photo 1", "x -1"]
    assert ids(read_voc(tmp_path, "dog_val")) == ["photo (1)", "photo"]


@pytest.mark.parametrize("lines", [("photo 1", "photo 2"), ("photo 1", "photo 0"), ("photo 1",)])
def test_a_number_of_a_missing_xml_file_is_no_flag(tmp_path: Path, lines: Sequence[str]) -> None:
    for name in ("photo 2", "photo 3"):
        write(tmp_path, name, xml(obj("dog")))
    listed = write_set(tmp_path, "train", *lines)
    write_set(tmp_path, "val", "photo 3")
    assert VOC.splits(tmp_path) == ("train", "val")
    first = read_voc(tmp_path, "train").problems[0]
    assert (first.severity, first.file, first.place) == ("error", listed, "line 1 (photo 1)")


@pytest.mark.parametrize(
    "set_name",
    ["ImageSets/main/{}.txt", "imagesets/Main/{}.txt", "ImageSets/Main/{}.TXT", "IMAGESETS/{}.Txt", "{}.TXT"],
)
def test_image_sets_in_capitals_or_not(tmp_path: Path, set_name: str) -> None:
    for name in "abc":
        lay(tmp_path, f"annotations/{name}.xml", f"images/{name}.jpg")
    for split, content in (("train", "a\nb\n"), ("val", "c\n")):
        file = tmp_path / set_name.format(split)
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text(content)
    assert VOC.splits(tmp_path) == ("train", "val")
    assert ids(read_voc(tmp_path, "train")) == ["a", "b"] and ids(read_voc(tmp_path, "val")) == ["c"]


def test_two_image_sets_whose_names_differ_in_capitals(tmp_path: Path) -> None:
    for name in "ab":
        write(tmp_path, name, xml(obj()))
    write_set(tmp_path, "val", "a")
    (tmp_path / "ImageSets/Main/val.TXT").write_text("b")
    assert VOC.splits(tmp_path) == ("val", "val.TXT")
    assert ids(read_voc(tmp_path, "val")) == ["a"] and ids(read_voc(tmp_path, "val.TXT")) == ["b"]


def test_an_id_is_the_whole_line(tmp_path: Path) -> None:
    write(tmp_path, "photo", xml(obj("dog")))
    listed = write_set(tmp_path, "val", "photo (2)")
    error, unused = read_voc(tmp_path, "val").problems
    assert (error.file, error.place) == (listed, "line 1 (photo (2))") and "missing" in error.reason
    assert unused.severity == "warning" and "1 of 1 xml files are in no image set" in unused.reason


def test_hidden_files_are_no_data(tmp_path: Path) -> None:
    write(tmp_path, "a", xml(obj("dog")))
    write_set(tmp_path, "train", "a")
    for name in ("Annotations/._a.xml", "JPEGImages/._a.jpg", "ImageSets/Main/._train.txt"):
        (tmp_path / name).write_bytes(b"\0\5\x16\7")
    assert VOC.splits(tmp_path) == ("train",)
    data = read_voc(tmp_path, None)
    assert ids(data) == ["a"] and data.problems == ()


def test_background_image(tmp_path: Path) -> None:
    write(tmp_path, "a", xml())
    (record,) = read_voc(tmp_path, None).records
    assert record.boxes.shape == (0, 4) and record.labels.shape == (0,)


def test_voc_classes_keep_their_order_even_if_few_occur(tmp_path: Path) -> None:
    original = tmp_path / "VOC2012"
    original.mkdir()
    write(original, "a", xml(obj("dog"), obj("cat")))
    data = read_voc(original, None)
    assert data.classes == VOC_CLASSES and len(VOC_CLASSES) == 20
    assert data.records[0].labels.tolist() == [11, 7]


def test_a_users_own_folder_has_the_classes_that_occur_in_it(tmp_path: Path) -> None:
    write(tmp_path, "a", xml(obj("person"), obj("car")))
    assert read_voc(tmp_path, None).classes == ("car", "person")


def test_other_classes_are_sorted_over_all_splits(tmp_path: Path) -> None:
    write(tmp_path, "a", xml(obj("dog")))
    write(tmp_path, "b", xml(obj("ant")))
    write_set(tmp_path, "train", "a")
    write_set(tmp_path, "val", "b")
    assert read_voc(tmp_path, "train").classes == read_voc(tmp_path, "val").classes == ("ant", "dog")


def test_given_classes_and_an_unknown_one(tmp_path: Path) -> None:
    file = write(tmp_path, "a", xml(obj("cat"), obj("dig")))
    data = read_voc(tmp_path, None, ["dog", "cat"])
    problem = only_error(data)
    assert data.classes == ("dog", "cat")
    assert (problem.file, problem.place) == (file, "object 2 (dig)")
    assert "unknown class 'dig'" in problem.reason and "did you mean 'dog'" in problem.reason


def test_years_are_found_joined_and_chosen(tmp_path: Path) -> None:
    for year, name in (("VOC2007", "a"), ("VOC2012", "b")):
        write(tmp_path / year, name, xml(obj()))
        write_set(tmp_path / year, "trainval", name)
    write(tmp_path / "VOC2007", "c", xml())
    write_set(tmp_path / "VOC2007", "test", "c")
    assert ids(read_voc(tmp_path, "trainval")) == ["a", "b"]
    assert ids(read_voc(tmp_path, "2012_trainval")) == ["b"]
    assert ids(read_voc(tmp_path, "2007_trainval+2012_trainval")) == ["a", "b"]
    assert ids(read_voc(tmp_path, "2007_test + 2012_trainval")) == ["c", "b"]
    assert ids(read_voc(tmp_path, "test")) == ["c"]

    with pytest.raises(DataError, match="2012_test"):
        read_voc(tmp_path, "2012_test")


def test_same_stem_in_two_years_stays_two_images(tmp_path: Path) -> None:
    for year in ("VOC2007", "VOC2012"):
        write(tmp_path / year, "a", xml())
        write_set(tmp_path / year, "train", "a")
    data = read_voc(tmp_path, "train")
    assert ids(data) == ["1:a", "2:a"]
    assert [record.path.parts[-3] for record in data.records] == ["VOC2007", "VOC2012"]


def test_an_image_in_two_parts_is_used_once(tmp_path: Path) -> None:
    write(tmp_path, "a", xml())
    write_set(tmp_path, "train", "a")
    both = write_set(tmp_path, "trainval", "a")
    data = read_voc(tmp_path, "train+trainval")
    assert ids(data) == ["a"]
    assert [(problem.severity, problem.file) for problem in data.problems] == [("warning", both)]


def test_flags_and_blank_lines(tmp_path: Path) -> None:
    for name in "abc":
        write(tmp_path, name, xml())
    write_set(tmp_path, "dog_train", "a  1", "b -1", "", "c  0")
    assert ids(read_voc(tmp_path, "dog_train")) == ["a", "c"]


@pytest.mark.parametrize(
    ("extension", "filename"), [(".png", "a.jpg"), (".jpeg", ""), (".JPG", "a"), (".bmp", "x.bmp")]
)
def test_image_is_found_whatever_its_extension(tmp_path: Path, extension: str, filename: str) -> None:
    write(tmp_path, "a", xml(filename=filename), extension=None)
    (tmp_path / "JPEGImages" / f"a{extension}").touch()
    assert read_voc(tmp_path, None).records[0].path.name == f"a{extension}"


def test_image_named_by_the_xml(tmp_path: Path) -> None:
    write(tmp_path, "a", xml(filename="other.jpg"), extension=None)
    (tmp_path / "JPEGImages" / "other.jpg").touch()
    assert read_voc(tmp_path, None).records[0].path.name == "other.jpg"


def test_images_are_not_opened(tmp_path: Path) -> None:
    write(tmp_path, "a", xml(obj()), extension=None)
    (tmp_path / "JPEGImages" / "a.jpg").write_text("no image")
    assert read_voc(tmp_path, None).problems == ()


def test_missing_split_names_file_and_splits(tmp_path: Path) -> None:
    write(tmp_path, "a", xml())
    write_set(tmp_path, "val", "a")
    write_set(tmp_path, "test", "a")
    write_set(tmp_path, "dog_val", "a -1")
    with pytest.raises(DataError, match=r"no split 'train'; splits here: val, test$") as caught:
        read_voc(tmp_path, "train")
    assert caught.value.file == tmp_path / "ImageSets" / "Main" / "train.txt"


def test_no_image_sets_at_all(tmp_path: Path) -> None:
    write(tmp_path, "a", xml())
    with pytest.raises(DataError, match=r"train\.txt: .*no image set at all"):
        read_voc(tmp_path, "train")
    assert ids(read_voc(tmp_path, None)) == ["a"]


def test_empty_split(tmp_path: Path) -> None:
    write(tmp_path, "a", xml())
    file = write_set(tmp_path, "train", "", " ")
    with pytest.raises(DataError, match="split 'train' lists no image") as caught:
        read_voc(tmp_path, "train")
    assert caught.value.file == file


OTHERS = {
    "yolo": ("Annotations/a.txt", "0 .5 .5 .2 .2\n"),
    "coco": (
        "Annotations/instances.json",
        '{"images": [{"id": 1, "file_name": "a.jpg", "width": 100, "height": 80}],'
        ' "categories": [{"id": 1, "name": "dog"}],'
        ' "annotations": [{"id": 1, "image_id": 1, "category_id": 1, "bbox": [1, 2, 3, 4]}]}',
    ),
    "cvat": (
        "Annotations/all.xml",
        '<annotations><image id="0" name="a.jpg" width="100" height="80">'
        '<box label="dog" xtl="1" ytl="2" xbr="9" ybr="9"/></image></annotations>',
    ),
    "voc": ("Annotations/a.xml", ""),
}


@pytest.mark.parametrize("name", OTHERS)
def test_labels_of_other_formats_in_folders_called_as_vocs(tmp_path: Path, name: str) -> None:
    file, content = OTHERS[name]
    lay(tmp_path, file, "JPEGImages/a.jpg")
    (tmp_path / file).write_text(content)
    assert find_reader(tmp_path)[0].name == name
    data = open_data(tmp_path)
    assert len(data) == 1 if name != "voc" else "not well-formed" in only_error(data).reason


def test_not_a_voc_folder(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="Annotations and JPEGImages"):
        read_voc(tmp_path, "train")


def test_missing_image_and_missing_annotation(tmp_path: Path) -> None:
    write(tmp_path, "a", xml(obj()), extension=None)
    listed = write_set(tmp_path, "train", "a", "b")
    data = read_voc(tmp_path, "train")
    assert not data.records
    image, annotation = data.problems
    assert image.file == tmp_path / "JPEGImages" / "a.jpg" and "missing" in image.reason
    assert (annotation.file, annotation.place) == (listed, "line 2 (b)")
    assert "b.xml" in annotation.reason


FAULTS = {
    "zero width": (xml(size="<size><width>0</width><height>80</height></size>"), "size", "0 x 80"),
    "half a size": (xml(size="<size><width>9</width></size>"), "size", "<height>"),
    "not well-formed": (xml(obj())[:-5], "", "not well-formed"),
    "empty": ("", "", "not well-formed"),
    "no name": (xml(obj(), obj(" ")), "object 2", "no <name>"),
    "no bndbox": (xml(obj(), "<object><name>cat</name></object>"), "object 2 (cat)", "no <bndbox>"),
    "word": (xml(obj(box=(1, "left", 5, 6))), "object 1 (dog)", "<ymin> is 'left'"),
    "no xmax": (xml(obj().replace("xmax", "xmox")), "object 1 (dog)", "<xmax> is ''"),
    "nan": (xml(obj(box=("nan", 1, 5, 6))), "object 1 (dog)", "not a finite number"),
    "infinite": (xml(obj(box=(1, 1, "1e999", 6))), "object 1 (dog)", "not a finite number"),
    "huge": (xml(obj(box=(1, 1, "1e300", 6))), "object 1 (dog)", "not finite or too large"),
    "xmax = xmin": (xml(obj(), obj(box=(5, 1, 5, 6))), "object 2 (dog)", "xmax <= xmin"),
    "ymax < ymin": (xml(obj(box=(5, 7, 8, 6))), "object 1 (dog)", "ymax <= ymin"),
    "right of it": (xml(obj(box=(100, 1, 120, 6))), "object 1 (dog)", "outside the image of 100 x 80"),
    "namespace": (xml(obj()).replace("<annotation>", '<annotation xmlns="http://x">'), "", "1 box besides"),
    "objects in one": (xml("<objects>", obj(), obj(), "</objects>"), "", "2 boxes besides"),
    "capitals": (xml(obj(), obj().replace("object>", "Object>")), "", "1 box besides"),
    "two boxes": (xml(obj(), obj(extra=obj()[24:-9])), "", "1 box besides"),
    "bndbox alone": (xml(obj(), obj()[24:-9]), "", "1 box besides"),
    "above it": (xml(obj(box=(1, -9, 12, 0))), "object 1 (dog)", "outside the image of 100 x 80"),
}


@pytest.mark.parametrize("fault", list(FAULTS))
def test_faults_leave_the_image_out(tmp_path: Path, fault: str) -> None:
    content, place, reason = FAULTS[fault]
    file = write(tmp_path, "a", content)
    problem = only_error(read_voc(tmp_path, None))
    assert (problem.file, problem.place) == (file, place)
    assert reason in problem.reason


def test_parts_of_persons_are_no_objects(tmp_path: Path) -> None:
    part = obj("head", (12, 22, 20, 30)).replace("object>", "part>")
    write(tmp_path, "a", xml(obj("person"), obj("person", (1, 2, 30, 40), part)))
    (record,) = read_voc(tmp_path, None).records
    assert record.boxes.tolist() == [list(BOX), [1, 2, 30, 40]]


def test_a_box_that_leaves_the_image_is_clipped(tmp_path: Path) -> None:
    file = write(tmp_path, "a", xml(obj(box=(-5, 2, 104, 81)), obj(box=(0, 0, 100.4, 80))))
    data = read_voc(tmp_path, None)
    assert data.records[0].boxes.tolist() == [[0, 2, 100, 80], [0, 0, 100, 80]]
    (problem,) = data.problems  # 0.4 pixels are rounding, no finding
    assert (problem.severity, problem.file, problem.place) == ("warning", file, "object 1 (dog)")


def test_a_bad_image_does_not_spoil_the_others(tmp_path: Path) -> None:
    write(tmp_path, "a", xml(size="<size/>"))
    write(tmp_path, "b", xml(obj()))
    data = read_voc(tmp_path, None)
    assert ids(data) == ["b"] and len(data.problems) == 1 and data.facts["images"] == 2


@pytest.mark.parametrize("size", ["", "<size><width>0</width><height>0</height><depth>3</depth></size>"])
def test_a_size_that_is_not_stated_is_that_of_the_image(tmp_path: Path, size: str) -> None:
    first = write(tmp_path, "a", xml(obj(box=(1, 2, 104, 81)), size=size))
    write(tmp_path, "b", xml(obj(), size=size))
    write(tmp_path, "c", xml(obj()))
    data = read_voc(tmp_path, None)
    assert [(record.width, record.height) for record in data.records] == [(100, 80)] * 3
    assert data.records[0].boxes.tolist() == [[1, 2, 100, 80]]
    clipped, note = data.problems
    assert "leaves the image of 100 x 80" in clipped.reason and note.severity == "warning"
    assert "2 xml files state no size of their image" in note.reason and str(first) in note.reason


def test_an_image_that_cannot_be_measured_is_told(tmp_path: Path) -> None:
    write(tmp_path, "a", xml(obj(), size=""))
    (tmp_path / "JPEGImages/a.jpg").write_bytes(b"none")
    error = next(problem for problem in read_voc(tmp_path, None).problems if problem.severity == "error")
    assert error.file == tmp_path / "JPEGImages/a.jpg"


NESTED = {
    "my project/data/VOCdevkit/VOC2007/": ("Annotations/a.xml", "JPEGImages/a.jpg", None),
    "task/": ("Annotations/night/a.xml", "JPEGImages/night/a.jpg", None),
    "x/train/": ("labels.d/a.xml", "labels.d/a.jpg", "train"),
    "x/y/valid/": ("xmls/a.xml", "images/a.jpg", "valid"),
    "fiftyone/": ("labels/a.xml", "data/a.jpg", None),
    "roboflow/train/": ("labels/a.xml", "images/a.jpg", "train"),
    "y/": ("labels/test/a.xml", "images/test/a.jpg", "test"),
    "z/": ("labels/a.xml", "labels/a.jpg", None),
}


@pytest.mark.parametrize("folder", NESTED)
def test_folders_at_any_depth(tmp_path: Path, folder: str) -> None:
    label, image, split = NESTED[folder]
    lay(tmp_path, folder + label, folder + image)
    reader, root = find_reader(tmp_path)
    (record,) = reader.read(root, split, None, None).records
    assert reader is VOC and record.path == tmp_path / folder / image
    assert reader.splits(root) == (() if split is None else (split,))


def test_folders_called_labels_and_data_that_hold_something_else(tmp_path: Path) -> None:
    """labelImg's xml beside the pictures, in a folder that was used for YOLO too."""
    lay(tmp_path, "a.xml", "a.jpg")
    for name in ("labels/a.txt", "data/notes.txt"):
        (tmp_path / name).parent.mkdir()
        (tmp_path / name).write_text("0 0.5 0.5 0.5 0.5\n")
    assert ids(read_voc(tmp_path, None)) == ["a"]
    lay(tmp_path / "b", "labels/x/Annotations/a.xml", "labels/x/JPEGImages/a.jpg")
    assert ids(read_voc(tmp_path / "b", None)) == ["a"]


def test_image_sets_at_depth(tmp_path: Path) -> None:
    for year, name in (("VOC2007", "a"), ("VOC2012", "b")):
        write(tmp_path / "x/VOCdevkit" / year, name, xml(obj()))
        write_set(tmp_path / "x/VOCdevkit" / year, "train", name)
    assert VOC.splits(tmp_path) == ("train",)
    assert ids(read_voc(tmp_path, "train")) == ["a", "b"] and ids(read_voc(tmp_path, "2012_train")) == ["b"]


def test_what_is_not_used_is_named(tmp_path: Path) -> None:
    for name in "abc":
        write(tmp_path, name, xml(obj()))
    for name in ("d.jpg", "e.jp2", "f.psd", ".g.jpg", "a.jpg:Zone.Identifier", "Thumbs.db"):
        (tmp_path / "JPEGImages" / name).touch()
    (tmp_path / "JPEGImages/h.jpg").symlink_to("nowhere")
    write_set(tmp_path, "train", "a")
    write_set(tmp_path, "val", "b")
    data = read_voc(tmp_path, "train")
    assert ids(data) == ["a"] and {problem.severity for problem in data.problems} == {"warning"}
    picture, odd, link, label = (problem.reason for problem in data.problems)
    assert "1 of 4 pictures have no labels" in picture and "d.jpg" in picture
    assert "1 .jp2, 1 .psd" in odd and "1 links" in link
    assert "1 of 3 xml files are in no image set" in label and "c.xml" in label


def together(data: DataSet) -> str:
    (note,) = (problem.reason for problem in data.problems if "read together" in problem.reason)
    return note


def test_image_sets_beside_folders_of_splits(tmp_path: Path) -> None:
    for name in "abc":
        write(tmp_path / "voc", name, xml(obj()))
    write_set(tmp_path / "voc", "train", "a")
    write_set(tmp_path / "voc", "val", "b")
    for split, name in (("train", "d"), ("valid", "e")):
        lay(tmp_path / "flow" / split, f"{name}.xml", f"{name}.jpg")
    assert VOC.splits(tmp_path) == ("train", "val", "valid")
    expected = {"train": ["a", "d"], "val": ["b"], "valid": ["e"], "val+train": ["b", "a", "d"]}
    assert {split: ids(read_voc(tmp_path, split)) for split in expected} == expected
    assert sorted(ids(read_voc(tmp_path, None))) == list("abcde")
    data = read_voc(tmp_path, "train")
    assert "labels of 3 folders are read together (flow/train, flow/valid, voc)" in together(data)
    assert any("1 of 3 xml files are in no image set" in problem.reason for problem in data.problems)
    with pytest.raises(DataError, match="there is no split 'dev'; splits here: train, val, valid"):
        read_voc(tmp_path, "dev")


@pytest.mark.parametrize("kit", ["", "VOCdevkit/"])
def test_a_folder_beside_the_years(tmp_path: Path, kit: str) -> None:
    for year in ("VOC2007", "VOC2012"):
        write(tmp_path / kit / year, year, xml(obj()))
        write_set(tmp_path / kit / year, "train", year)
    lay(tmp_path, "mine/Annotations/m.xml", "mine/JPEGImages/m.jpg")
    assert VOC.splits(tmp_path) == ("train", "unnamed")
    assert ids(read_voc(tmp_path, "train")) == ["VOC2007", "VOC2012"]
    data = read_voc(tmp_path, "unnamed")
    assert (ids(data), data.classes) == (["m"], VOC_CLASSES)
    assert f"({kit}VOC2007, {kit}VOC2012, mine)" in together(data)
    assert ids(read_voc(tmp_path, None)) == ["VOC2007", "VOC2012", "m"]


def test_a_folder_below_another(tmp_path: Path) -> None:
    write(tmp_path, "a", xml(obj()))
    write(tmp_path / "more", "b", xml(obj("cat")))
    data = read_voc(tmp_path, None)
    assert (ids(data), data.classes) == (["a", "b"], ("cat", "dog"))
    assert "labels of 2 folders are read together (., more)" in together(data)


def test_folders_in_folders_are_read_once(tmp_path: Path) -> None:
    for name in ("x/a", "x/train/b", "x/val/deep/c", "y/d"):
        lay(tmp_path, f"{name}.xml", f"{name}.jpg")
    assert VOC.splits(tmp_path) == ("train", "val", "unnamed")
    assert ids(read_voc(tmp_path, None)) == ["a", "train/b", "val/deep/c", "d"]
    assert ids(read_voc(tmp_path, "train")) == ["train/b"]
    assert [problem.reason for problem in read_voc(tmp_path, "train").problems] == [
        "labels of 2 folders are read together (x, y); or give one of them"
    ]


def test_xml_without_pictures_beside_a_voc_folder_is_not_read_but_named(tmp_path: Path) -> None:
    root = tmp_path / "VOC2007"
    write(root, "a", xml(obj()))
    (root / "Annotations_old").mkdir()
    (root / "Annotations_old/a.xml").write_text(xml(obj("cat")))
    (root / "JPEGImages/a.xml").write_text(xml(obj("cow")))
    data = read_voc(root, None)
    assert ids(data) == ["a"] and data.classes == VOC_CLASSES
    (note,) = data.problems
    assert note.severity == "warning" and "xml files in 2 folders" in note.reason
    assert str(root / "Annotations_old") in note.reason


def test_a_copy_of_a_year_is_left_out(tmp_path: Path) -> None:
    for name in ("VOC2007", "copy"):
        write(tmp_path / name, "a", xml(obj()))
    data = read_voc(tmp_path, None)
    assert ids(data) == ["a"]
    (note,) = data.problems
    assert note.file == tmp_path / "copy" and "holds the same xml files" in note.reason


def test_pictures_in_a_given_folder(tmp_path: Path) -> None:
    write(tmp_path / "labels", "a", xml(obj()), extension=None)
    write(tmp_path / "labels", "b", xml(obj(), filename="C:\\x\\one.png"), extension=None)
    for name in ("x/a.jpg", "one.png", "c.jpg"):
        (tmp_path / "pictures" / name).parent.mkdir(exist_ok=True, parents=True)
        (tmp_path / "pictures" / name).touch()
    data = open_data(tmp_path / "labels", None, None, tmp_path / "pictures")
    assert [record.path for record in data.records] == [
        tmp_path / "pictures/x/a.jpg",
        tmp_path / "pictures/one.png",
    ]
    (problem,) = data.problems
    assert "1 of 3 pictures have no labels" in problem.reason


def test_ids_that_are_paths(tmp_path: Path) -> None:
    for name in ("a", "b"):
        write(tmp_path, name, xml(obj()))
    write_set(tmp_path, "train", "./a", "/home/eve/JPEGImages/b.jpg", "a")
    data = read_voc(tmp_path, "train")
    assert ids(data) == ["a", "b"]
    assert [problem.severity for problem in data.problems] == ["warning"] and "1 of" in data.problems[
        0
    ].reason


def test_a_broken_annotation_beside_its_picture_is_told(tmp_path: Path) -> None:
    for name in ("a", "b"):
        lay(tmp_path, f"{name}.xml", f"{name}.jpg")
    (tmp_path / "b.xml").write_text("")
    (problem,) = read_voc(tmp_path, None).problems
    assert problem.file == tmp_path / "b.xml" and "not well-formed" in problem.reason


def test_a_line_that_is_no_id(tmp_path: Path) -> None:
    write(tmp_path, "a", xml(obj()))
    write_set(tmp_path, "train", "a", "x" * 5000)
    assert "missing" in read_voc(tmp_path, "train").problems[0].reason


def test_a_missing_picture_is_told_alone(tmp_path: Path) -> None:
    write(tmp_path, "a", xml(obj("dig", (5, 1, 5, 6))), extension=None)
    assert "missing" in only_error(read_voc(tmp_path, None, ["dog"])).reason


def test_encodings_that_expat_does_not_know(tmp_path: Path) -> None:
    file = write(tmp_path, "a", "")
    file.write_bytes(('<?xml version="1.0" encoding="gb2312"?>' + xml(obj("狗"))).encode("gb2312"))
    assert read_voc(tmp_path, None).classes == ("狗",)


@pytest.mark.parametrize("forms", [("NFD", "NFC", "NFC"), ("NFC", "NFD", "NFD"), ("NFD", "NFD", "NFC")])
def test_names_in_another_form_of_unicode(tmp_path: Path, forms: tuple[str, str, str]) -> None:
    of_picture, of_label, stated = (normalize(form, "Gr\u00f6\u00dfe") for form in forms)
    lay(tmp_path, f"Annotations/{of_label}.xml", f"JPEGImages/{of_picture}.jpg")
    write_set(tmp_path, "train", stated)
    data = read_voc(tmp_path, "train")
    assert [record.path.name for record in data.records] == [f"{of_picture}.jpg"] and data.problems == ()


@needs_data
def test_real_animals() -> None:
    data = read_voc(Path(REAL) / "voc2012-animals" / "VOCdevkit", "2012_val")
    assert len(data) == 599 and data.problems == () and data.classes == VOC_CLASSES


@needs_data
def test_real_blood_cells() -> None:
    data = read_voc(Path(REAL) / "bccd", "trainval+test")
    assert data.classes == ("Platelets", "RBC", "WBC") and data.facts["images"] == 364
    faults = [(problem.file.stem, problem.place) for problem in data.problems]
    assert faults == [("BloodImage_00338", "object 13 (RBC)"), ("BloodImage_00343", "object 4 (RBC)")]


def test_a_copy_of_the_labels_is_left_out(tmp_path: Path) -> None:
    for folder in ("first", "second", "third"):
        write(tmp_path / folder, "a", xml(obj("cat")))
    write(tmp_path / "third", "a", xml(obj("dog")))
    data = read_voc(tmp_path, None)
    assert [record.path.parent.parent.name for record in data.records] == ["first", "third"]
    copy, together = data.problems
    assert copy.file == tmp_path / "second" and "the same xml files as" in copy.reason
    assert "labels of 2 folders are read together (first, third)" in together.reason


def test_labels_that_cannot_be_compared_are_no_copy(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for folder in ("first", "second"):
        write(tmp_path / folder, "a", xml(obj("cat")))

    def refused(*_: object, **__: object) -> bool:
        raise PermissionError(13, "Permission denied")

    monkeypatch.setattr(filecmp, "cmp", refused)
    assert len(read_voc(tmp_path, None)) == 2


def test_folders_with_equal_names_are_not_each_compared_with_all(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for number in range(8):
        write(tmp_path / f"sequence {number}", "000", xml(obj(box=(1, 1, 5 + number, 9))))
    write(tmp_path / "copy", "000", xml(obj(box=(1, 1, 5, 9))))
    compared: list[tuple[Path, Path]] = []

    def counted_cmp(one: Path, other: Path, shallow: bool = True) -> bool:
        compared.append((one, other))
        return one.read_bytes() == other.read_bytes()

    monkeypatch.setattr(filecmp, "cmp", counted_cmp)
    assert len(read_voc(tmp_path, None)) == 8
    assert len(compared) == 2  # xml file and picture of the copy


def test_folders_of_labels_in_a_folder_of_annotations(tmp_path: Path) -> None:
    """annotations/xmls and images, as in the Oxford pets; masks beside the xml are no pictures of it."""
    write(tmp_path, "a", xml(obj("cat")))
    (tmp_path / "annotations").mkdir()
    (tmp_path / "Annotations").rename(tmp_path / "annotations/xmls")
    (tmp_path / "JPEGImages").rename(tmp_path / "images")
    mask = tmp_path / "annotations/trimaps" / next((tmp_path / "images").iterdir()).name
    mask.parent.mkdir()
    mask.write_bytes(b"")
    (record,) = read_voc(tmp_path, None).records
    assert record.path.parent == tmp_path / "images"


@pytest.mark.parametrize("encoding", ["utf-16", "utf-16-le"])
def test_utf_16_beside_its_picture(tmp_path: Path, encoding: str) -> None:
    lay(tmp_path, "a.xml", "a.jpg")
    text = '<?xml version="1.0" encoding="UTF-16"?>' + xml(obj("dog"))
    (tmp_path / "a.xml").write_bytes(text.encode(encoding))
    reader, root = find_reader(tmp_path)
    (record,) = reader.read(root, None, None, None).records
    assert reader is VOC and record.boxes.tolist() == [list(BOX)]


@pytest.mark.parametrize("folders", [("Annotations/", "JPEGImages/"), ("", "")])
def test_xml_files_in_capitals(tmp_path: Path, folders: tuple[str, str]) -> None:
    labels, pictures = folders
    for name in ("a.XML", "b.xml", "c.Xml"):
        lay(tmp_path, labels + name, f"{pictures}{name[0]}.jpg")
    (tmp_path / labels / "b.xml").rename(tmp_path / labels / "b.XML")
    reader, root = find_reader(tmp_path)
    data = reader.read(root, None, None, None)
    assert reader is VOC and ids(data) == ["a", "b", "c"] and data.problems == ()
    write_set(tmp_path, "train", "a", "c")
    assert ids(read_voc(tmp_path, "train")) == ["a", "c"]


def test_two_files_whose_names_differ_in_capitals(tmp_path: Path) -> None:
    lay(tmp_path, "a.xml", "a.jpg")
    (tmp_path / "a.XML").write_text(xml(obj("cat"), filename="a.jpg"))
    data = read_voc(tmp_path, None)
    assert ids(data) == ["a.XML", "a"] and data.classes == ("cat", "dog")
    assert "1 pictures are listed twice" in data.problems[0].reason


def lay_pair(root: Path, one: str, other: str, *, second_picture: bytes | None) -> None:
    """Two folders with equal xml files of a picture each."""
    for folder, picture in ((one, b"visible"), (other, second_picture)):
        lay(root, f"{folder}/0.xml", f"{folder}/0.jpg")
        (root / folder / "0.jpg").write_bytes(picture or b"")
        if picture is None:
            (root / folder / "0.jpg").unlink()


def test_equal_labels_of_other_pictures_are_no_copy(tmp_path: Path) -> None:
    lay_pair(tmp_path, "rgb", "ir", second_picture=b"infrared")
    data = read_voc(tmp_path, None)
    assert sorted(record.path.parent.name for record in data.records) == ["ir", "rgb"]
    assert ["labels of 2 folders" in problem.reason for problem in data.problems] == [True]


@pytest.mark.parametrize(("one", "other"), [("a", "b"), ("b", "a")])
def test_a_copy_of_the_labels_alone_is_left_out(tmp_path: Path, one: str, other: str) -> None:
    lay_pair(tmp_path, one, other, second_picture=None)
    (record,) = read_voc(tmp_path, None).records
    assert record.path == tmp_path / one / "0.jpg"


def test_equal_images_in_two_splits_are_both_read(tmp_path: Path) -> None:
    lay_pair(tmp_path, "train", "test", second_picture=b"visible")
    assert VOC.splits(tmp_path) == ("train", "test")
    assert len(read_voc(tmp_path, "train")) == len(read_voc(tmp_path, "test")) == 1


SPLIT_BELOW = {
    "both": ("annotations/{}/{}.xml", "images/{}/{}.jpg"),
    "labels": ("annotations/{}/{}.xml", "images/{1}.jpg"),
    "pictures": ("annotations/{1}.xml", "images/{0}/{1}.jpg"),
    "beside": ("annotations/{1}.xml", "{0}/{1}.jpg"),
    "deep": ("data/Annotations/{}/day/{}.xml", "data/JPEGImages/{}/day/{}.jpg"),
}


@pytest.mark.parametrize("layout", SPLIT_BELOW)
def test_splits_below_annotations_or_images(tmp_path: Path, layout: str) -> None:
    label, picture = SPLIT_BELOW[layout]
    for split, names in (("train", "ab"), ("val", "cde")):
        for name in names:
            lay(tmp_path, label.format(split, name), picture.format(split, name))
    reader, root = find_reader(tmp_path)
    assert reader is VOC and reader.splits(root) == ("train", "val")
    found = {split: reader.read(root, split, None, None) for split in ("train", "val", "train+val")}
    assert [[record.path.stem for record in data.records] for data in found.values()] == [
        ["a", "b"],
        ["c", "d", "e"],
        ["a", "b", "c", "d", "e"],
    ]
    assert not any(data.problems for data in found.values())


def test_splits_are_the_same_with_pictures_given(tmp_path: Path) -> None:
    for split, name in (("train", "a"), ("val", "b")):
        lay(tmp_path / "own", f"xml/{name}.xml", f"images/{split}/{name}.jpg")
        lay(tmp_path / "other", f"{name}.xml", f"{name}.jpg")
    (record,) = open_data(tmp_path / "own", "val", None, tmp_path / "other").records
    assert record.path == tmp_path / "other/b.jpg"


def test_some_folders_below_annotations_are_splits(tmp_path: Path) -> None:
    for name in ("test/a", "night/b", "c"):
        lay(tmp_path, f"annotations/{name}.xml", f"images/{name}.jpg")
    assert VOC.splits(tmp_path) == ("test", "unnamed")
    assert ids(read_voc(tmp_path, "test")) == ["test/a"]
    assert ids(read_voc(tmp_path, "unnamed")) == ["c", "night/b"]
    write_set(tmp_path, "train", "c", "test/a")
    assert VOC.splits(tmp_path) == ("train",) and ids(read_voc(tmp_path, "train")) == ["c", "test/a"]


LISTS = {
    "ImageSets/{}.txt": ("a", "b c", "d"),
    "{}.txt": ("./images/a.jpg ./annotations/a.xml", "images/b c.jpg annotations/b c.xml", "images/d.jpg"),
    "{}_list.txt": ("images/a.jpg\tannotations/a.xml", "annotations/b c.xml", "d"),
}


@pytest.mark.parametrize("list_name", LISTS)
def test_image_sets_outside_main(tmp_path: Path, list_name: str) -> None:
    """ImageSets without Main; lists of pairs as PaddleDetection and PaddleX have them."""
    for name in ("a", "b c", "d"):
        lay(tmp_path, f"annotations/{name}.xml", f"images/{name}.jpg")
    first, second, third = LISTS[list_name]
    names = [Path(list_name.format(split)).stem for split in ("train", "val")]
    for split, lines in (("train", [first, second]), ("val", [third])):
        file = tmp_path / list_name.format(split)
        file.parent.mkdir(exist_ok=True)
        file.write_text("\n".join(lines))
    (tmp_path / "label_list.txt").write_text("dog")
    assert list(VOC.splits(tmp_path)) == names
    data = read_voc(tmp_path, names[0])
    assert ids(data) == ["a", "b c"] and data.problems == ()
    assert ids(read_voc(tmp_path, names[1])) == ["d"]


def test_main_comes_before_other_lists(tmp_path: Path) -> None:
    for name in "ab":
        write(tmp_path, name, xml(obj()))
    write_set(tmp_path, "train", "a", "b")
    for other in ("ImageSets/val.txt", "val.txt"):
        (tmp_path / other).write_text("a")
    assert VOC.splits(tmp_path) == ("train",) and read_voc(tmp_path, "train").problems == ()


@pytest.mark.parametrize("content", [b"0 .5 .5 .2 .2\n", b"\xff\xfe\x00", b"other.jpg\n"])
def test_lists_of_other_things_are_named(tmp_path: Path, content: bytes) -> None:
    lay(tmp_path, "annotations/a.xml", "images/a.jpg")
    (tmp_path / "train.txt").write_bytes(content)
    (tmp_path / "notes.txt").write_bytes(content)
    assert VOC.splits(tmp_path) == ()
    (problem,) = read_voc(tmp_path, None).problems
    assert problem.severity == "warning" and "1 lists that name none of the xml files" in problem.reason
    assert str(tmp_path / "train.txt") in problem.reason

"""CVAT for images 1.1: shapes, subsets, class order, and faults with image and shape."""

from __future__ import annotations

from pathlib import Path
from xml.etree import ElementTree

import pytest
from annotated import boxes, checked, messages, opened, picture, text

from fssd.data.source import find_reader, list_splits, open_data
from fssd.errors import DataError

LABELS = "<labels><label><name>dog</name><color>#f00</color></label><label><name>cat</name></label></labels>"


def cvat(root: Path, images: str, holder: str = "task", name: str = "annotations.xml") -> Path:
    """The file as CVAT writes it; the pictures a.jpg and sub/b.png lie in images/."""
    picture(root / "images/a.jpg")
    picture(root / "images/sub/b.png", 64, 48)
    meta = f"<meta><{holder}><id>7</id><name>t</name>{LABELS}</{holder}><dumped>2024</dumped></meta>"
    head = '<?xml version="1.0" encoding="utf-8"?>\n'
    return text(root / name, f"{head}<annotations><version>1.1</version>{meta}{images}</annotations>")


def image(name: str, shapes: str = "", more: str = "", size: str = 'width="200" height="100"') -> str:
    return f'<image id="0" name="{name}" {more} {size}>{shapes}</image>'


BOX = '<box label="cat" source="manual" occluded="1" xtl="10.50" ytl="20" xbr="30" ybr="40.25"></box>'
SMALL = 'width="64" height="48"'


def test_boxes_beside_images(tmp_path: Path) -> None:
    file = cvat(tmp_path, image("a.jpg", BOX * 2) + image("sub/b.png", size=SMALL))
    for path in (tmp_path, file):
        data = opened(path, "cvat")
        assert data.classes == ("dog", "cat")  # as the task lists them
        box = ("cat", 10.5, 20, 30, 40.25)
        assert boxes(data) == {"images/a.jpg": [box, box], "images/sub/b.png": []}
        assert list_splits(path) == () and data.problems == ()
    root = ElementTree.parse(file).getroot()
    report = checked(tmp_path)
    assert report.splits["all"].objects == len(root.findall("image/box")) == 2
    assert report.splits["all"].backgrounds == 1


def test_other_shapes_become_their_boxes(tmp_path: Path) -> None:
    shapes = [
        # 40 x 20 about (50, 40), turned by 90 degrees: 20 x 40 about the same centre
        '<box label="dog" xtl="30" ytl="30" xbr="70" ybr="50" rotation="90"/>',
        # half diagonal of a square of side 20, turned by 45 degrees: 10 * sqrt(2) = 14.14
        '<box label="dog" xtl="40" ytl="40" xbr="60" ybr="60" rotation="45.0"/>',
        '<polygon label="dog" points="10.0,20.0;30.5,5.0;25.0,60.0"/>',
        '<polyline label="cat" points="1,2;3,9"/>',
        '<ellipse label="cat" cx="100" cy="50" rx="30" ry="10"/>',
        '<ellipse label="cat" cx="100" cy="50" rx="30" ry="10" rotation="90"/>',
        '<mask label="cat" rle="0, 12" left="5" top="6" width="4" height="3"/>',
        '<cuboid label="cat" xtl1="10" ytl1="10" xbl1="10" ybl1="40" xtr1="30" ytr1="12" xbr1="30" ybr1="42"'
        ' xtl2="40" ytl2="8" xbl2="40" ybl2="38" xtr2="20" ytr2="6" xbr2="20" ybr2="36"/>',
    ]
    cvat(tmp_path, image("a.jpg", "".join(shapes)) + image("sub/b.png", size=SMALL))
    data = opened(tmp_path, "cvat")
    assert boxes(data)["images/a.jpg"] == [
        ("dog", 40, 20, 60, 60),
        ("dog", 35.86, 35.86, 64.14, 64.14),
        ("dog", 10, 5, 30.5, 60),
        ("cat", 1, 2, 3, 9),
        ("cat", 70, 40, 130, 60),
        ("cat", 90, 20, 110, 80),
        ("cat", 5, 6, 9, 9),
        ("cat", 10, 6, 40, 42),
    ]
    counts = "1 cuboid, 2 ellipses, 1 mask, 1 polygon, 1 polyline, 2 rotated boxes"
    assert messages(data, "warning") == [f"annotations.xml (): {counts} were taken as their bounding boxes"]


def test_what_has_no_extent_is_named(tmp_path: Path) -> None:
    shapes = '<points label="cat" points="1,2"/><tag label="dog"/>' + BOX
    cvat(tmp_path, image("a.jpg", shapes) + image("sub/b.png", size=SMALL))
    data = opened(tmp_path, "cvat")
    assert len(boxes(data)["images/a.jpg"]) == 1
    point, tag = messages(data, "warning")
    assert point.startswith(
        "annotations.xml (image 1 (a.jpg), points 1 (cat)): has no extent and is left out"
    )
    assert tag.startswith("annotations.xml (image 1 (a.jpg), tag 2 (dog)): is a tag of the whole image")


def test_points_of_a_skeleton_are_no_classes(tmp_path: Path) -> None:
    file = cvat(tmp_path, image("a.jpg", BOX) + image("sub/b.png", size=SMALL))
    point = "<label><name>1</name><type>points</type><parent>dog</parent></label>"
    top = "<label><name>cow</name><parent></parent></label></labels>"
    file.write_text(file.read_text().replace("</labels>", point + top))
    data = opened(tmp_path, "cvat")
    assert data.classes == ("dog", "cat", "cow") and data.problems == ()


def test_difficult_is_an_attribute(tmp_path: Path) -> None:
    shape = BOX.replace("></box>", '><attribute name="difficult">true</attribute></box>')
    cvat(tmp_path, image("a.jpg", shape + BOX) + image("sub/b.png", size=SMALL))
    assert opened(tmp_path, "cvat").records[0].difficult.tolist() == [True, False]


def test_subsets_are_splits(tmp_path: Path) -> None:
    images = image("a.jpg", BOX, 'subset="Train"') + image("sub/b.png", "", 'subset="Validation"', SMALL)
    cvat(tmp_path, images, "project")
    assert list_splits(tmp_path) == ("train", "validation")
    assert list(boxes(opened(tmp_path, "cvat", "train"))) == ["images/a.jpg"]
    assert list(boxes(opened(tmp_path, "cvat", "val"))) == ["images/sub/b.png"]
    assert open_data(tmp_path, "val").classes == ("dog", "cat")
    assert len(opened(tmp_path, "cvat", "train+val")) == len(opened(tmp_path, "cvat")) == 2
    with pytest.raises(DataError, match="there is no split 'test'; splits here: train, validation"):
        open_data(tmp_path, "test")


def test_default_is_no_subset(tmp_path: Path) -> None:
    cvat(tmp_path, image("a.jpg", BOX, 'subset="default"'))
    assert list_splits(tmp_path) == ()
    with pytest.raises(DataError, match=r"there is no split 'train'.*leave the split out"):
        open_data(tmp_path, "train")


def test_pictures_in_the_folder_of_their_subset(tmp_path: Path) -> None:
    cvat(tmp_path, image("c.jpg", BOX, 'subset="train"'))
    picture(tmp_path / "images/train/c.jpg")
    assert list(boxes(opened(tmp_path, "cvat"))) == ["images/train/c.jpg"]


@pytest.mark.parametrize(
    ("change", "place", "reason"),
    [
        (('xtl="10.50"', 'xtl="x"'), "image 1 (a.jpg), box 1 (cat)", "xtl is 'x', not a number in range"),
        (('xtl="10.50"', 'xtl="1e400"'), "image 1 (a.jpg), box 1 (cat)", "not a number in range"),
        (('xtl="10.50"', ""), "image 1 (a.jpg), box 1 (cat)", "xtl is None"),
        (('xtl="10.50"', 'xtl="30"'), "image 1 (a.jpg), box 1 (cat)", "xmax <= xmin"),
        (('label="cat"', ""), "image 1 (a.jpg), box 1", "has the class ''"),
        (("<box label", "<star label"), "image 1 (a.jpg), star 1 (cat)", "is no shape known here"),
        (('width="200"', 'width="0"'), "image 1 (a.jpg)", "has a size of 0 x 100"),
        (('name="a.jpg"', ""), "image 1", "has no name"),
    ],
)
def test_faults(tmp_path: Path, change: tuple[str, str], place: str, reason: str) -> None:
    good = image("a.jpg", BOX) + image("sub/b.png", "", "", SMALL)
    assert change[0] in good
    cvat(tmp_path, good.replace(*change).replace("</box>", "</star>" if "<star" in change[1] else "</box>"))
    data = opened(tmp_path, "cvat")
    (problem,) = [problem for problem in data.problems if problem.severity == "error"]
    assert problem.place == place and reason in problem.reason
    assert problem.file == tmp_path / "annotations.xml"
    assert (len(data), data.facts["images"]) == (1, 2)


def test_files_that_are_not_usable(tmp_path: Path) -> None:
    cvat(tmp_path, "<image>")
    with pytest.raises(DataError, match=r"annotations\.xml: is not well-formed XML"):
        open_data(tmp_path)
    cvat(tmp_path, '<track id="0" label="cat"></track>')
    with pytest.raises(DataError, match="tracks of a video; export it from CVAT as `CVAT for images"):
        open_data(tmp_path)
    text(tmp_path / "annotations.xml", "<project><object/></project>")
    with pytest.raises(DataError, match="holds no known data set"):
        find_reader(tmp_path)


def test_a_missing_picture_is_one_error(tmp_path: Path) -> None:
    cvat(tmp_path, image("gone.jpg", BOX.replace("xtl", "xxx")) + image("lost.jpg", BOX))
    data = opened(tmp_path, "cvat")
    lost = [problem for problem in data.problems if problem.file.name == "lost.jpg"]
    assert len(lost) == 1 and "the image file is missing" in lost[0].reason


def test_two_files_with_the_same_images(tmp_path: Path) -> None:
    cvat(tmp_path, image("a.jpg", BOX) + image("sub/b.png", "", "", SMALL))
    cvat(tmp_path, image("a.jpg", BOX) + image("sub/b.png", "", "", SMALL), name="backup.xml")
    data = opened(tmp_path, "cvat")
    assert len(data) == 2
    (note,) = messages(data, "warning")
    assert note.startswith("backup.xml (): labels only images that") and "annotations.xml labels too" in note


def test_an_inner_copy_is_left_out(tmp_path: Path) -> None:
    for root in (tmp_path, tmp_path / "z_backup"):
        cvat(root, image("a.jpg", BOX) + image("sub/b.png", "", "", SMALL))
    for name in ("a.jpg", "sub/b.png"):
        (tmp_path / "z_backup/images" / name).write_bytes((tmp_path / "images" / name).read_bytes())
    data = opened(tmp_path, "cvat")
    assert sorted(boxes(data)) == ["images/a.jpg", "images/sub/b.png"]
    (note,) = messages(data, "warning")
    assert note.startswith("annotations.xml (): labels only images that")


def test_a_picture_without_labels_is_told(tmp_path: Path) -> None:
    cvat(tmp_path, image("a.jpg", BOX))
    picture(tmp_path / ".cache/hidden.jpg")
    picture(tmp_path / "__MACOSX/x.jpg")
    picture(tmp_path / "runs/y.jpg")
    (note,) = messages(opened(tmp_path, "cvat"), "warning")
    assert "1 of 2 pictures have no labels and are left out" in note and "b.png" in note


def test_utf_16(tmp_path: Path) -> None:
    file = cvat(tmp_path, image("a.jpg", BOX))
    file.write_bytes(file.read_text().replace("utf-8", "utf-16").encode("utf-16"))
    assert boxes(opened(tmp_path, "cvat")) == {"images/a.jpg": [("cat", 10.5, 20, 30, 40.25)]}

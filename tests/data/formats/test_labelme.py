"""LabelMe and X-AnyLabeling: shapes, paths of other systems, splits by folder, and faults."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from annotated import as_json, boxes, checked, messages, opened, picture, text

from fssd.data.source import find_reader, list_splits, open_data, require_usable
from fssd.errors import DataError, LabelError


def shape(
    label: Any = "cat", points: Any = None, kind: str | None = "rectangle", **more: Any
) -> dict[str, Any]:
    corners = [[10.5, 20], [30, 40.25]] if points is None else points
    return {"label": label, "points": corners, "group_id": None, "shape_type": kind, "flags": {}, **more}


def labelme(file: Path, *shapes: Any, **more: Any) -> Path:
    """A json as LabelMe 5 writes it, and the picture beside it."""
    picture(file.with_suffix(".jpg"))
    content = {
        "version": "5.4.1",
        "flags": {},
        "shapes": list(shapes),
        "imagePath": f"{file.stem}.jpg",
        "imageData": None,
        "imageHeight": 100,
        "imageWidth": 200,
    }
    return as_json(file, {**content, **more})


def test_a_json_beside_each_picture(tmp_path: Path) -> None:
    labelme(tmp_path / "a.json", shape(), shape("dog", [[30, 40], [10, 20]]), imageData="QUJD" * 30_000)
    labelme(tmp_path / "b.json")
    picture(tmp_path / "c.jpg")
    data = opened(tmp_path, "labelme")
    assert data.classes == ("cat", "dog")
    assert boxes(data) == {"a.jpg": [("cat", 10.5, 20, 30, 40.25), ("dog", 10, 20, 30, 40)], "b.jpg": []}
    (note,) = messages(data, "warning")
    assert "1 of 3 pictures have no labels and are left out, the first is" in note and "c.jpg" in note
    counted = sum(len(json.loads(file.read_text())["shapes"]) for file in tmp_path.glob("*.json"))
    assert checked(tmp_path).splits["all"].objects == counted == 2
    assert boxes(opened(tmp_path / "a.json", "labelme"))["a.jpg"][0] == ("cat", 10.5, 20, 30, 40.25)


def test_shapes_of_one_label_and_group_are_one_object(tmp_path: Path) -> None:
    """As in LabelMe's own export to COCO: parts of an object behind another one."""
    labelme(
        tmp_path / "a.json",
        shape(points=[[1, 1], [9, 1], [9, 9]], kind="polygon", group_id=1),
        shape("dog", [[50, 50], [60, 60]], group_id=1),
        shape(points=[[20, 20], [30, 25]], group_id=1, flags={"difficult": True}),
        shape(points=[[70, 1], [80, 9]], group_id=0),
        shape(points=[[90, 1], [99, 9]]),
        shape(points=[[90, 11], [99, 19]]),
        shape(points=[[5, 40]], kind="point", group_id=1),
        shape(points=[[0, 12], [3, 15]], group_id=1),
    )
    labelme(tmp_path / "b.json", shape(points=[[2, 2], [9, 9]], group_id=1))
    data = opened(tmp_path, "labelme")
    assert boxes(data) == {
        "a.jpg": [
            ("cat", 0, 1, 30, 25),
            ("dog", 50, 50, 60, 60),
            ("cat", 70, 1, 80, 9),
            ("cat", 90, 1, 99, 9),
            ("cat", 90, 11, 99, 19),
        ],
        "b.jpg": [("cat", 2, 2, 9, 9)],
    }
    assert data.records[0].difficult.tolist() == [True, False, False, False, False]


def test_other_shapes_become_their_boxes(tmp_path: Path) -> None:
    labelme(
        tmp_path / "a.json",
        shape(points=[[10, 20], [30, 5], [25, 60]], kind="polygon"),
        shape(points=[[10, 20], [30, 5], [25, 60]], kind=None),
        shape(points=[[50, 50], [53, 54]], kind="circle"),  # radius 5
        shape(points=[[10, 0], [20, 10], [10, 20], [0, 10]], kind="rotation", direction=0.78),
        shape(points=[[10, 10], [40, 10], [40, 30], [10, 30]]),  # X-AnyLabeling writes four corners
        shape(points=[[1, 2], [9, 8]], kind="linestrip"),
        shape(points=[[1, 2], [9, 8]], kind="mask", mask="iVBO"),
    )
    labelme(tmp_path / "b.json", shape(points=[[1, 1], [5, 1], [5, 6]], kind="polygon"))
    data = opened(tmp_path, "labelme")
    assert [box[1:] for box in boxes(data)["a.jpg"]] == [
        (10, 5, 30, 60),
        (10, 5, 30, 60),
        (45, 45, 55, 55),
        (0, 0, 20, 20),
        (10, 10, 40, 30),
        (1, 2, 9, 8),
        (1, 2, 9, 8),
    ]
    counts = "1 circle, 1 line, 1 mask, 3 polygons, 1 rotated box"
    assert messages(data, "warning") == [f"{tmp_path.name} (): {counts} were taken as their bounding boxes"]


def test_a_point_is_named_and_left_out(tmp_path: Path) -> None:
    labelme(tmp_path / "a.json", shape(), shape(points=[[1, 2]], kind="point"))
    data = opened(tmp_path, "labelme")
    assert len(boxes(data)["a.jpg"]) == 1
    (note,) = messages(data, "warning")
    assert note.startswith("a.json (shape 2 (cat)): is a point, which has no extent, and is left out")


@pytest.mark.parametrize(
    ("value", "flag"), [(True, True), (1.0, True), ("0", False), (0.0, False), ("1", True), (None, False)]
)
def test_difficult(tmp_path: Path, value: Any, flag: bool) -> None:
    labelme(tmp_path / "a.json", shape(difficult=value), shape(flags={"difficult": value}), shape())
    assert opened(tmp_path, "labelme").records[0].difficult.tolist() == [flag, flag, False]


def test_pictures_in_another_folder(tmp_path: Path) -> None:
    file = labelme(tmp_path / "labels/a.json", shape(), imagePath="..\\images\\a.jpg")
    (tmp_path / "images").mkdir()
    file.with_suffix(".jpg").rename(tmp_path / "images/a.jpg")
    data = opened(tmp_path, "labelme")
    assert list(boxes(data)) == ["images/a.jpg"] and data.problems == ()
    labelme(tmp_path / "labels/b.json", shape(), imagePath="C:\\Users\\me\\b.jpg")
    data = opened(tmp_path, "labelme")
    assert list(boxes(data)) == ["images/a.jpg", "labels/b.jpg"]
    (note,) = messages(data, "warning")
    assert "found by name, elsewhere than stated: 1, the first is" in note


def test_a_picture_that_was_renamed_with_its_json(tmp_path: Path) -> None:
    labelme(tmp_path / "a.json", shape(), imagePath="old.jpg")
    data = opened(tmp_path, "labelme")
    assert list(boxes(data)) == ["a.jpg"]
    (note,) = messages(data, "warning")
    assert "elsewhere than stated: 1, the first is" in note and "a.jpg for old.jpg" in note


def test_the_name_of_an_image_is_no_split(tmp_path: Path) -> None:
    labelme(tmp_path / "train_001.json", shape())
    labelme(tmp_path / "test.json", shape())
    assert list_splits(tmp_path) == ()


def test_folders_are_splits_and_never_share_pictures(tmp_path: Path) -> None:
    labelme(tmp_path / "train/a.json", shape())
    labelme(tmp_path / "valid/a.json", shape("dog"))
    labelme(tmp_path / "valid/b.json", shape("dog"))
    (tmp_path / "train/b.json").write_bytes((tmp_path / "valid/b.json").read_bytes())
    assert list_splits(tmp_path) == ("train", "valid")
    data = opened(tmp_path, "labelme", "train")
    assert data.classes == ("cat", "dog") and list(boxes(data)) == ["train/a.jpg"]
    (error,) = messages(data, "error")
    assert error.startswith("b.jpg (): the image file is missing")
    assert list(boxes(opened(tmp_path, "labelme", "val"))) == ["valid/a.jpg", "valid/b.jpg"]


def test_equal_names_in_two_folders_are_two_images(tmp_path: Path) -> None:
    labelme(tmp_path / "cam1/a.json", shape())
    labelme(tmp_path / "cam2/a.json", shape("dog"))
    (tmp_path / "cam1/a.jpg").unlink()
    data = opened(tmp_path, "labelme")
    assert boxes(data) == {"cam2/a.jpg": [("dog", 10.5, 20, 30, 40.25)]}
    (error,) = messages(data, "error")
    assert error.startswith("a.jpg (): the image file is missing")


def test_files_that_are_no_labels_are_not_read(tmp_path: Path) -> None:
    labelme(tmp_path / "a.json", shape())
    as_json(tmp_path / "package.json", {"name": "x", "version": "1.0.0", "scripts": {}})
    as_json(tmp_path / "shapes.json", {"shapes": ["circle"]})
    text(tmp_path / "environment.yml", "name: x\ndependencies:\n  - python\n  -broken: [")
    text(tmp_path / "results.csv", "epoch,loss\n1,2\n")
    labelme(tmp_path / ".git/b.json", shape())
    labelme(tmp_path / "._a.json", shape())
    labelme(tmp_path / "runs/c.json", shape())
    labelme(tmp_path / "__MACOSX/d.json", shape())
    data = opened(tmp_path, "labelme")
    assert list(boxes(data)) == ["a.jpg"] and data.problems == ()


def test_a_broken_file_is_the_fault_of_its_image(tmp_path: Path) -> None:
    labelme(tmp_path / "a.json", shape())
    for name, content in (("b", "{"), ("c", "")):
        text(labelme(tmp_path / f"{name}.json"), content)
    data = opened(tmp_path, "labelme")
    assert (len(data), data.facts["images"]) == (1, 3)
    assert [error.split(" ")[0] for error in messages(data, "error")] == ["b.json", "c.json"]
    assert all("is not valid json" in error for error in messages(data, "error"))


@pytest.mark.parametrize(
    ("wrong", "place", "reason"),
    [
        (
            shape(points=[["10", 20], [30, 40]]),
            "shape 1 (cat)",
            "points holds ['10', 20], not a pair of numbers",
        ),
        (shape(points=[[True, 20], [30, 40]]), "shape 1 (cat)", "not a pair of numbers"),
        (shape(points=[[10**400, 20], [30, 40]]), "shape 1 (cat)", "not a pair of numbers"),
        (shape(points=[[10, 20], [10, 40]]), "shape 1 (cat)", "xmax <= xmin"),
        (shape(points=[]), "shape 1 (cat)", "points is [], not a list"),
        (shape(points=[[1, 1]], kind="circle"), "shape 1 (cat)", "needs the centre of the circle"),
        (shape(kind="blob"), "shape 1 (cat)", "shape_type is 'blob', known are rectangle"),
        (shape(label=7), "shape 1", "has the class 7"),
        (shape(difficult="maybe"), "shape 1 (cat)", "difficult is 'maybe', neither true nor false"),
        ("text", "shape 1", "is 'text', not an object"),
    ],
)
def test_faults(tmp_path: Path, wrong: Any, place: str, reason: str) -> None:
    file = labelme(tmp_path / "a.json", wrong)
    data = opened(tmp_path, "labelme")
    (problem,) = data.problems
    assert (problem.severity, problem.file, problem.place) == ("error", file, place)
    assert reason in problem.reason
    with pytest.raises(LabelError, match=r"a\.json"):
        require_usable(data)


def test_a_size_that_is_none(tmp_path: Path) -> None:
    labelme(tmp_path / "a.json", shape(), imageWidth=None, imageHeight=None)
    (record,) = opened(tmp_path, "labelme").records
    assert (record.width, record.height) == (200, 100)  # from the picture
    labelme(tmp_path / "a.json", shape(), imageWidth="200")
    (error,) = messages(opened(tmp_path, "labelme"), "error")
    assert error.startswith("a.json (imageWidth, imageHeight): width '200' and height 100 are no size")


def test_a_json_of_no_tool(tmp_path: Path) -> None:
    as_json(tmp_path / "package.json", {"name": "x", "version": "1.0.0"})
    with pytest.raises(DataError, match=r"looked for .*LabelMe"):
        find_reader(tmp_path)


def test_beside_the_annotations_of_a_coco_layout(tmp_path: Path) -> None:
    file = labelme(tmp_path / "annotations/a.json", shape())
    (tmp_path / "images").mkdir()
    file.with_suffix(".jpg").rename(tmp_path / "images/a.jpg")
    assert list(boxes(opened(tmp_path, "labelme"))) == ["images/a.jpg"]


def test_files_are_parsed_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    labelme(tmp_path / "a.json", shape())
    parsed: list[bytes] = []
    loads = json.loads
    monkeypatch.setattr(json, "loads", lambda text, **rest: (parsed.append(text), loads(text, **rest))[1])
    for _ in range(3):
        open_data(tmp_path)
    assert len(parsed) == 1
    labelme(tmp_path / "a.json", shape("horse"))
    assert open_data(tmp_path).classes == ("horse",)


def test_pictures_in_a_given_folder(tmp_path: Path) -> None:
    labelme(tmp_path / "labels/a.json", shape())
    (tmp_path / "labels/a.jpg").unlink(missing_ok=True)
    for name in ("night/a.jpg", "b.jpg"):
        picture(tmp_path / "pictures" / name)
    data = open_data(tmp_path / "labels", None, None, tmp_path / "pictures")
    assert [record.image_id for record in data.records] == ["night/a.jpg"]
    (note,) = data.problems
    assert "1 of 2 pictures have no labels" in note.reason and "b.jpg" in note.reason

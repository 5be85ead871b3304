"""VGG VIA: project, json and csv; the class attribute; shapes; copies of the same labels."""

from __future__ import annotations

import csv
import io
import json
import math
from pathlib import Path
from typing import Any

import pytest
from annotated import as_json, boxes, checked, messages, opened, picture, text

from fssd.data.source import list_splits, open_data
from fssd.errors import DataError

RECT = {"name": "rect", "x": 10, "y": 20, "width": 30, "height": 15}
BOX = (10, 20, 40, 35)
Regions = dict[str, list[tuple[Any, Any]]]


def metadata(images: Regions) -> dict[str, Any]:
    return {
        f"{name}1234": {
            "filename": name,
            "size": 1234,
            "regions": [{"shape_attributes": shape, "region_attributes": more} for shape, more in regions],
            "file_attributes": {},
        }
        for name, regions in images.items()
    }


def as_project(images: Regions, options: Any = None) -> dict[str, Any]:
    region = {"type": {"type": "radio", "description": "", "options": options or {}, "default_options": {}}}
    return {
        "_via_settings": {"ui": {}, "core": {"default_filepath": ""}, "project": {"name": "p"}},
        "_via_img_metadata": metadata(images),
        "_via_attributes": {"region": region, "file": {}},
        "_via_data_format_version": "2.0.10",
        "_via_image_id_list": [f"{name}1234" for name in images],
    }


def as_csv(images: Regions) -> str:
    head = (
        "filename,file_size,file_attributes,region_count,region_id,region_shape_attributes,region_attributes"
    )
    lines = io.StringIO()
    writer = csv.writer(lines)
    for name, regions in images.items():
        for number, (shape, more) in enumerate(regions or [({}, {})]):
            row = [name, 1234, "{}", len(regions), number, json.dumps(shape), json.dumps(more)]
            writer.writerow(row)
    return f"{head}\n{lines.getvalue()}"


def pictures(root: Path) -> None:
    picture(root / "a.jpg")
    picture(root / "b.jpg")


IMAGES: Regions = {"a.jpg": [(RECT, {"type": "cat"}), (RECT, {"type": "ant"})], "b.jpg": []}
FOUND = {"a.jpg": [("cat", *BOX), ("ant", *BOX)], "b.jpg": []}


def test_annotations_as_json(tmp_path: Path) -> None:
    pictures(tmp_path)
    file = as_json(tmp_path / "via_export_json.json", metadata(IMAGES))
    for path in (tmp_path, file):
        data = opened(path, "via")
        assert (boxes(data), data.classes, data.problems) == (FOUND, ("ant", "cat"), ())
        assert list_splits(path) == ()
    counted = sum(len(row["regions"]) for row in json.loads(file.read_text()).values())
    assert checked(tmp_path).splits["all"].objects == counted == 2


def test_a_project_states_the_order_of_classes(tmp_path: Path) -> None:
    pictures(tmp_path / "images")
    as_json(tmp_path / "via_project.json", as_project(IMAGES, {"dog": "", "cat": "", "ant": ""}))
    data = opened(tmp_path, "via")
    assert data.classes == ("dog", "cat", "ant")
    assert boxes(data) == {f"images/{name}": found for name, found in FOUND.items()}


def test_csv(tmp_path: Path) -> None:
    pictures(tmp_path)
    file = text(tmp_path / "via_export_csv.csv", as_csv(IMAGES))
    data = opened(file, "via")
    assert (boxes(data), data.problems) == (FOUND, ())
    text(file, "#" + as_csv(IMAGES))  # VIA 1 marks its header
    assert boxes(opened(tmp_path, "via")) == FOUND
    rows = list(csv.DictReader(io.StringIO(as_csv(IMAGES))))
    counted = sum(row["region_shape_attributes"] != "{}" for row in rows)
    assert checked(tmp_path).splits["all"].objects == counted == 2


def test_rows_of_one_file_name_and_two_sizes_are_of_two_pictures(tmp_path: Path) -> None:
    """VIA tells pictures of several folders apart by their size; one must not get the boxes of both."""
    picture(tmp_path / "a.jpg")
    first, second = as_csv({"a.jpg": [(RECT, {"type": "cat"})]}), as_csv({"a.jpg": [(RECT, {"type": "ant"})]})
    text(tmp_path / "via.csv", first + second.splitlines()[1].replace("1234", "999") + "\n")
    data = opened(tmp_path, "via")
    assert boxes(data) == {"a.jpg": [("cat", *BOX)]} and data.facts["images"] == 2
    (message,) = messages(data, "error")
    assert "a.jpg has labels in" in message and "keep one of them" in message


def test_regions_of_via_1_are_an_object(tmp_path: Path) -> None:
    pictures(tmp_path)
    content = metadata(IMAGES)
    for row in content.values():
        row["regions"] = {str(number): region for number, region in enumerate(row["regions"])}
    as_json(tmp_path / "via.json", content)
    assert boxes(opened(tmp_path, "via")) == FOUND


def test_of_several_exports_one_is_used(tmp_path: Path) -> None:
    pictures(tmp_path)
    as_json(tmp_path / "project.json", as_project(IMAGES))
    as_json(tmp_path / "export.json", metadata(IMAGES))
    text(tmp_path / "export.csv", as_csv(IMAGES))
    data = opened(tmp_path, "via")
    assert boxes(data) == FOUND and {record.source.name for record in data.records} == {"project.json"}
    notes = messages(data, "warning")
    assert [note.split(" ")[0] for note in notes] == ["export.json", "export.csv"]
    assert all("project.json labels too; that file is used" in note for note in notes)


def test_shapes_become_boxes(tmp_path: Path) -> None:
    shapes = [
        {"name": "polygon", "all_points_x": [10, 30, 25], "all_points_y": [20, 5, 60]},
        {"name": "polyline", "all_points_x": [1, 9], "all_points_y": [2, 8]},
        {"name": "circle", "cx": 50, "cy": 40, "r": 5.5},
        {"name": "ellipse", "cx": 50, "cy": 40, "rx": 30, "ry": 10},
        {"name": "ellipse", "cx": 50, "cy": 40, "rx": 30, "ry": 10, "theta": math.pi / 2},
        {"name": "point", "cx": 50, "cy": 40},
    ]
    picture(tmp_path / "a.jpg")
    as_json(tmp_path / "via.json", metadata({"a.jpg": [(shape, {"type": "x"}) for shape in shapes]}))
    data = opened(tmp_path, "via")
    assert [box[1:] for box in boxes(data)["a.jpg"]] == [
        (10, 5, 30, 60),
        (1, 2, 9, 8),
        (44.5, 34.5, 55.5, 45.5),
        (20, 30, 80, 50),
        (40, 10, 60, 70),
    ]
    point, counts = messages(data, "warning")
    assert point.startswith("via.json (image a.jpg, region 6): is a point, which has no extent")
    assert "1 circle, 2 ellipses, 1 polygon, 1 polyline were taken as their bounding boxes" in counts


@pytest.mark.parametrize(
    ("attributes", "classes"),
    [
        ([{"kind": "cat", "note": ""}, {"kind": "dog", "note": "far"}], ("cat", "dog")),
        ([{"Class": "cat", "colour": "red"}, {"Class": "dog", "colour": "red"}], ("cat", "dog")),
        ([{"kind": {"cat": "true", "dog": "0"}}, {"kind": {"dog": True}}], ("cat", "dog")),
        ([{"kind": 7}, {"kind": "x"}], ("7", "x")),
    ],
)
def test_the_class_is_the_attribute_that_all_regions_have(
    tmp_path: Path, attributes: list[Any], classes: tuple[str, ...]
) -> None:
    picture(tmp_path / "a.jpg")
    as_json(tmp_path / "via.json", metadata({"a.jpg": [(RECT, more) for more in attributes]}))
    assert opened(tmp_path, "via").classes == classes


def test_several_attributes_may_be_the_class(tmp_path: Path) -> None:
    picture(tmp_path / "a.jpg")
    file = as_json(tmp_path / "via.json", metadata({"a.jpg": [(RECT, {"size": "big", "kind": "cat"})] * 2}))
    reason = "several region attributes could be the class: kind, size; call that one `class`"
    with pytest.raises(DataError, match=reason) as caught:
        open_data(tmp_path)
    assert caught.value.file == file
    as_json(file, metadata({"a.jpg": [(RECT, {"kind": ""})]}))
    with pytest.raises(DataError, match="no region has an attribute that could be its class"):
        open_data(tmp_path)


def test_regions_without_attributes_are_one_class(tmp_path: Path) -> None:
    picture(tmp_path / "a.jpg")
    as_json(tmp_path / "via.json", metadata({"a.jpg": [(RECT, {}), (RECT, {})]}))
    data = opened(tmp_path, "via")
    assert boxes(data) == {"a.jpg": [("object", *BOX)] * 2}
    (note,) = messages(data, "warning")
    assert note.startswith("via.json (region_attributes): no region has an attribute; all are taken as")


RIGHT = (RECT, {"type": "cat"})


@pytest.mark.parametrize(
    ("wrong", "reason"),
    [
        (({**RECT, "x": "10"}, {"type": "cat"}), "x is '10', not a number in range"),
        (({**RECT, "x": 10**400}, {"type": "cat"}), "..., not a number in range"),
        (({**RECT, "width": 0}, {"type": "cat"}), "xmax <= xmin"),
        ((RECT, {"type": ""}), "has no type; choose one in VIA"),
        ((RECT, {"type": {"cat": True, "dog": True}}), "has several classes (cat, dog)"),
        (({"name": "star"}, {"type": "cat"}), "is a 'star', known are rect, circle"),
        (
            ({"name": "polygon", "all_points_x": [1], "all_points_y": []}, {"type": "cat"}),
            "all_points_y is []",
        ),
        (({"name": "polygon", "all_points_x": [1, 2], "all_points_y": [1]}, {"type": "cat"}), "2 x and 1 y"),
        ((5, {"type": "cat"}), "needs shape_attributes and region_attributes"),
    ],
)
def test_faults(tmp_path: Path, wrong: tuple[Any, Any], reason: str) -> None:
    pictures(tmp_path)
    as_json(tmp_path / "via.json", metadata({"a.jpg": [RIGHT, wrong], "b.jpg": [RIGHT]}))
    data = opened(tmp_path, "via")
    (problem,) = data.problems
    assert problem.place.startswith("image a.jpg, region 2") and reason in problem.reason
    assert (list(boxes(data)), data.facts["images"]) == (["b.jpg"], 2)
    text(tmp_path / "via.json", as_csv({"a.jpg": [RIGHT, wrong], "b.jpg": [RIGHT]})).rename(
        tmp_path / "via.csv"
    )
    (problem,) = opened(tmp_path / "via.csv", "via").problems
    assert problem.place.startswith("image a.jpg, line 3") and reason in problem.reason


def test_faults_of_entries(tmp_path: Path) -> None:
    pictures(tmp_path)
    content = metadata({"b.jpg": [RIGHT]})
    file = as_json(tmp_path / "via.json", {**content, "x": 5, "y": {"filename": "a.jpg", "regions": 7}})
    found = [(problem.place, problem.reason) for problem in opened(file, "via").problems]
    assert found[0] == ("image 2", "'x' has no filename; add it or remove the entry")
    assert found[1] == ("image a.jpg", "regions is 7, not a list; correct it")
    file.unlink()
    text(tmp_path / "via.csv", as_csv({"b.jpg": [RIGHT]}) + 'a.jpg,1,"{}"\n')
    with pytest.raises(DataError, match=r"via.csv \(line 3\): has 3 words where the header has 7"):
        open_data(tmp_path)


def test_a_csv_of_another_kind(tmp_path: Path) -> None:
    text(tmp_path / "README.csv", "name,regions\nx,3\n")
    with pytest.raises(DataError, match="holds no known data set"):
        open_data(tmp_path)

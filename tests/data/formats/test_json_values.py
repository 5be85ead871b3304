"""Json files: which format they show; a value of any type is an error with its file, never a crash."""

from __future__ import annotations

import copy
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from annotated import as_json, picture, text

from fssd.data.formats.json_values import json_format
from fssd.data.source import find_reader, open_data
from fssd.errors import DataError

RECT = {"name": "rect", "x": 10, "y": 20, "width": 30, "height": 15}
POLYGON = {"name": "polygon", "all_points_x": [1, 9, 5], "all_points_y": [1, 2, 9]}
SHAPE = {"label": "cat", "points": [[1, 2], [30, 40]], "shape_type": "rectangle", "flags": {}}
VALUE = {"x": 10, "y": 20, "width": 30, "height": 40, "rotation": 5, "rectanglelabels": ["cat"]}
RESULT = {"id": "r", "type": "rectanglelabels", "original_width": 200, "original_height": 100, "value": VALUE}
SAMPLES: dict[str, Any] = {
    "labelme": {
        "version": "5",
        "shapes": [SHAPE],
        "imagePath": "a.jpg",
        "imageWidth": 200,
        "imageHeight": 100,
    },
    "via": {
        "a.jpg9": {
            "filename": "a.jpg",
            "regions": [
                {"shape_attributes": shape, "region_attributes": {"class": "cat"}}
                for shape in (RECT, POLYGON)
            ],
        }
    },
    "label-studio": [{"id": 1, "annotations": [{"result": [RESULT]}], "data": {"image": "a.jpg"}}],
    "createml": [
        {
            "image": "a.jpg",
            "annotations": [{"label": "cat", "coordinates": {"x": 50, "y": 40, "width": 10, "height": 8}}],
        }
    ],
}


def paths(value: Any, path: tuple[Any, ...] = ()) -> Iterator[tuple[Any, ...]]:
    """The keys that lead to every value inside a value."""
    pairs = value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ()
    for key, inner in pairs:
        yield (*path, key)
        yield from paths(inner, (*path, key))


@pytest.mark.parametrize(
    "wrong", [None, True, 10**400, "x", [], [[1]], {"a": {}}], ids=lambda value: str(value)[:6]
)
@pytest.mark.parametrize("name", list(SAMPLES))
def test_a_value_of_any_type_is_no_crash(tmp_path: Path, name: str, wrong: Any) -> None:
    picture(tmp_path / "a.jpg")
    assert len(open_data(as_json(tmp_path / "a.json", SAMPLES[name]))) == 1
    for path in paths(SAMPLES[name]):
        content = copy.deepcopy(SAMPLES[name])
        inner = content
        for key in path[:-1]:
            inner = inner[key]
        inner[path[-1]] = wrong
        file = as_json(tmp_path / "a.json", content)
        try:
            data = open_data(file)
        except DataError as error:
            assert error.file == file, path
        else:
            assert len(data) or data.problems, path
            assert all(problem.file.name in ("a.json", "x") for problem in data.problems), path


@pytest.mark.parametrize("name", list(SAMPLES))
def test_the_format_is_told_by_the_content(tmp_path: Path, name: str) -> None:
    file = as_json(tmp_path / "x.json", SAMPLES[name])
    assert json_format(file) == name == find_reader(file)[0].name
    assert find_reader(tmp_path)[0].name == name


def test_a_format_that_shows_late(tmp_path: Path) -> None:
    long = {"flags": {f"flag {number}": False for number in range(2000)}, **SAMPLES["labelme"]}
    assert json_format(as_json(tmp_path / "x.json", long)) == "labelme"
    ordered = {"flags": {}, "imageData": "QUJD" * 500_000, **SAMPLES["labelme"]}
    assert json_format(as_json(tmp_path / "y.json", ordered)) == "labelme"


@pytest.mark.parametrize(
    "content",
    [
        {"name": "package", "version": "1.0.0", "shapes": "x"},
        {"shapes": ["circle", "square"]},
        {"regions": ["north", "south"]},
        {"annotations": {"a": 1}},
        [{"image_id": 1, "category_id": 2, "bbox": [1, 2, 3, 4], "score": 0.5}],
        [{"image": "a.jpg", "caption": "a cat"}],
        [1, 2],
        {},
        [],
        7,
    ],
)
def test_other_json(tmp_path: Path, content: Any) -> None:
    assert json_format(as_json(tmp_path / "x.json", content)) == ""


@pytest.mark.parametrize("content", ["", "{", "\0\0", '{"a": "', "not json", '["\\'])
def test_what_is_no_json(tmp_path: Path, content: str) -> None:
    assert json_format(text(tmp_path / "x.json", content)) == ""
    with pytest.raises(DataError, match="holds no known data set"):
        find_reader(tmp_path)


def test_coco_is_left_to_its_reader(tmp_path: Path) -> None:
    content = {"images": [], "annotations": [], "categories": []}
    file = as_json(tmp_path / "x.json", content)
    assert json_format(file) == "coco" == find_reader(file)[0].name


def test_a_file_that_goes_away(tmp_path: Path) -> None:
    assert json_format(tmp_path / "none.json") == ""

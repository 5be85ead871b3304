"""Create ML json: boxes by their centre, a file for each split, and faults."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from annotated import as_json, boxes, checked, messages, opened, picture

from fssd.data.source import list_splits, open_data
from fssd.errors import DataError


def note(label: Any = "cat", x: Any = 50, y: Any = 40, width: Any = 20, height: Any = 11) -> dict[str, Any]:
    return {"label": label, "coordinates": {"x": x, "y": y, "width": width, "height": height}}


def createml(folder: Path, *images: tuple[str, list[Any]], name: str = "_annotations.createml.json") -> Path:
    for image, _ in images:
        picture(folder / image)
    return as_json(folder / name, [{"image": image, "annotations": notes} for image, notes in images])


def test_boxes_are_given_by_their_centre(tmp_path: Path) -> None:
    file = createml(tmp_path, ("a.jpg", [note(), note("dog", 10.5, 20, 5, 6)]), ("b.jpg", []))
    for path in (tmp_path, file):
        data = opened(path, "createml")
        assert data.classes == ("cat", "dog") and data.problems == ()
        assert boxes(data) == {"a.jpg": [("cat", 40, 34.5, 60, 45.5), ("dog", 8, 17, 13, 23)], "b.jpg": []}
        assert list_splits(path) == ()
    counted = sum(len(row["annotations"]) for row in json.loads(file.read_text()))
    assert checked(tmp_path).splits["all"].objects == counted == 2


def test_a_file_for_each_split(tmp_path: Path) -> None:
    createml(tmp_path / "train", ("a.jpg", [note()]), ("b.jpg", [note()]))
    createml(tmp_path / "valid", ("a.jpg", [note("dog")]))
    assert list_splits(tmp_path) == ("train", "valid")
    assert boxes(opened(tmp_path, "createml", "val")) == {"valid/a.jpg": [("dog", 40, 34.5, 60, 45.5)]}
    assert open_data(tmp_path, "train").classes == ("cat", "dog")
    assert {name: counts.objects for name, counts in checked(tmp_path).splits.items()} == {
        "train": 2,
        "valid": 1,
    }
    (tmp_path / "valid/a.jpg").unlink()  # train/a.jpg is another picture
    (error,) = messages(opened(tmp_path, "createml", "valid"), "error")
    assert error.startswith("a.jpg (): the image file is missing")


def test_a_missing_picture_is_not_taken_from_another_split(tmp_path: Path) -> None:
    createml(tmp_path / "valid", ("a.jpg", [note()]))
    (tmp_path / "valid/a.jpg").unlink()
    picture(tmp_path / "train/deep/a.jpg")
    data = opened(tmp_path, "createml")
    assert len(data) == 0
    assert [error.split(" ")[0] for error in messages(data, "error")] == ["a.jpg"]


def test_the_older_keys(tmp_path: Path) -> None:
    picture(tmp_path / "a.jpg")
    as_json(tmp_path / "a.json", [{"imagefilename": "a.jpg", "annotation": [note()]}])
    assert len(boxes(opened(tmp_path, "createml"))["a.jpg"]) == 1


@pytest.mark.parametrize(
    ("wrong", "place", "reason"),
    [
        (note(x="50"), "image 1 (a.jpg), annotation 1 (cat)", "x is '50', not a number in range"),
        (note(x=True), "image 1 (a.jpg), annotation 1 (cat)", "x is True, not a number in range"),
        (note(x=10**400), "image 1 (a.jpg), annotation 1 (cat)", "..., not a number in range"),
        (note(width=0), "image 1 (a.jpg), annotation 1 (cat)", "xmax <= xmin"),
        (note(label=3), "image 1 (a.jpg), annotation 1", "has the class 3"),
        ({"label": "cat", "coordinates": {}}, "image 1 (a.jpg), annotation 1 (cat)", "x is missing"),
        ({"label": "cat"}, "image 1 (a.jpg), annotation 1 (cat)", "is None, not an object with x, y"),
        ("cat", "image 1 (a.jpg), annotation 1", "is 'cat', not an object"),
    ],
)
def test_faults(tmp_path: Path, wrong: Any, place: str, reason: str) -> None:
    file = createml(tmp_path, ("a.jpg", [wrong]), ("b.jpg", [note()]))
    data = opened(tmp_path, "createml")
    (problem,) = data.problems
    assert (problem.severity, problem.file, problem.place) == ("error", file, place)
    assert reason in problem.reason and list(boxes(data)) == ["b.jpg"] and data.facts["images"] == 2


def test_entries_that_are_no_image(tmp_path: Path) -> None:
    file = createml(tmp_path, ("b.jpg", [note()]))
    rows = [*json.loads(file.read_text()), 5, {"annotations": []}, {"image": "b.jpg", "annotations": 3}]
    data = opened(as_json(file, rows), "createml")
    places = [problem.place for problem in data.problems if problem.severity == "error"]
    assert places == ["image 2", "image 3", "image 4 (b.jpg)"]
    assert len(data) == 1


def test_the_same_image_twice(tmp_path: Path) -> None:
    createml(tmp_path, ("a.jpg", [note()]), ("a.jpg", [note("dog")]))
    (error,) = messages(opened(tmp_path, "createml"), "error")
    assert "(image 2 (a.jpg)): a.jpg has labels in" in error and "image 1 (a.jpg) already" in error


def test_json_cut_short(tmp_path: Path) -> None:
    file = createml(tmp_path, ("a.jpg", [note()]))
    file.write_text(file.read_text()[:-5])
    with pytest.raises(DataError, match=r"createml.json \(line 1 column \d+\): is not valid json"):
        open_data(tmp_path)

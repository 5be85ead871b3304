"""Label Studio: percent coordinates, file names of uploads and URLs, masks, annotators, and faults."""

from __future__ import annotations

import json
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from annotated import as_json, boxes, checked, messages, opened, picture

from fssd.data.source import list_splits, open_data
from fssd.errors import DataError


def result(
    label: Any = "cat", kind: str = "rectanglelabels", number: int = 1, **value: Any
) -> dict[str, Any]:
    """A region as Label Studio exports it; 10 %, 20 %, 30 %, 40 % of 200 x 100 are 20, 20, 60, 40 pixels."""
    usual = {"x": 10, "y": 20, "width": 30, "height": 40, "rotation": 0}
    return {
        "original_width": 200,
        "original_height": 100,
        "image_rotation": 0,
        "value": {**(value or usual), kind: [label]},
        "id": f"r{number}",
        "from_name": "label",
        "to_name": "image",
        "type": kind,
        "origin": "manual",
    }


def annotation(*results: Any, **more: Any) -> dict[str, Any]:
    return {
        "id": 5,
        "completed_by": 1,
        "result": list(results),
        "was_cancelled": False,
        "ground_truth": False,
        **more,
    }


def task(url: Any, *annotations: Any, number: int = 1) -> dict[str, Any]:
    return {
        "id": number,
        "annotations": list(annotations),
        "file_upload": "a1b2c3d4-a.jpg",
        "drafts": [],
        "predictions": [],
        "data": {"image": url},
        "meta": {},
        "project": 1,
    }


BOX = ("cat", 20, 20, 80, 60)


def test_tasks(tmp_path: Path) -> None:
    picture(tmp_path / "images/a.jpg")
    picture(tmp_path / "images/b.jpg")
    tasks = [
        task(
            "/data/upload/1/a1b2c3d4-a.jpg",
            annotation(result(), result("dog", x=0, y=0, width=50, height=50)),
        ),
        task("/data/upload/1/01234567-b.jpg", annotation(), number=2),
    ]
    file = as_json(tmp_path / "project-1-at-2024.json", tasks)
    for path in (tmp_path, file):
        data = opened(path, "label-studio")
        assert data.classes == ("cat", "dog") and data.problems == ()
        assert boxes(data) == {"images/a.jpg": [BOX, ("dog", 0, 0, 100, 50)], "images/b.jpg": []}
        assert list_splits(path) == ()
    counted = sum(len(row["annotations"][0]["result"]) for row in json.loads(file.read_text()))
    assert checked(tmp_path).splits["all"].objects == counted == 2


def minimal(
    url: str, *labels: Any, number: int = 1, key: str = "image", tag: str = "label"
) -> dict[str, Any]:
    return {
        key: url,
        "id": number,
        tag: list(labels),
        "annotator": 1,
        "annotation_id": number,
        "created_at": "2024-01-01T00:00:00Z",
        "lead_time": 3.5,
    }


def flat(*labels: str, **value: Any) -> dict[str, Any]:
    usual = {"x": 10, "y": 20, "width": 30, "height": 40, "rotation": 0}
    return {
        **(value or usual),
        "rectanglelabels": list(labels),
        "original_width": 200,
        "original_height": 100,
    }


def test_json_min(tmp_path: Path) -> None:
    picture(tmp_path / "a.jpg")
    picture(tmp_path / "b.jpg")
    rows = [
        minimal("/data/upload/a1b2c3d4-a.jpg", flat("cat"), key="photo", tag="bbox"),
        minimal("/data/upload/a1b2c3d4-a.jpg", flat("dog"), key="photo", tag="bbox"),  # of another annotator
        {"photo": "/data/upload/a1b2c3d4-b.jpg", "id": 2, "annotator": 1, "annotation_id": 9},
    ]
    file = as_json(tmp_path / "min.json", rows)
    data = opened(tmp_path, "label-studio")
    assert boxes(data) == {"a.jpg": [BOX], "b.jpg": []}
    assert messages(data, "warning") == [
        "min.json (): left out further annotations of images that have one already: 1"
    ]
    as_json(tmp_path / "full.json", [
        task("/data/upload/a1b2c3d4-a.jpg", annotation(result("horse"))),
        task("/data/upload/a1b2c3d4-b.jpg", annotation(), number=2),
    ])  # fmt: skip
    data = opened(tmp_path, "label-studio")
    assert data.classes[-1] == "horse" and {record.source.name for record in data.records} == {"full.json"}
    assert any("min.json (): labels only images that" in note for note in messages(data, "warning"))
    assert file.is_file()


def test_tasks_of_two_projects_with_one_id_are_two_images(tmp_path: Path) -> None:
    for name in ("a", "b"):
        picture(tmp_path / f"{name}.jpg")
    as_json(tmp_path / "min.json", [minimal("a.jpg", flat("cat")), minimal("b.jpg", flat("cat"))])
    data = opened(tmp_path, "label-studio")
    assert boxes(data) == {"a.jpg": [BOX], "b.jpg": [BOX]} and data.problems == ()


@pytest.mark.parametrize(
    ("url", "path"),
    [
        ("/data/upload/1/a1b2c3d4-my_cat.jpg", "my_cat.jpg"),
        ("/data/upload/1/a1b2c3d4-my_cat.jpg", "images/a1b2c3d4-my_cat.jpg"),
        ("/data/upload/a1b2c3d4-my_cat.jpg", "deep/er/my_cat.jpg"),
        ("/data/local-files/?d=photos/sub%20dir/cat.jpg", "photos/sub dir/cat.jpg"),
        ("/data/local-files/?d=photos/sub/cat.jpg", "sub/cat.jpg"),
        ("/data/local-files/?d=D:\\photos\\cat.jpg", "photos/cat.jpg"),
        ("https://example.org/x/cat%201.jpg?token=abc", "images/cat 1.jpg"),
        ("s3://bucket/train/cat.jpg", "train/cat.jpg"),
        ("cat.jpg", "cat.jpg"),
    ],
)
def test_pictures_are_found(tmp_path: Path, url: str, path: str) -> None:
    picture(tmp_path / path)
    as_json(tmp_path / "result.json", [task(url, annotation(result()))])
    assert list(boxes(opened(tmp_path, "label-studio"))) == [path]


def test_a_name_that_only_looks_like_a_hash(tmp_path: Path) -> None:
    picture(tmp_path / "deadbeef-1.jpg")
    picture(tmp_path / "1.jpg")
    as_json(tmp_path / "result.json", [task("deadbeef-1.jpg", annotation(result()))])
    assert list(boxes(opened(tmp_path, "label-studio"))) == ["deadbeef-1.jpg"]


def test_other_shapes_become_their_boxes(tmp_path: Path) -> None:
    picture(tmp_path / "a.jpg")
    results = [
        # 60 x 40 px at (100, 20), turned by 90 degrees clockwise about its top left corner
        result(x=50, y=20, width=30, height=40, rotation=90),
        result(kind="polygonlabels", points=[[10, 20], [30, 5], [25, 60]]),
        result(kind="ellipselabels", x=50, y=50, radiusX=10, radiusY=20, rotation=0),
        result(kind="keypointlabels", x=50, y=50, width=0.5),
    ]
    as_json(tmp_path / "result.json", [task("a.jpg", annotation(*results))])
    data = opened(tmp_path, "label-studio")
    assert [box[1:] for box in boxes(data)["a.jpg"]] == [
        (60, 20, 100, 80),
        (20, 5, 60, 60),
        (80, 30, 120, 70),
    ]
    point, counts = messages(data, "warning")
    assert "(task 1 (a.jpg), region 4 (cat)): has no extent and is left out" in point
    assert "1 ellipse, 1 polygon, 1 rotated box were taken as their bounding boxes" in counts


def packed(values: np.ndarray) -> list[int]:
    """Bytes in the packing of Label Studio's brush: here, each run of equal bytes, 16 bits for its length."""
    bits = f"{len(values):032b}" + f"{7:05b}" + f"{2:04b}{4:04b}{8:04b}{15:04b}"
    edges = [0, *(np.flatnonzero(np.diff(values)) + 1).tolist(), len(values)]
    for start, end in pairwise(edges):
        if end - start == 1:  # a run that states its one value
            bits += "0" + "00" + "000" + f"{values[start]:08b}"
        else:
            for at in range(start, end, 1 << 16):
                bits += "1" + "11" + f"{min(end - at, 1 << 16) - 1:016b}" + f"{values[at]:08b}"
    bits += "0" * (-len(bits) % 8)
    return [int(bits[at : at + 8], 2) for at in range(0, len(bits), 8)]


def test_the_box_of_a_brush(tmp_path: Path) -> None:
    picture(tmp_path / "a.jpg")
    mask = np.zeros((100, 200, 4), np.uint8)
    mask[7:12, 30:41] = 255
    mask[50, 35] = (0, 0, 0, 200)
    mask[99, 199] = (9, 9, 9, 0)  # without alpha, so it is not painted
    rle = packed(mask.ravel())
    results = [result(kind="brushlabels", format="rle", rle=rle), result("dog", number=2)]
    as_json(tmp_path / "result.json", [task("a.jpg", annotation(*results))])
    data = opened(tmp_path, "label-studio")
    assert boxes(data)["a.jpg"][0] == ("cat", 30, 7, 41, 51)
    assert "1 mask was taken as their bounding boxes" in messages(data, "warning")[0]
    for wrong, reason in ((rle[:-20], "is cut or damaged"), (["x"], "no list of bytes")):
        results[0]["value"]["rle"] = wrong
        as_json(tmp_path / "result.json", [task("a.jpg", annotation(*results))])
        (error,) = messages(opened(tmp_path, "label-studio"), "error")
        assert "(task 1 (a.jpg), region 1 (cat)): rle" in error and reason in error


def test_which_annotation_is_used(tmp_path: Path) -> None:
    for name in "abcd":
        picture(tmp_path / f"{name}.jpg")
    skipped = annotation(result("skipped"), was_cancelled="true")
    tasks = [
        task("a.jpg", annotation(result("first")), annotation(result("truth"), ground_truth=1), number=1),
        task("b.jpg", skipped, annotation(result("second"), was_cancelled="0"), number=2),
        task("c.jpg", number=3),
        task("d.jpg", skipped, number=4),
    ]
    as_json(tmp_path / "result.json", tasks)
    data = opened(tmp_path, "label-studio")
    assert {name: found[0][0] for name, found in boxes(data).items()} == {"a.jpg": "truth", "b.jpg": "second"}
    notes = messages(data, "warning")
    assert "2 of 4 pictures have no labels and are left out" in notes[0]
    assert "left out further annotations of images that have one already: 1" in notes[1]
    assert "left out tasks without an annotation: 2" in notes[2]


def test_shapes_that_get_their_class_apart(tmp_path: Path) -> None:
    """<Rectangle> with <Labels>: the shape, and with the same id the shape again with its labels."""
    picture(tmp_path / "a.jpg")
    shape = {**result(), "type": "rectangle"}
    shape["value"] = {key: value for key, value in shape["value"].items() if key != "rectanglelabels"}
    choice = {
        "id": "x",
        "type": "choices",
        "value": {"choices": ["good"]},
        "from_name": "c",
        "to_name": "image",
    }
    results = [shape, result(kind="labels"), choice, {"type": "relation", "from_id": "r1", "to_id": "r1"}]
    as_json(tmp_path / "result.json", [task("a.jpg", annotation(*results))])
    data = opened(tmp_path, "label-studio")
    assert boxes(data) == {"a.jpg": [BOX]}
    (note,) = messages(data, "warning")
    assert "region 3): is no shape but 'choices' and is left out" in note


@pytest.mark.parametrize(
    ("wrong", "place", "reason"),
    [
        (result(x="10", y=20, width=30, height=40), "region 1 (cat)", "x is '10', not a number in range"),
        (result(x=10**400, y=20, width=30, height=40), "region 1 (cat)", "..., not a number in range"),
        (result(x=10, y=20, width=0, height=40), "region 1 (cat)", "xmax <= xmin"),
        (result(label=3), "region 1 (3)", "has the class 3"),
        (
            {**result(), "original_width": None, "original_height": None},
            "region 1 (cat)",
            "has no original_width",
        ),
        ({**result(), "original_width": "200"}, "region 1 (cat)", "are no size in pixels"),
        (
            {**result(), "value": {**result()["value"], "rectanglelabels": ["a", "b"]}},
            "region 1 (a)",
            "has a, b where",
        ),
        (
            {**result(), "value": {"x": 1, "y": 1, "width": 2, "height": 2}},
            "region 1",
            "has no class where one",
        ),
    ],
)
def test_faults(tmp_path: Path, wrong: Any, place: str, reason: str) -> None:
    picture(tmp_path / "a.jpg")
    picture(tmp_path / "b.jpg")
    tasks = [task("a.jpg", annotation(wrong)), task("b.jpg", annotation(result()), number=2)]
    file = as_json(tmp_path / "result.json", tasks)
    data = opened(tmp_path, "label-studio")
    (problem,) = data.problems
    assert (problem.severity, problem.file, problem.place) == ("error", file, f"task 1 (a.jpg), {place}")
    assert reason in problem.reason and list(boxes(data)) == ["b.jpg"] and data.facts["images"] == 2


def test_tasks_that_are_none(tmp_path: Path) -> None:
    picture(tmp_path / "b.jpg")
    tasks = [
        task("b.jpg", annotation(result())),
        5,
        task(7, annotation()),
        task("b.jpg", annotation(result=3)),
    ]
    as_json(tmp_path / "result.json", tasks)
    data = opened(tmp_path, "label-studio")
    places = [problem.place for problem in data.problems if problem.severity == "error"]
    assert places == ["task 2", "task 3", "task 4 (b.jpg)"]


def test_another_list(tmp_path: Path) -> None:
    as_json(
        tmp_path / "detections.json", [{"image_id": 1, "category_id": 2, "bbox": [1, 2, 3, 4], "score": 0.5}]
    )
    with pytest.raises(DataError, match="holds no known data set"):
        open_data(tmp_path)

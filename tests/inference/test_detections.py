"""Detections: a sequence of objects, its forms for files, tables and other packages."""

from __future__ import annotations

import json
import sys
from dataclasses import dataclass, field, replace
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
import PIL.Image
import pytest

from fssd.errors import ConfigError
from fssd.inference.detections import Detection, Detections, class_labels

CLASSES = ("cat", "dog", "<b>emu")
BOXES = [[1, 2, 30, 40], [5.25, 6.125, 20, 30], [0, 0, 10, 10], [2, 2, 12, 12]]


@pytest.fixture
def found() -> Detections:
    """Four objects in an image of 60 x 50 pixels: dog, cat, dog, <b>emu."""
    scores = np.array([0.9, 0.75, 0.5, 0.123456789], np.float32)
    image = np.full((50, 60, 3), 200, np.uint8)
    return Detections(np.array(BOXES, np.float32), scores, np.array([1, 0, 1, 2]), CLASSES, image)


def test_one_object_each(found: Detections) -> None:
    rows = list(found)
    assert rows[1] == Detection("cat", 0.75, (5.25, 6.125, 20.0, 30.0), 0)
    assert [one.name for one in rows] == found.names == ["dog", "cat", "dog", "<b>emu"]
    for rank in (0, 1, -1, np.int64(2), -4):
        assert found[rank] == rows[rank]
    for rank in (4, -5):
        with pytest.raises(IndexError, match=f"no detection {rank}; 4 were found"):
            found[rank]


def test_parts(found: Detections) -> None:
    assert found[1:3].names == ["cat", "dog"]
    assert found[found.scores > 0.6].names == ["dog", "cat"]
    assert found[[True, False, False, True]].names == ["dog", "<b>emu"]
    assert found[[2, 0]].scores.tolist() == [0.5, found.scores[0]]
    assert found[::2].image is found.image
    assert len(found[[]]) == len(found[10:]) == 0
    assert found.of("dog").scores.tolist() == found.scores[[0, 2]].tolist()
    assert found.of("cat", "dog") == found[:3]
    assert len(found.of()) == 0


def test_wrong_choices(found: Detections) -> None:
    with pytest.raises(IndexError, match="a mask of 3 does not fit 4 detections"):
        found[np.ones(3, bool)]
    for wrong in (1.0, "dog", None, True, np.ones((4, 1), bool), [0.5]):
        with pytest.raises(TypeError, match="chosen by a number, a slice, a mask or a list of numbers"):
            found[wrong]  # type: ignore[index]
    with pytest.raises(ConfigError, match="there is no class 'dogs' in this model; did you mean 'dog'"):
        found.of("dogs")


def test_equality(found: Detections) -> None:
    assert found == found.without_image()
    assert found != found[:3]
    assert found[:0] == found[4:]
    other = Detections(found.boxes + 1, found.scores, found.labels, CLASSES)
    assert found != other
    assert found != Detections(found.boxes, found.scores, found.labels, ("a", "b", "c"))
    assert found != 4
    with pytest.raises(TypeError, match="unhashable"):
        hash(found)


def test_repr(found: Detections) -> None:
    assert repr(found) == "Detections(4 objects: 1 <b>emu, 1 cat, 2 dog; image 60 x 50)"
    assert repr(found[:1].without_image()) == "Detections(1 object: 1 dog)"
    assert repr(found[:0].without_image()) == "Detections(0 objects)"


def test_html(found: Detections) -> None:
    page = found._repr_html_()
    assert "&lt;b&gt;emu" in page
    assert "<b>" not in page
    assert page.count("<img ") == 1
    assert page.count("<tr>") == 5
    assert "<td>75.0%</td><td>5</td><td>6</td><td>20</td><td>30</td>" in page
    assert "<img" not in found.without_image()._repr_html_()
    many = found[[0] * 33]._repr_html_()
    assert many.count("<tr>") == 21
    assert "and 13 more" in many
    wide = Detections(found.boxes, found.scores, found.labels, CLASSES, np.zeros((2, 9000, 3), np.uint8))
    assert "<img" in wide._repr_html_()


@pytest.mark.parametrize("name", ["a.jpg", "a.JPEG", "a.png", "a.webp", "a.bmp", "a.tif"])
def test_saved_picture(found: Detections, tmp_path: Path, name: str) -> None:
    large = replace(found, boxes=9 * found.boxes, image=np.full((500, 600, 3), 200, np.uint8))
    assert large.save(str(tmp_path / name)) == tmp_path / name
    with PIL.Image.open(tmp_path / name) as picture:
        pixels = np.asarray(picture.convert("RGB")).astype(int)
    lossless = name.endswith(("png", "bmp", "tif"))
    assert np.abs(pixels - large.draw()).mean() <= (0 if lossless else 1.5)


def test_saved_json(found: Detections, tmp_path: Path) -> None:
    rows = json.loads(found.without_image().save(tmp_path / "a.json").read_text())
    assert rows[1] == {"name": "cat", "score": 0.75, "box": [5.25, 6.12, 20.0, 30.0], "label": 0}
    assert rows[3]["score"] == 0.12346
    assert rows == json.loads(found.to_json())
    assert json.loads(found[:0].to_json()) == []
    assert found.to_dicts()[3]["score"] == float(found.scores[3])
    assert found.to_dicts()[0]["box"] == [1.0, 2.0, 30.0, 40.0]


def test_what_cannot_be_saved(found: Detections, tmp_path: Path) -> None:
    for name in ("a", "a.txt", "a.mp4"):
        with pytest.raises(ConfigError, match=r"cannot be saved in this format; choose one of \.json, \.jpg"):
            found.save(tmp_path / name)
    with pytest.raises(ValueError, match="keep_image"):
        found.without_image().save(tmp_path / "a.png")
    assert not list(tmp_path.iterdir())


def test_pandas(found: Detections) -> None:
    pytest.importorskip("pandas", reason="needs pandas")
    frame = found.to_pandas()
    assert list(frame.columns) == ["name", "score", "x1", "y1", "x2", "y2", "label"]
    assert frame.loc[1].tolist() == ["cat", 0.75, 5.25, 6.125, 20, 30, 0]
    assert found[:0].to_pandas().dtypes.to_dict() == frame.dtypes.to_dict()
    assert replace(found, tracks=np.array([7, 3, 5, 9])).to_pandas()["track"].tolist() == [7, 3, 5, 9]


@pytest.mark.parametrize("package", ["pandas", "supervision"])
def test_missing_package(found: Detections, monkeypatch: pytest.MonkeyPatch, package: str) -> None:
    monkeypatch.setitem(sys.modules, package, None)
    with pytest.raises(ConfigError, match=rf'the package {package}; pip install "fssd\[{package}\]"'):
        getattr(found, f"to_{package}")()


@dataclass
class Boxes:
    """The fields of `supervision.Detections`, version 0.25 and later."""

    xyxy: Any
    mask: Any = None
    confidence: Any = None
    class_id: Any = None
    tracker_id: Any = None
    data: dict[str, Any] = field(default_factory=dict)
    metadata: dict[str, Any] = field(default_factory=dict)

    def __len__(self) -> int:
        return len(self.xyxy)


def test_supervision(found: Detections, monkeypatch: pytest.MonkeyPatch) -> None:
    module = ModuleType("supervision")
    module.Detections = Boxes  # type: ignore[attr-defined]
    monkeypatch.setitem(sys.modules, "supervision", module)
    there = found.to_supervision()
    assert there.data["class_name"].tolist() == found.names
    assert there.class_id.tolist() == [1, 0, 1, 2]
    assert Detections.from_supervision(there) == found
    assert Detections.from_supervision(found[:0].to_supervision()) == found[:0]
    tracked = replace(found, tracks=np.array([7, 3, 5, 9]))
    there = tracked.to_supervision()
    assert there.tracker_id.tolist() == [7, 3, 5, 9]
    assert Detections.from_supervision(there) == tracked != found


def test_from_supervision() -> None:
    xyxy = np.array([[0, 0, 1, 1], [2, 2, 3, 3], [4, 4, 5, 5]])
    scores = np.array([0.2, 0.9, 0.5])
    by_name = Boxes(xyxy, confidence=scores, data={"class_name": np.array(["dog", "cat", "dog"])})
    found = Detections.from_supervision(by_name)
    assert [(one.name, one.label, one.box[0]) for one in found] == [
        ("cat", 0, 2),
        ("dog", 1, 4),
        ("dog", 1, 0),
    ]
    assert found.boxes.dtype == found.scores.dtype == np.float32
    by_number = Boxes(xyxy, class_id=np.array([2, 0, 1]))
    assert Detections.from_supervision(by_number, CLASSES).names == ["<b>emu", "cat", "dog"]
    with pytest.raises(ConfigError, match="class_id 2 has no name among 2 classes"):
        Detections.from_supervision(by_number, CLASSES[:2])
    for without in (by_number, Boxes(xyxy)):
        with pytest.raises(ConfigError, match="no class names or no class_id"):
            Detections.from_supervision(without)


@pytest.mark.parametrize("by_number", [dict(enumerate(CLASSES)), np.array(CLASSES), list(CLASSES)])
def test_names_by_number(by_number: Any) -> None:
    """Ultralytics keeps names as a mapping."""
    boxes = Boxes(np.zeros((2, 4)), class_id=np.array([2, 0]))
    found = Detections.from_supervision(boxes, by_number)
    assert (found.classes, found.names, found.labels.tolist()) == (CLASSES, [CLASSES[2], CLASSES[0]], [2, 0])
    assert all(type(name) is str for name in found.classes)
    noted = Boxes(np.zeros((2, 4)), class_id=np.array([2, 0]), metadata={"classes": by_number})
    assert Detections.from_supervision(noted) == found


def test_names_of_some_numbers() -> None:
    """COCO's numbers have gaps, and labels none."""
    boxes = Boxes(np.zeros((2, 4)), class_id=np.array([17, 1]))
    found = Detections.from_supervision(boxes, {17: "cat", 1: "person", 90: "toothbrush"})
    assert found.classes == ("person", "cat", "toothbrush")
    assert (found.names, found.labels.tolist()) == (["cat", "person"], [1, 0])
    with pytest.raises(ConfigError, match="class_id 17 has no name among 1 classes"):
        Detections.from_supervision(boxes, {1: "person"})
    for unordered in ("ab", {"a"}):
        with pytest.raises(ConfigError, match="give a list of all names"):
            Detections.from_supervision(boxes, unordered)  # type: ignore[arg-type]


def test_labels_of_names_that_come_once() -> None:
    assert class_labels((name for name in CLASSES[::-1]), CLASSES) == [2, 1, 0]

"""Drafts of labels, with scores where formats have a place for them."""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any
from xml.etree import ElementTree

import cv2
import numpy as np
import pytest

from fssd.data.source import open_data
from fssd.data.tiles import one_window
from fssd.data.writers import WRITERS
from fssd.errors import ConfigError, DataError
from fssd.inference.detections import Detections
from fssd.inference.draft import draft_labels

CLASSES = ("dog", "cat")
BOXES = [[10.123456, 20, 30, 40], [1, 2, 3, 4], [50, 5, 50, 9]]  # the third has no width
SCORES = [0.875, 0.3125, 0.9]


class TwoObjects:
    """A detector that finds the same objects in every image."""

    classes = CLASSES

    def windows(self, _: object) -> Any:
        return one_window

    def stream(self, images: Iterator[Any], **_: Any) -> Iterator[Detections]:
        for image in images:
            assert image.shape == (80, 100, 3)
            boxes, scores = np.array(BOXES, np.float32), np.array(SCORES, np.float32)
            yield Detections(boxes, scores, np.array([0, 1, 0]), CLASSES)


def draft(files: Sequence[Path], to: str, out: Path) -> Any:
    return draft_labels(TwoObjects(), files, to, out, model="runs/mine")  # type: ignore[arg-type]


@pytest.fixture
def files(tmp_path: Path) -> list[Path]:
    """Two pictures of one name in two folders, and a file that is none."""
    paths = [tmp_path / "in" / folder / "a.png" for folder in ("day", "night")]
    for path in paths:
        path.parent.mkdir(parents=True)
        cv2.imwrite(str(path), np.full((80, 100, 3), len(path.parent.name), np.uint8))
    (tmp_path / "in" / "bad.jpg").write_text("bad")
    return [*paths, tmp_path / "in" / "bad.jpg"]


@pytest.mark.parametrize("to", [name for name in WRITERS if name != "label-studio"])
def test_drafts_open_as_data_sets(files: list[Path], tmp_path: Path, to: str) -> None:
    draft(files, to, tmp_path / "out")
    data = open_data(tmp_path / "out")
    assert len(data) == 2
    for record in data.records:
        found = {
            data.classes[label]: box.tolist() for label, box in zip(record.labels, record.boxes, strict=True)
        }
        assert found["dog"] == pytest.approx([10.12, 20, 30, 40], abs=1e-4)
        assert found["cat"] == pytest.approx([1, 2, 3, 4], abs=1e-4)
    assert {record.path.read_bytes() for record in data.records} == {file.read_bytes() for file in files[:2]}


def test_unreadable_images_are_named(
    files: list[Path], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    made = draft(files, "coco", tmp_path / "out")
    assert len(list(made.content.images)) == 2
    assert capsys.readouterr().err.startswith(f"error: {files[2]}: is no image")
    with pytest.raises(DataError, match="none of the images can be read"):
        draft(files[2:], "coco", tmp_path / "other")
    assert not (tmp_path / "other").exists()


def test_existing_labels_are_kept(files: list[Path], tmp_path: Path) -> None:
    mine = tmp_path / "in" / "day" / "a.json"
    mine.write_text("mine")
    with pytest.raises(ConfigError, match="exists already"):
        draft(files, "labelme", tmp_path / "in")
    assert mine.read_text() == "mine"


def test_label_studio_predictions(files: list[Path], tmp_path: Path) -> None:
    draft(files, "label-studio", tmp_path / "out")
    tasks = json.loads((tmp_path / "out/tasks.json").read_text())
    assert [task["data"]["image"] for task in tasks] == [
        "/data/local-files/?d=images/day/a.png",
        "/data/local-files/?d=images/night/a.png",
    ]
    assert all(task["annotations"] == [] for task in tasks)
    (prediction,) = tasks[0]["predictions"]
    assert (prediction["model_version"], prediction["score"]) == ("runs/mine", 0.3125)
    assert [region["score"] for region in prediction["result"]] == [0.875, 0.3125]
    assert prediction["result"][1]["value"] == {
        "x": 1, "y": 2.5, "width": 2, "height": 2.5, "rotation": 0, "rectanglelabels": ["cat"],
    }  # fmt: skip


def test_scores_of_labelme(files: list[Path], tmp_path: Path) -> None:
    draft(files, "labelme", tmp_path / "out")
    shapes = json.loads((tmp_path / "out/day/a.json").read_text())["shapes"]
    assert [(row["description"], row["score"]) for row in shapes] == [
        ("score 0.875", 0.875),
        ("score 0.312", 0.3125),
    ]


def test_scores_of_cvat(files: list[Path], tmp_path: Path) -> None:
    draft(files, "cvat", tmp_path / "out")
    root = ElementTree.parse(tmp_path / "out/annotations.xml").getroot()
    boxes = root.findall("image")[0].findall("box")
    assert [(box.get("source"), box.findtext("attribute[@name='score']")) for box in boxes] == [
        ("auto", "0.875"),
        ("auto", "0.312"),
    ]
    names = [item.findtext("name") for item in root.iterfind("meta/task/labels/label/attributes/attribute")]
    assert names == ["score", "score"]  # each label declares it


def test_scores_of_coco(files: list[Path], tmp_path: Path) -> None:
    draft(files, "coco", tmp_path / "out")
    rows = json.loads((tmp_path / "out/annotations/instances_default.json").read_text())["annotations"]
    assert [row["score"] for row in rows] == [0.875, 0.3125, 0.875, 0.3125]


@pytest.mark.parametrize("to", ["voc", "yolo", "createml"])
def test_formats_without_scores_say_so(files: list[Path], tmp_path: Path, to: str) -> None:
    notes = draft(files, to, tmp_path / "out").notes
    assert f"{WRITERS[to].title} has no place for scores: they are dropped" in notes

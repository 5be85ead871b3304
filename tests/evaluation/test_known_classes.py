"""Classes that a detector does not know: named, left out of a second mean, and of a comparison."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
from rich.console import Console

from fssd.config.train_config import Metric
from fssd.data.sample import DataSet, Record
from fssd.errors import ConfigError
from fssd.evaluation.evaluate import evaluate_detections
from fssd.evaluation.known_classes import known_to_both, unknown_classes, unknown_note, wanted_classes
from fssd.inference.detections import Detections

BOX = [10, 10, 60, 60]
OTHER = [100, 100, 160, 160]


def dataset(classes: tuple[str, ...], *images: list[int], difficult: bool = False) -> DataSet:
    """Images with objects of these labels, at BOX, OTHER, ..."""
    records = []
    for number, labels in enumerate(images):
        boxes = np.array([BOX, OTHER][: len(labels)], np.float32).reshape(-1, 4)
        flags = np.full(len(labels), difficult)
        path = Path(f"{number}.jpg")
        values = (boxes, np.array(labels, np.int64), flags, np.zeros(len(labels), bool))
        records.append(Record(str(number), path, path, 200, 200, *values))
    return DataSet(classes, tuple(records))


def found(classes: tuple[str, ...], *rows: tuple[str, float, list[int]]) -> Detections:
    boxes = np.array([box for _, _, box in rows], np.float32).reshape(-1, 4)
    labels = np.array([classes.index(name) for name, _, _ in rows], np.int64)
    return Detections(boxes, np.array([score for _, score, _ in rows], np.float32), labels, classes)


def test_unknown_are_those_with_objects() -> None:
    data = dataset(("cat", "Dog", "cow"), [0, 1], [1])
    assert unknown_classes(data, ("cat", "dog")) == ("Dog",)
    assert unknown_classes(data, ("cat", "Dog")) == ()
    assert unknown_classes(dataset(("cat", "Dog"), [0, 1], difficult=True), ()) == ()


@pytest.mark.parametrize(
    ("classes", "known", "note"),
    [
        (("cat",), ("cat", "dog"), ""),
        (("Dog",), ("cat", "dog"), "knows no 'Dog' (did you mean 'dog'?); its AP is 0"),
        (("zebra",), ("cat", "dog"), "knows no 'zebra'; its AP is 0"),
        (
            ("airplane", "x"),
            ("aeroplane",),
            "knows no 'airplane' (did you mean 'aeroplane'?), 'x'; their AP is 0",
        ),
        (("cat", "cats"), ("cat", "dog"), "knows no 'cats'; its AP is 0"),  # 'cat' is there for itself
        (tuple(f"{n}" * 9 for n in range(12)), ("dog",), "and 2 more; their AP is 0"),
    ],
)
def test_note(classes: tuple[str, ...], known: tuple[str, ...], note: str) -> None:
    data = dataset(classes, *([label] for label in range(len(classes))))
    told = unknown_note(data, known)
    assert told.endswith(note) and (told == "") == (note == "")


@pytest.mark.parametrize("metric", ["voc07", "voc12", "coco"])
def test_the_second_mean_is_of_the_classes_that_the_model_knows(metric: Metric) -> None:
    if metric == "coco":
        pytest.importorskip("hotcoco")
    known = ("cat", "dog")
    # One of two cats is found, and no dog; Cow is unknown. By hand: AP of cat is 6/11 at eleven points, 0.5
    # as an area, and 51/101 at COCO's points; the means are that by 3 and by 2.
    data = dataset(("cat", "Cow", "dog"), [0, 1], [0, 2])
    rows = [found(known, ("cat", 0.9, BOX)), found(known)]
    report = evaluate_detections(data, rows, metric)
    ap = {"voc07": 6 / 11, "voc12": 1 / 2, "coco": 51 / 101}[metric]
    assert report.unknown_classes == ("Cow",)
    assert report.map == pytest.approx(ap / 3)
    assert report.known_map == pytest.approx(ap / 2)
    content = json.loads(report.to_json())
    assert content["unknown_classes"] == ["Cow"] and content["known_map"] == pytest.approx(ap / 2)
    console = Console(width=100, record=True)
    console.print(report.table())
    assert "mean of the 2 classes that the model knows" in console.export_text()


def test_without_unknown_classes_both_means_are_equal() -> None:
    report = evaluate_detections(dataset(("cat",), [0]), [found(("cat",), ("cat", 0.9, BOX))])
    assert (report.unknown_classes, report.map, report.known_map) == ((), 1.0, 1.0)
    console = Console(width=100, record=True)
    console.print(report.table())
    assert "knows" not in console.export_text()


def test_known_to_both() -> None:
    data = dataset(("cat", "cow", "dog", "owl"), [0, 1], [2], [0, 2])
    common, note = known_to_both(data, ("cat", "dog", "cow"), ("dog", "cat", "owl"))
    assert common.classes == ("cat", "dog")
    assert [record.labels.tolist() for record in common.records] == [[0], [1], [0, 1]]
    assert common.records[0].boxes.tolist() == [BOX]
    assert note == "compared on the 2 classes that both know; left out, unknown to B: 'cow'"
    same, nothing = known_to_both(data, data.classes, data.classes)
    assert same is data and nothing == ""


def test_nothing_to_compare() -> None:
    data = dataset(("cat", "cow", "owl"), [0, 1])
    with pytest.raises(ConfigError, match="left out, unknown to B: 'cat'; left out, unknown to both: 'cow'"):
        known_to_both(data, ("cat", "owl"), ("dog", "owl"))


def test_the_mean_is_that_of_the_wanted_classes() -> None:
    data = dataset(("cat", "dog", "cow"), [0, 1], [2])
    data.facts["split"] = "val"
    cat, note = wanted_classes(data, ["cat", "bird"])
    assert (cat.classes, cat.facts["split"], len(cat)) == (("cat",), "val", 2)
    assert note == "measured without 'dog', 'cow'"
    row = found(("cat", "dog", "cow"), ("cat", 0.9, BOX))
    nothing = found(("cat", "dog", "cow"))
    assert evaluate_detections(data, [row, nothing], "voc12").map == pytest.approx(1 / 3)
    report = evaluate_detections(cat, [row, nothing], "voc12")
    assert (report.map, report.classes, report.objects) == (1, {"cat": 1}, 1)
    assert wanted_classes(data, data.classes)[1] == ""
    with pytest.raises(ConfigError, match="no object of 'bird'; choose among its classes: cat, dog, cow"):
        wanted_classes(data, ["bird"])

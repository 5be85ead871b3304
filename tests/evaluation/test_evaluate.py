"""Reports: what is counted, sizes, JSON, table, and the errors of wrong input."""

from __future__ import annotations

import io
import json
import math
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from rich.console import Console

from fssd.data.sample import DataSet, Record
from fssd.errors import ConfigError, DataError
from fssd.evaluation.evaluate import average_precisions, evaluate_detections
from fssd.inference.detections import Detections

CLASSES = ("cat", "dog", "[bold]bird")
SMALL, MEDIUM, LARGE = [0, 0, 20, 20], [100, 0, 150, 50], [200, 0, 300, 100]  # areas 400, 2500, 10000


def record(boxes: Any, labels: Any, difficult: Any = None, crowd: Any = None, name: str = "1") -> Record:
    boxes = np.array(boxes, np.float32).reshape(-1, 4)
    off = np.zeros(len(boxes), bool)
    return Record(
        name, Path("a.jpg"), Path("a.xml"), 400, 300, boxes, np.array(labels, np.int64),
        off if difficult is None else np.array(difficult), off if crowd is None else np.array(crowd),
    )  # fmt: skip


def found(boxes: Any, labels: Any, classes: tuple[str, ...] = CLASSES) -> Detections:
    boxes = np.array(boxes, np.float32).reshape(-1, 4)
    scores = np.linspace(0.9, 0.5, len(boxes)).astype(np.float32)
    return Detections(boxes, scores, np.array(labels, np.int64), classes)


def test_counts_and_classes() -> None:
    dataset = DataSet(
        CLASSES, (record([SMALL, LARGE, MEDIUM], [0, 1, 1], [False, False, True]), record([], [], name="2"))
    )
    report = evaluate_detections(dataset, [found([SMALL], [0]), found([LARGE], [1])], "voc12")
    assert (report.images, report.objects, report.iou) == (2, 2, 0.5)
    assert report.classes["cat"] == 1
    assert report.classes["dog"] == 0
    assert math.isnan(report.classes["[bold]bird"])
    assert report.map == 0.5


def test_detections_may_come_one_by_one() -> None:
    dataset = DataSet(CLASSES, (record([SMALL], [0]),))
    assert evaluate_detections(dataset, iter([found([SMALL], [0])]), "voc12").map == 1


def test_crowds_are_ignored() -> None:
    dataset = DataSet(CLASSES, (record([LARGE, MEDIUM], [0, 0], crowd=[True, False]),))
    assert evaluate_detections(dataset, [found([LARGE, MEDIUM], [0, 0])], "voc12").map == 1


def test_sizes() -> None:
    # Found: small, large. The stray detection is large: a false positive among the large ones only.
    stray = [0, 150, 100, 250]
    dataset = DataSet(CLASSES, (record([SMALL, MEDIUM, LARGE], [0, 0, 0]),))
    report = evaluate_detections(dataset, [found([stray, SMALL, LARGE], [0, 0, 0])], "voc12")
    assert report.sizes == pytest.approx({"small": 1.0, "medium": 0.0, "large": 0.5})
    # Whole set: precision 0, 1/2, 2/3 at recall 0, 1/3, 2/3; the envelope is 2/3: AP 4/9.
    assert report.map == pytest.approx(4 / 9)


def test_average_precisions_of_class_and_size() -> None:
    # As above for the first class; the dog is medium and found; there is no bird.
    stray = [0, 150, 100, 250]
    dog = [100, 200, 150, 250]
    dataset = DataSet(CLASSES, (record([SMALL, MEDIUM, LARGE, dog], [0, 0, 0, 1]),))
    found_all = [found([stray, SMALL, LARGE, dog], [0, 0, 0, 1])]
    nan = math.nan
    expected = np.array([[1, 0, 0.5], [nan, 1, nan], [nan, nan, nan]])
    assert average_precisions(dataset, found_all, "voc12") == pytest.approx(expected, nan_ok=True)
    with pytest.raises(ConfigError, match="takes no iou"):
        average_precisions(dataset, found_all, "coco", iou=0.75)


def test_size_limits_belong_to_the_larger_size() -> None:
    dataset = DataSet(CLASSES, (record([[0, 0, 32, 32], [100, 100, 196, 196]], [0, 0]),))
    sizes = evaluate_detections(dataset, [found([], [])], "voc07").sizes
    assert math.isnan(sizes["small"])
    assert (sizes["medium"], sizes["large"]) == (0, 0)


def test_both_voc_metrics_differ() -> None:
    dataset = DataSet(CLASSES, (record([SMALL, LARGE], [0, 0]),))
    detections = [found([SMALL, MEDIUM, LARGE], [0, 0, 0])]
    assert evaluate_detections(dataset, detections, "voc12").map == pytest.approx(5 / 6)
    assert evaluate_detections(dataset, detections, "voc07").map == pytest.approx(28 / 33)


def test_iou_is_used() -> None:
    dataset = DataSet(CLASSES, (record([[0, 0, 99, 99]], [0]),))
    detections = [found([[0, 0, 99, 59]], [0])]
    assert evaluate_detections(dataset, detections, "voc12", iou=0.6).map == 1
    assert evaluate_detections(dataset, detections, "voc12", iou=0.61).map == 0


def test_coco() -> None:
    pytest.importorskip("hotcoco")
    dataset = DataSet(CLASSES, (record([SMALL, MEDIUM], [0, 1]),))
    report = evaluate_detections(dataset, [found([SMALL], [0])], "coco")
    assert report.map == report.numbers["AP"] == pytest.approx(0.5)
    assert report.iou is None
    assert report.sizes["small"] == pytest.approx(1)
    assert report.sizes["medium"] == 0
    assert math.isnan(report.sizes["large"])
    assert list(report.classes) == list(CLASSES)


@pytest.mark.parametrize("metric", ["voc07", "coco"])
def test_classes_are_compared_by_name(metric: Any) -> None:
    if metric == "coco":
        pytest.importorskip("hotcoco")
    dataset = DataSet(CLASSES, (record([SMALL], [1]),))
    detections = [found([LARGE, SMALL], [1, 0], ("dog", "zebra"))]
    assert evaluate_detections(dataset, detections, metric).map == pytest.approx(1)


def test_json_has_null_for_nan() -> None:
    dataset = DataSet(CLASSES, (record([SMALL], [0]),))
    data = json.loads(evaluate_detections(dataset, [found([SMALL], [0])]).to_json())
    assert data["classes"] == {"cat": 1.0, "dog": None, "[bold]bird": None}
    assert data["sizes"] == {"small": 1.0, "medium": None, "large": None}
    assert data["metric"] == "voc12"
    assert data["map"] == 1.0


def test_table() -> None:
    dataset = DataSet(CLASSES, (record([SMALL], [0]),))
    text = io.StringIO()
    Console(file=text, width=100).print(evaluate_detections(dataset, [found([SMALL], [0])]).table())
    shown = " ".join(text.getvalue().split())
    titles = ("voc12 at IoU 0.50: 1 image, 1 object", "small", "mean of the classes")
    for part in ("cat", "100.0", "[bold]bird", *titles):
        assert part in shown


def test_wrong_input() -> None:
    dataset = DataSet(CLASSES, (record([SMALL], [0]),))
    detections = [found([SMALL], [0])]
    with pytest.raises(ConfigError, match="did you mean 'voc07'"):
        evaluate_detections(dataset, detections, "voc7")  # type: ignore[arg-type]
    with pytest.raises(ConfigError, match="takes no iou"):
        evaluate_detections(dataset, detections, "coco", iou=0.75)
    with pytest.raises(ValueError, match="2 detections for 1 images"):
        evaluate_detections(dataset, detections * 2)
    with pytest.raises(ConfigError, match=r"iou is '0\.5'"):
        evaluate_detections(dataset, detections, iou="0.5")  # type: ignore[arg-type]
    nothing = replace(detections[0], scores=np.array([np.nan], np.float32))
    for metric in ("voc12", "coco"):
        with pytest.raises(ConfigError, match=r"detections\[1\] has scores that are no numbers"):
            evaluate_detections(DataSet(CLASSES, dataset.records * 2), [*detections, nothing], metric)
    with pytest.raises(ConfigError, match="share no class name"):
        evaluate_detections(dataset, [found([SMALL], [0], ("zebra",))])
    for records in ((), (record([], []),), (record([SMALL], [0], [True]),)):
        with pytest.raises(DataError, match="has an object to evaluate on"):
            evaluate_detections(DataSet(CLASSES, records), [found([], [])] * len(records))

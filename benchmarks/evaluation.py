"""How long evaluation takes: `python benchmarks/evaluation.py`, about a minute on two cores.

Sets of the size of VOC 2007 test (4,952 images, 200 detections each, 20 classes) and COCO val 2017 (5,000
images, 100 detections each, 80 classes), random boxes near the objects. The plain algorithm of the VOC kit,
one detection after the other, runs on a part of the set.
"""

from __future__ import annotations

import math
import statistics
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

from fssd.data.sample import DataSet, Record
from fssd.detections import Detections
from fssd.evaluation.coco_ap import coco_average_precision
from fssd.evaluation.report import evaluate_detections
from fssd.evaluation.voc_ap import voc_average_precision


def random_set(
    images: int, found: int, objects: float, classes: int, seed: int = 0
) -> tuple[DataSet, list[Detections]]:
    """Images of 500 x 500 with `objects` objects on average and exactly `found` detections."""
    rng = np.random.default_rng(seed)
    names = tuple(f"class {i}" for i in range(classes))
    records, detections = [], []
    for i in range(images):
        n = 1 + rng.poisson(objects - 1)
        truth, labels = random_boxes(rng, n), rng.integers(0, classes, n)
        pick = rng.integers(0, n, found)
        near = (truth[pick] + rng.normal(0, 8, (found, 4))).astype(np.float32)
        near[:, 2:] = np.maximum(near[:, 2:], near[:, :2] + 1)
        stray = rng.random(found) < 0.5
        boxes = np.where(stray[:, None], random_boxes(rng, found), near)
        label = np.where(stray, rng.integers(0, classes, found), labels[pick])
        scores = np.sort(rng.random(found).astype(np.float32))[::-1].copy()
        records.append(
            Record(
                str(i + 1),
                Path("x"),
                Path("x"),
                500,
                500,
                truth,
                labels,
                rng.random(n) < 0.1,
                np.zeros(n, bool),
            )
        )
        detections.append(Detections(boxes, scores, label, names))
    return DataSet(names, tuple(records)), detections


def random_boxes(rng: np.random.Generator, n: int) -> Any:
    corner = rng.uniform(0, 400, (n, 2))
    return np.concatenate([corner, corner + rng.uniform(10, 100, (n, 2))], 1).astype(np.float32)


def lists_of(dataset: DataSet, detections: list[Detections]) -> dict[str, Any]:
    return {
        "truth_boxes": [r.boxes for r in dataset.records],
        "truth_labels": [r.labels for r in dataset.records],
        "truth_difficult": [r.difficult for r in dataset.records],
        "boxes": [d.boxes for d in detections],
        "scores": [d.scores for d in detections],
        "labels": [d.labels for d in detections],
    }


def kit_mean_ap(case: dict[str, Any], classes: int) -> float:
    """VOCevaldet.m: one detection after the other, numpy only over the objects of its image."""
    aps = [kit_ap(case, label) for label in range(classes)]
    return float(np.nanmean(aps))


def kit_ap(case: dict[str, Any], label: int) -> float:
    truths = []
    for boxes, labels, difficult in zip(
        case["truth_boxes"], case["truth_labels"], case["truth_difficult"], strict=True
    ):
        own = labels == label
        truths.append((boxes[own].astype(np.float64), difficult[own], [False] * int(own.sum())))
    positives = sum(int((~t[1]).sum()) for t in truths)
    found = [
        (float(scores[k]), image, boxes[k].astype(np.float64))
        for image, (boxes, scores, labels) in enumerate(
            zip(case["boxes"], case["scores"], case["labels"], strict=True)
        )
        for k in np.flatnonzero(labels == label)
    ]
    found.sort(key=lambda f: -f[0])
    hits = [hit for hit in (kit_judge(box, *truths[image]) for _, image, box in found) if hit is not None]
    if not positives:
        return math.nan
    right = np.cumsum(hits)
    recall, precision = right / positives, right / np.arange(1, len(hits) + 1)
    return float(np.mean([precision[recall >= k / 10].max(initial=0) for k in range(11)]))


def kit_judge(box: Any, truths: Any, difficult: Any, taken: list[bool]) -> bool | None:
    """True for a hit, False for a false alarm, None for a find of a difficult object."""
    if not len(truths):
        return False
    sides = np.maximum(np.minimum(box[2:], truths[:, 2:]) - np.maximum(box[:2], truths[:, :2]) + 1, 0)
    common = sides.prod(1)
    iou = common / ((box[2:] - box[:2] + 1).prod() + (truths[:, 2:] - truths[:, :2] + 1).prod(1) - common)
    best = int(iou.argmax())
    if iou[best] < 0.5:
        return False
    if difficult[best]:
        return None
    first = not taken[best]
    taken[best] = True
    return first


def median_seconds(work: Callable[[], Any], repeats: int) -> float:
    times = []
    for _ in range(repeats):
        start = time.perf_counter()
        work()
        times.append(time.perf_counter() - start)
    return statistics.median(times)


def voc(images: int = 4952, part: int = 500) -> None:
    dataset, detections = random_set(images, found=200, objects=2.4, classes=20)
    case = lists_of(dataset, detections)
    whole = median_seconds(lambda: voc_average_precision(**case, classes=20, eleven_points=True), 3)
    report = median_seconds(lambda: evaluate_detections(dataset, detections, "voc07"), 3)
    print(f"VOC, {images} x 200 detections, 20 classes: AP {whole:.2f} s, report with sizes {report:.2f} s")
    few = {key: arrays[:part] for key, arrays in case.items()}
    ours = median_seconds(lambda: voc_average_precision(**few, classes=20, eleven_points=True), 3)
    kit = median_seconds(lambda: kit_mean_ap(few, 20), 3)
    difference = abs(voc_average_precision(**few, classes=20, eleven_points=True).mean - kit_mean_ap(few, 20))
    print(
        f"VOC, first {part} images: {ours:.3f} s, plain algorithm {kit:.2f} s: {kit / ours:.0f} times as fast"
    )
    print(f"difference of the two means: {difference:.1e}")


def coco(images: int = 5000) -> None:
    dataset, detections = random_set(images, found=100, objects=7.3, classes=80)
    seconds = median_seconds(lambda: coco_average_precision(dataset, detections), 3)
    print(f"COCO, {images} x 100 detections, 80 classes: {seconds:.2f} s")


if __name__ == "__main__":
    voc()
    coco()

"""How long evaluation takes: `python benchmarks/evaluation.py`, about two minutes on two cores.

Sets of the size of VOC 2007 test (4,952 images, 200 detections each, 20 classes) and COCO val 2017 (5,000
images, 100 detections each, 80 classes), random boxes near the objects. The plain algorithm of the VOC kit,
one detection after the other, and pycocotools (extra dev) run on a part of the set, in turn with ours.
"""

from __future__ import annotations

import argparse
import contextlib
import io
import math
from pathlib import Path
from typing import Any

import numpy as np

from fssd.bench.machine import write_figures
from fssd.bench.timing import line, ratio, spread, take_turns
from fssd.data.sample import DataSet, Record
from fssd.evaluation.coco_ap import coco_average_precision
from fssd.evaluation.evaluate import evaluate_detections
from fssd.evaluation.voc_ap import voc_average_precision
from fssd.inference.detections import Detections
from fssd.runtimes.cores import usable_cores


def random_set(
    images: int, found: int, objects: float, classes: int, difficult: float = 0.1, seed: int = 0
) -> tuple[DataSet, list[Detections]]:
    """Images of 500 x 500 with `objects` objects on average and exactly `found` detections.

    difficult: share of the objects.
    """
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
                rng.random(n) < difficult,
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


def kit_coco(dataset: DataSet, detections: list[Detections]) -> float:
    """AP by pycocotools, from the same arrays."""
    from pycocotools.coco import COCO
    from pycocotools.cocoeval import COCOeval

    with contextlib.redirect_stdout(io.StringIO()):
        truth = COCO()
        truth.dataset = _coco_json(dataset)
        truth.createIndex()
        evaluation = COCOeval(truth, truth.loadRes(_coco_rows(detections)), "bbox")
        evaluation.evaluate()
        evaluation.accumulate()
        evaluation.summarize()
    return float(evaluation.stats[0])


def _coco_json(dataset: DataSet) -> dict[str, Any]:
    annotations = []
    for image, record in enumerate(dataset.records, start=1):
        for box, label in zip(record.boxes.astype(np.float64), record.labels, strict=True):
            width, height = box[2:] - box[:2]
            annotations.append(
                {
                    "id": len(annotations) + 1,
                    "image_id": image,
                    "category_id": int(label) + 1,
                    "bbox": [box[0], box[1], width, height],
                    "area": width * height,
                    "iscrowd": 0,
                }
            )
    return {
        "images": [{"id": image} for image in range(1, len(dataset) + 1)],
        "categories": [{"id": label, "name": name} for label, name in enumerate(dataset.classes, start=1)],
        "annotations": annotations,
    }


def _coco_rows(detections: list[Detections]) -> np.ndarray:
    """One row a detection, as pycocotools takes them: image, x, y, width, height, score, category."""
    rows = []
    for image, found in enumerate(detections, start=1):
        boxes = found.boxes.astype(np.float64)
        place = np.full((len(found), 1), image)
        size = boxes[:, 2:] - boxes[:, :2]
        rows.append(np.hstack([place, boxes[:, :2], size, found.scores[:, None], found.labels[:, None] + 1]))
    return np.concatenate(rows)


def voc(images: int, part: int, repeats: int) -> dict[str, Any]:
    dataset, detections = random_set(images, found=200, objects=2.4, classes=20)
    case = lists_of(dataset, detections)
    few = {key: arrays[:part] for key, arrays in case.items()}
    sides = {
        "AP": lambda: voc_average_precision(**case, classes=20, eleven_points=True),
        "report with sizes": lambda: evaluate_detections(dataset, detections, "voc07"),
        "AP of a part": lambda: voc_average_precision(**few, classes=20, eleven_points=True),
        "plain algorithm, a part": lambda: kit_mean_ap(few, 20),
    }
    ours = voc_average_precision(**few, classes=20, eleven_points=True).mean
    print(f"VOC, {images} images x 200 detections, 20 classes; a part is the first {part}")
    return _compare(
        sides, "AP of a part", "plain algorithm, a part", abs(ours - kit_mean_ap(few, 20)), repeats
    )


def coco(images: int, part: int, repeats: int) -> dict[str, Any]:
    dataset, detections = random_set(images, found=100, objects=7.3, classes=80, difficult=0)
    few, found = DataSet(dataset.classes, dataset.records[:part]), detections[:part]
    sides = {
        "AP": lambda: coco_average_precision(dataset, detections),
        "AP of a part": lambda: coco_average_precision(few, found),
        "pycocotools, a part": lambda: kit_coco(few, found),
    }
    difference = abs(coco_average_precision(few, found).numbers["AP"] - kit_coco(few, found))
    print(f"COCO, {images} images x 100 detections, 80 classes; a part is the first {part}")
    return _compare(sides, "AP of a part", "pycocotools, a part", difference, repeats)


def _compare(
    sides: dict[str, Any], ours: str, theirs: str, difference: float, repeats: int
) -> dict[str, Any]:
    times = take_turns(sides, repeats, warm_up=1)
    seconds = {name: spread(taken) for name, taken in times.items()}
    gain = ratio(times[theirs], times[ours])
    for name, figure in seconds.items():
        print(line(f"  {name}", figure, "s", digits=3))
    print(line(f"  {theirs} / ours", gain, "times", digits=0))
    print(f"  difference of the two APs: {difference:.1e}")
    return {"seconds": seconds, "gain": gain, "difference": difference}


def main() -> None:
    args = _arguments()
    figures = {
        "voc": voc(args.images - 48, args.part, args.repeats),
        "coco": coco(args.images, args.part, args.repeats),
    }
    write_figures(args.json, {"images": args.images, "part": args.part, **figures}, usable_cores())


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--images", type=int, default=5000, help="of COCO; of VOC 48 fewer")
    parser.add_argument("--part", type=int, default=250, help="images that the slow side sees too")
    parser.add_argument("--repeats", type=int, default=3, help="turns that count")
    parser.add_argument("--json", type=Path, help="write the figures to this file")
    return parser.parse_args()


if __name__ == "__main__":
    main()

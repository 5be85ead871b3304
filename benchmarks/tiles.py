"""What tiles find in large pictures, beside the picture as a whole and plain ways to merge tiles.

    python benchmarks/tiles.py --data DATA/voc2012-animals

The pictures are mosaics of 2,000 x 1,600 px, each of 20 photographs of the validation split that the model
was not trained on. In "mixed" ones a photograph is enlarged to 1,200 px, more than any tile. Found: objects
with a detection of their class at IoU 0.5, at a score of 0.5. AP: over all classes together, from 0.1.
"plain, IoU" keeps what NMS over all tiles keeps; "plain, smaller" the same with overlap over the smaller box.
"""

from __future__ import annotations

import argparse
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import NamedTuple

import numpy as np

from fssd.bench.machine import write_figures
from fssd.boxes import areas, intersections, overlaps
from fssd.data.decode import read_image
from fssd.data.sample import Boxes, DataSet, Image, Labels, Record
from fssd.data.source import open_data
from fssd.data.tiles import plan_tiles
from fssd.inference.detections import Detections
from fssd.inference.detector import Detector
from fssd.runtimes.cores import usable_cores

SIZE, CELL, EACH = (2000, 1600), 400, 20
SETTINGS = ((480, 0.2), (400, 0.25), (300, 0.3))
MEAN = (123, 117, 104)
SCORE, LEAST = 0.5, 0.1


class Mosaic(NamedTuple):
    """image: (1600, 2000, 3). boxes, labels: of the model's classes."""

    image: Image
    boxes: Boxes
    labels: Labels


def make_mosaics(dataset: DataSet, records: Sequence[Record], classes: Sequence[str]) -> list[Mosaic]:
    """Of 20 photographs each, side by side in cells of 400 px."""
    cells = [(x, y) for y in range(0, SIZE[1], CELL) for x in range(0, SIZE[0], CELL)]
    return [
        paste(
            dataset,
            [(record, cell, 1) for record, cell in zip(records[start:], cells, strict=False)],
            classes,
        )
        for start in range(0, len(records) - EACH + 1, EACH)
    ]


def make_mixed(dataset: DataSet, records: Sequence[Record], classes: Sequence[str]) -> list[Mosaic]:
    """One photograph at three times its size, and eleven in the other cells."""
    cells = [
        (x, y) for y in range(0, SIZE[1], CELL) for x in range(0, SIZE[0], CELL) if x >= 1200 or y >= 1200
    ]
    each = len(cells) + 1
    mosaics = []
    for start in range(0, len(records) - each + 1, each):
        large, *small = records[start : start + each]
        parts = [(record, cell, 1) for record, cell in zip(small, cells, strict=True)]
        mosaics.append(paste(dataset, [(large, (0, 0), 3), *parts], classes))
    return mosaics


def paste(
    dataset: DataSet, parts: Sequence[tuple[Record, tuple[int, int], int]], classes: Sequence[str]
) -> Mosaic:
    """Photographs at (x, y), enlarged by a whole number, on a plain ground."""
    image = np.full((SIZE[1], SIZE[0], 3), MEAN, np.uint8)
    boxes, labels = [np.zeros((0, 4), np.float32)], []
    for record, (x, y), times in parts:
        photo = read_image(record.picture).repeat(times, axis=0).repeat(times, axis=1)
        image[y : y + photo.shape[0], x : x + photo.shape[1]] = photo
        names = [dataset.classes[label] for label in record.labels]
        known = [row for row, name in enumerate(names) if name in classes]
        boxes.append(record.boxes[known] * times + np.array([x, y, x, y], np.float32))
        labels += [list(classes).index(names[row]) for row in known]
    return Mosaic(image, np.concatenate(boxes), np.array(labels, np.int64))


def plain(detector: Detector, image: Image, side: int, overlap: float, smaller: bool) -> Detections:
    """The plain way: cut, detect, shift the boxes, then greedy NMS over all tiles within each class."""
    windows = plan_tiles(SIZE, (side, side), overlap)
    tiles = [image[y1:y2, x1:x2] for x1, y1, x2, y2 in windows]
    parts = detector(tiles, score=LEAST, keep_image=False, tiles="none")
    boxes = np.concatenate(
        [one.boxes + np.array(window[:2] * 2, np.float32) for one, window in zip(parts, windows, strict=True)]
    )
    scores, labels = (np.concatenate([getattr(one, name) for one in parts]) for name in ("scores", "labels"))
    kept: list[int] = []
    for row in np.argsort(-scores, kind="stable"):
        rivals = [other for other in kept if labels[other] == labels[row]]
        shared = intersections(boxes[row][None], boxes[rivals])[0]
        own, others = areas(boxes[row]), areas(boxes[rivals])
        base = np.minimum(own, others) if smaller else own + others - shared
        if not (shared > 0.45 * base).any():
            kept.append(int(row))
    return replace(parts[0], boxes=boxes[kept], scores=scores[kept], labels=labels[kept])


def correct(found: Detections, mosaic: Mosaic) -> list[bool]:
    """Whether each detection, best first, has an object of its class that no better one has."""
    free, hits = np.ones(len(mosaic.boxes), bool), []
    for box, label in zip(found.boxes, found.labels, strict=True):
        overlap = np.where(free & (mosaic.labels == label), overlaps(box[None], mosaic.boxes)[0], 0)
        hits.append(bool(len(overlap) and overlap.max() >= 0.5))
        if hits[-1]:
            free[overlap.argmax()] = False
    return hits


def measure(find: Callable[[Image], Detections], mosaics: Sequence[Mosaic]) -> dict[str, float]:
    """Found objects and detections at `SCORE`, and AP."""
    rows: list[tuple[float, bool]] = []
    for mosaic in mosaics:
        found = find(mosaic.image)
        rows += zip(found.scores.tolist(), correct(found, mosaic), strict=True)
    rows.sort(key=lambda row: -row[0])
    hits = np.array([hit for _, hit in rows], bool)
    sure = np.array([score for score, _ in rows]) > SCORE
    objects = sum(len(mosaic.boxes) for mosaic in mosaics)
    precision = hits.cumsum() / np.arange(1, len(hits) + 1)
    envelope = np.maximum.accumulate(precision[::-1])[::-1]
    figures = {"objects": objects, "found": int((hits & sure).sum()), "detections": int(sure.sum())}
    return {**figures, "ap": float(envelope[hits].sum() / objects)}


def ways(detector: Detector) -> dict[str, Callable[[Image], Detections]]:
    """What is compared, by name."""

    def ours(side: int, overlap: float, whole: bool) -> Callable[[Image], Detections]:
        settings = {"tiles": side, "overlap": overlap, "whole_image": whole}
        return lambda image: detector(image, score=LEAST, keep_image=False, **settings)

    made: dict[str, Callable[[Image], Detections]] = {
        "the whole image": lambda image: detector(image, score=LEAST, keep_image=False, tiles="none")
    }
    for side, overlap in SETTINGS:
        name = f"{side}, {overlap:g}"
        for smaller in (False, True):
            made[f"{name}: plain, {'smaller' if smaller else 'IoU'}"] = (
                lambda image, side=side, overlap=overlap, smaller=smaller: plain(  # type: ignore[misc]
                    detector, image, side, overlap, smaller
                )
            )
        made[f"{name}: tiles alone"] = ours(side, overlap, False)
        made[f"{name}: tiles and the whole image"] = ours(side, overlap, True)
    return made


def main() -> None:
    args = _arguments()
    detector = Detector.load(args.model)
    dataset = open_data(args.data, "val")
    own = {label for label, name in enumerate(dataset.classes) if name in detector.classes}
    known = [record for record in dataset.records if own & set(record.labels.tolist())]
    some = [record for record in list(dataset.records)[::13] if own & set(record.labels.tolist())]
    sets = {
        "two mosaics": make_mosaics(dataset, some[: 2 * EACH], detector.classes),
        "all mosaics": make_mosaics(dataset, known, detector.classes)[: args.most],
        "mixed": make_mixed(dataset, known, detector.classes)[: args.most],
    }
    figures: dict[str, dict[str, dict[str, float]]] = {}
    for title in args.sets or sets:
        mosaics = sets[title]
        print(f"{title}: {len(mosaics)} pictures")
        figures[title] = {}
        for name, find in ways(detector).items():
            row = figures[title][name] = measure(find, mosaics)
            counts = (
                f"{row['found']:4.0f} of {row['objects']:4.0f} found, {row['detections']:4.0f} detections"
            )
            print(f"  {name:40} {counts}, AP {100 * row['ap']:5.1f}", flush=True)
    write_figures(args.json, {"model": str(args.model), "sets": figures}, usable_cores())


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--data", type=Path, required=True, help="a data set with photographs of <= 400 px")
    parser.add_argument("--model", type=Path, default=Path("animals"))
    parser.add_argument("--most", type=int, default=12, help="most pictures of a set")
    parser.add_argument("--sets", nargs="+", choices=("two mosaics", "all mosaics", "mixed"))
    parser.add_argument("--json", type=Path, help="write the figures to this file")
    return parser.parse_args()


if __name__ == "__main__":
    main()

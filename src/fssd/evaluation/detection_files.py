"""Detections from a file in place of a model: any detector's results, measured as a model's are."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from fssd.counted import counted
from fssd.data.archive import is_archive, unpacked
from fssd.data.decode import image_size
from fssd.data.sample import DataSet, Record
from fssd.errors import DataError
from fssd.evaluation.image_names import MatchedImages, match_images
from fssd.evaluation.result_readers import holds_results, read_rows
from fssd.evaluation.result_rows import Box, ResultRow, ResultRows
from fssd.inference.detections import Detections
from fssd.weights.checkpoint import is_model_folder

HIGH_SCORE = 0.1  # results for an evaluation go down to 0.01 or less


@dataclass(frozen=True)
class FileDetections:
    """Detections of every record of a data set, in order, read from a file.

    classes: those that the file knows. form: its format, as a phrase. notes: sentences about what was read,
    left out, or not found.
    """

    path: Path
    detections: list[Detections]
    classes: tuple[str, ...]
    form: str
    notes: tuple[str, ...]


def is_detection_file(path: Path) -> bool:
    """Whether a MODEL is a file or folder of detections: json, an archive, or a folder of txt files."""
    if path.is_dir():
        return not is_model_folder(path) and holds_results(path)
    return path.is_file() and (path.suffix.lower() == ".json" or is_archive(path))


def read_detections(
    path: str | Path, dataset: DataSet, names: tuple[str, ...] | None = None
) -> FileDetections:
    """Read the detections of a data set's images.

    path: a folder of comp4 files or YOLO txt, COCO's result json, the json of `fssd detect`, or an archive
    of one of these, as `fssd submit` makes it. names: of the class numbers in YOLO txt (from 0) and COCO
    json (from 1, or COCO's own ids for COCO's 80 names), where the data set does not give them.

    Images that are not in the data set are left out, and so are, in an evaluation, classes that it does not
    have; images without detections have none. All are counted in `notes`. Raises DataError with file and
    line for a fault, and if no image fits; ConfigError for class numbers without names.
    """
    path = Path(path)
    rows = read_rows(unpacked(path) if is_archive(path) else path, dataset, names)
    matched = match_images(rows.images, dataset.records, path)
    by_record: dict[int, list[ResultRow]] = {}
    for name, index in matched.indices.items():
        by_record[index] = _in_pixels(rows, name, dataset.records[index], path)
    labels = {name: label for label, name in enumerate(rows.classes)}
    detections = [
        _detections(by_record.get(index, ()), labels, rows.classes) for index in range(len(dataset))
    ]
    notes = _notes(rows, matched, detections, dataset)
    return FileDetections(path, detections, rows.classes, rows.form, tuple(notes))


def _in_pixels(rows: ResultRows, name: str, record: Record, path: Path) -> list[ResultRow]:
    """The rows of an image, in its pixels."""
    own = (record.width, record.height)
    stated = rows.sizes.get(name)
    if stated is not None and None not in own and stated != own:
        of_file, of_data = (f"{width} x {height}" for width, height in (stated, own))
        reason = f"image {name!r} has {of_file} pixels there and {of_data} in the data set; it is another one"
        raise DataError(reason, file=path)
    found = rows.images[name]
    if not rows.shares or not found:
        return found
    width, height = image_size(record.picture) if None in own else (int(own[0] or 0), int(own[1] or 0))
    return [row._replace(box=_scaled(row.box, width, height)) for row in found]


def _scaled(box: Box, width: int, height: int) -> Box:
    x1, y1, x2, y2 = box
    return x1 * width, y1 * height, x2 * width, y2 * height


def _detections(rows: Sequence[ResultRow], labels: dict[str, int], classes: tuple[str, ...]) -> Detections:
    """Highest score first; equal scores keep the order of the file."""
    scores = np.array([row.score for row in rows], np.float32)
    order = np.argsort(-scores, kind="stable")
    boxes = np.array([row.box for row in rows], np.float32).reshape(-1, 4)
    numbers = np.array([labels[row.name] for row in rows], np.int64)
    return Detections(boxes[order], scores[order], numbers[order], classes)


def _notes(
    rows: ResultRows, matched: MatchedImages, detections: Sequence[Detections], dataset: DataSet
) -> list[str]:
    total, empty = sum(map(len, detections)), sum(not len(found) for found in detections)
    lowest = min((float(found.scores[-1]) for found in detections if len(found)), default=0.0)
    line = f"{rows.path}: {rows.form}, {counted(total, 'detection')} in {len(detections) - empty:,} of"
    notes = [f"{line} {counted(len(detections), 'image')}, {empty:,} without any", *rows.notes]
    if matched.as_numbers:
        first = next(iter(matched.indices))
        meant = dataset.records[matched.indices[first]].path.name
        notes.append(f"{counted(matched.as_numbers, 'image id')} matched as a number: {first} is {meant}")
    if matched.unknown:
        lost = sum(len(rows.images[name]) for name in matched.unknown)
        what = f"{counted(lost, 'detection')} of {counted(len(matched.unknown), 'image')}"
        notes.append(f"left out: {what} not in the data set, the first is {matched.unknown[0]!r}")
    strange = [name for name in rows.classes if name not in dataset.classes]
    if strange:
        wrong = [label for label, name in enumerate(rows.classes) if name in strange]
        lost = sum(int(np.isin(found.labels, wrong).sum()) for found in detections)
        what = f"{counted(lost, 'detection')} of {counted(len(strange), 'class')}"
        notes.append(f"left out: {what} not in the data set, the first is {strange[0]!r}")
    if lowest > HIGH_SCORE:
        notes.append(
            f"no score is below {lowest:.2f}, so low-scoring detections seem to be cut off; AP is lower"
            " than that of the whole detector"
        )
    return notes

"""Labels that a model drafts for a person to correct in an annotation tool: `fssd label`."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np

from fssd.data.decode import read_header
from fssd.data.progress import Track, as_given
from fssd.data.sample import Record, background_record
from fssd.data.writers.convert import Conversion, exif_notes, find_writer, write_set
from fssd.data.writers.dropped import dropped
from fssd.data.writers.new_folder import require_new
from fssd.data.writers.picture_names import PictureNames
from fssd.data.writers.writer import WrittenImage, WrittenSet
from fssd.errors import DataError
from fssd.inference.detections import Detections
from fssd.inference.detector import Detector
from fssd.inference.inputs import read_images


def draft_labels(
    detector: Detector,
    files: Sequence[Path],
    to: str,
    out: Path,
    *,
    model: str,
    link: bool = False,
    upright: bool = False,
    track: Track = as_given,
    **settings: Any,
) -> Conversion:
    """Detect in every image and write the detections as labels, with scores where the format has a place.

    Images that cannot be read are printed and left out. to, out, link, upright, track: see `convert_data`.
    model: the name of the model in the labels. settings: of `Detector.stream`.
    Raises ConfigError, and DataError if no image can be read; then nothing is written.
    """
    writer = find_writer(to)
    require_new(out)
    readable: list[int] = []
    sizes: list[tuple[int, int]] = []
    images = read_images(track(files, "detecting"), readable, sizes, detector.windows(settings))
    found = list(map(_with_extent, detector.stream(images, keep_image=False, **settings)))
    if not found:
        raise DataError("none of the images can be read")
    records = [_record(files[index], one) for index, one in zip(readable, found, strict=True)]
    split = writer.split("")
    written = [
        WrittenImage(record, file, size, one.scores.tolist())
        for record, file, size, one in zip(
            records, PictureNames(writer).name({split: records})[split], sizes, found, strict=True
        )
    ]
    numbers = tuple(range(1, len(detector.classes) + 1))
    content = WrittenSet(detector.classes, {split: tuple(written)}, numbers, model)
    write_set(content, writer, out, link=link, upright=upright, track=track)
    notes = exif_notes({record.path: read_header(record.path) for record in records}, upright)
    return Conversion(content, (*notes, *dropped(content, writer)))


def _with_extent(found: Detections) -> Detections:
    """Boxes to 0.01 px, without those that have no width or height left, which no tool can show."""
    boxes = np.round(found.boxes, 2)
    kept = np.all(boxes[:, 2:] > boxes[:, :2], axis=1)
    return replace(found, boxes=boxes[kept], scores=found.scores[kept], labels=found.labels[kept])


def _record(file: Path, found: Detections) -> Record:
    flags = np.zeros(len(found), bool)
    empty = background_record(file.as_posix(), file)
    return replace(empty, boxes=found.boxes, labels=found.labels, difficult=flags, crowd=flags)

"""Reads the headers of a data set's pictures before it is written again, and whether its labels fit them."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import replace

import numpy as np

from fssd.data.decode import ImageHeader, read_header
from fssd.data.formats.labels import box_fault
from fssd.data.join import object_place
from fssd.data.sample import DataSet, Problem, Record
from fssd.data.source import print_left_out, require_usable
from fssd.errors import ImageError


def with_headers(
    data: DataSet, records: Iterable[Record], bad_share: float
) -> list[tuple[Record, ImageHeader]]:
    """The images that can be written, their boxes clipped to the picture, with its header; prints the others.

    records: those of the data set, as what shows progress passes them on.
    Raises the first error if more than `bad_share` of the images have one.
    """
    pairs: list[tuple[Record, ImageHeader]] = []
    problems = list(data.problems)
    for record in records:
        try:
            header = read_header(record.picture)
        except ImageError as error:
            problems.append(Problem("error", record.path, error.place, error.reason))
            continue
        faults = list(_faults(record, header, data.classes))
        problems += faults
        if not faults:
            pairs.append((_inside(record, header), header))
    kept = replace(data, records=tuple(record for record, _ in pairs), problems=tuple(problems))
    require_usable(kept, bad_share)
    print_left_out(kept)
    return pairs


def _faults(record: Record, header: ImageHeader, classes: Sequence[str]) -> Iterator[Problem]:
    declared, actual = (record.width, record.height), (header.width, header.height)
    if None not in declared and declared != actual:
        stated = f"its labels in {record.source} state {record.width} x {record.height}"
        reason = f"is {actual[0]} x {actual[1]} pixels, {stated}: the boxes do not fit this image"
        yield Problem("error", record.path, "", reason)
    elif None in declared:  # then the reader could not compare the boxes with it
        for number, (box, label) in enumerate(zip(record.boxes.tolist(), record.labels, strict=True)):
            if fault := box_fault(tuple(box), actual):
                yield Problem("error", record.source, object_place(record, number, classes[label]), fault)


def _inside(record: Record, header: ImageHeader) -> Record:
    limits = np.array((header.width, header.height) * 2, np.float32)
    return replace(record, boxes=np.clip(record.boxes, 0, limits))

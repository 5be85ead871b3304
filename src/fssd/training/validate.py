"""Detections on the validation split during a run, without broken images, until a stop is requested."""

from __future__ import annotations

from dataclasses import replace

from fssd.data.columns import take
from fssd.data.sample import DataSet
from fssd.errors import ImageError
from fssd.inference.detections import Detections
from fssd.inference.detector import Detector
from fssd.training.left_out import LeftOut
from fssd.training.stop import StopRequest


def detect_readable(
    detector: Detector, dataset: DataSet, left_out: LeftOut, stop: StopRequest, batch_size: int, workers: int
) -> tuple[DataSet, list[Detections]] | None:
    """The data set without broken images, and the detections on it; None if a stop was requested meanwhile.

    left_out: gets the broken images. Raises ImageError if they are more than it allows.
    """
    records = dataset.records
    found: list[Detections] = []
    while len(found) < len(records):
        rest = replace(dataset, records=records[len(found) :])
        try:
            for one in detector.evaluate_on(rest, batch_size=batch_size, workers=workers):
                if stop.number:
                    return None
                found.append(one)
        except ImageError as error:
            index = next(i for i, record in enumerate(records) if record.path == error.file)
            left_out.add({records[index].image_id: error})
            records = take(records, [*range(index), *range(index + 1, len(records))])
            left_out.require_few()
    return replace(dataset, records=records), found

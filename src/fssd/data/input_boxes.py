"""The boxes of a data set as a network sees them."""

from __future__ import annotations

import numpy as np

from fssd.data.decode import image_size
from fssd.data.geometry import Geometry
from fssd.data.sample import Boxes, DataSet, Record


def input_boxes(dataset: DataSet, geometry: Geometry) -> Boxes:
    """(N, 4) xyxy pixels of the network's input, of all objects but crowds. Raises ImageError."""
    rows = [np.zeros((0, 4), np.float32)]
    rows += [
        geometry.apply_boxes(record.boxes[~record.crowd], record_size(record)) for record in dataset.records
    ]
    return np.concatenate(rows)


def record_size(record: Record) -> tuple[int, int]:
    """(width, height) of an image, read from its file if the labels do not say it. Raises ImageError."""
    if record.width is None or record.height is None:
        return image_size(record.picture)
    return record.width, record.height

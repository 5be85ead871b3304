"""What the tests of label formats share: pictures, and a DataSet as plain values."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import cv2
import numpy as np

from fssd.data.check import CheckReport, check_data
from fssd.data.sample import DataSet
from fssd.data.source import find_reader, open_data

Boxes = dict[str, list[tuple[Any, ...]]]


def picture(path: Path, width: int = 200, height: int = 100) -> Path:
    """An image file of noise, different for each path."""
    path.parent.mkdir(parents=True, exist_ok=True)
    noise = np.random.default_rng(list(str(path).encode())).integers(0, 255, (height, width, 3))
    assert cv2.imwrite(str(path), noise.astype(np.uint8))
    return path


def text(path: Path, content: str) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(content, encoding="utf-8")
    return path


def as_json(path: Path, content: Any) -> Path:
    return text(path, json.dumps(content))


def boxes(data: DataSet) -> Boxes:
    """Image id -> (class, x1, y1, x2, y2), coordinates rounded to a hundredth of a pixel."""
    return {
        record.image_id: [
            (data.classes[label], *(round(value, 2) for value in box))
            for label, box in zip(record.labels, record.boxes.tolist(), strict=True)
        ]
        for record in data.records
    }


def opened(path: Path, reader: str, split: str | None = None) -> DataSet:
    """The data set, which must be of that format."""
    assert find_reader(path)[0].name == reader
    return open_data(path, split)


def messages(data: DataSet, severity: str) -> list[str]:
    """`file name (place): reason` of the problems."""
    return [
        f"{problem.file.name} ({problem.place}): {problem.reason}"
        for problem in data.problems
        if problem.severity == severity
    ]


def checked(path: Path) -> CheckReport:
    """`fssd check`, which must find no error."""
    report = check_data(path)
    assert report.ok, report.problems
    return report

"""A data set with awkward names, written by the test itself, that every writer is tried on."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest

CLASSES = ('a "quoted" <dog> & co', "斑馬, plains", "empty class", "ant")
"""Not in the order of the alphabet; the third has no object."""

BOXES = {
    "train": {
        "night/one.png": [(0, (10.1, 20.3, 50.7, 60.9), "difficult"), (1, (0.0, 0.0, 100.0, 80.0), "")],
        "day/one.png": [(3, (33.333332, 1.5, 34.5, 2.25), "")],
        "no object, & café's.png": [],
    },
    "val": {"night/one.png": [(1, (5.0, 6.0, 7.0, 8.0), "crowd"), (3, (1.0, 2.0, 3.0, 4.0), "")]},
}
"""Split -> picture -> (label, xyxy, flag). The two splits have pictures of one name that are not the same."""

WIDTH, HEIGHT = 100, 80


def picture(path: Path, seed: int = 0, size: tuple[int, int] = (WIDTH, HEIGHT)) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    pixels = np.random.default_rng(seed).integers(0, 255, (size[1], size[0], 3), np.uint8)
    path.write_bytes(cv2.imencode(path.suffix, pixels)[1].tobytes())
    return path


@pytest.fixture
def make_picture() -> Callable[..., Path]:
    """Writes noise to a path: make_picture(path, seed, (width, height))."""
    return picture


def write_source(root: Path) -> Path:
    """`BOXES` as COCO, whose json has room for all of it."""
    for split, pictures in BOXES.items():
        content: dict[str, list[Any]] = {"images": [], "annotations": [], "categories": []}
        content["categories"] = [{"id": 10 * n, "name": name} for n, name in enumerate(CLASSES, 1)]
        for key, (name, rows) in enumerate(pictures.items(), 1):
            picture(root / split / name, seed=10 * len(split) + key)
            described = {"id": f"{split}-{key}", "file_name": name, "width": WIDTH, "height": HEIGHT}
            content["images"].append(described)
            for label, (x1, y1, x2, y2), flag in rows:
                row = {"id": len(content["annotations"]), "image_id": f"{split}-{key}"}
                row |= {"category_id": 10 * (label + 1), "bbox": [x1, y1, x2 - x1, y2 - y1]}
                row |= {"iscrowd": int(flag == "crowd"), "difficult": int(flag == "difficult"), "area": 5.5}
                content["annotations"].append(row)
        (root / "annotations").mkdir(exist_ok=True)
        (root / "annotations" / f"instances_{split}.json").write_text(json.dumps(content))
    return root


@pytest.fixture(scope="session")
def source(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A COCO folder of `BOXES`. Not to be changed."""
    return write_source(tmp_path_factory.mktemp("source") / "coco")

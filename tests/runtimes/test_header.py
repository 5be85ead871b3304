"""Metadata that do not fit their graph are found when the file is opened."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from fssd.errors import CheckpointError
from fssd.runtimes.header import read_header

# Two levels, of 2 x 3 cells with 2 priors and 1 x 1 cells with 1: 13 priors.
MORE = {"centres": None, "furthest": None}
LEVELS = [
    {"rows": 2, "columns": 3, "step": [100, 100], "shapes": [[30, 30], [50, 50]], **MORE},
    {"rows": 1, "columns": 1, "step": [300, 200], "shapes": [[90, 90]], **MORE},
]
RAW = {"offsets": (None, 13, 4), "logits": (None, 13, 3)}
NMS = {"boxes": (None, 7, 4), "scores": (None, 7), "labels": (None, 7), "count": (None,)}
INPUT = {"images": (None, 200, 300, 3)}
DOCUMENT: dict[str, Any] = {
    "format": 1, "image_size": [300, 200], "classes": ["cat", "dog"], "nms": None, "levels": LEVELS,
}  # fmt: skip
INSIDE = {"score": 0.1, "nms": 0.5, "top_k": 20, "keep": 7}


def read(document: dict[str, Any], inputs: Any = INPUT, outputs: Any = RAW) -> Any:
    return read_header(json.dumps(document), Path("model.onnx"), inputs, outputs)


def test_what_fits() -> None:
    header = read(DOCUMENT)
    assert (header.classes, header.geometry.size, header.digest) == (("cat", "dog"), (300, 200), "")
    assert header.decode is not None and header.thresholds is None
    assert read({**DOCUMENT, "nms": INSIDE}, outputs=NMS).thresholds.keep == 7
    assert read(DOCUMENT, outputs={"offsets": (None, None, 4), "logits": (None, None, None)}).classes


@pytest.mark.parametrize(
    ("change", "inputs", "outputs", "message"),
    [
        ({"classes": ["cat"]}, INPUT, RAW, r"for outputs offsets 13x4, logits 13x2, but .* logits 13x3;"),
        ({"levels": LEVELS[:1]}, INPUT, RAW, "offsets 12x4, logits 12x3, but its graph has offsets 13x4"),
        ({"image_size": 300}, INPUT, RAW, "for inputs images 300x300x3, but its graph has images 200x300x3"),
        ({}, {"pixels": (None, 200, 300, 3)}, RAW, "for inputs images .* has pixels"),
        ({}, {"images": (None, 3, 200, 300)}, RAW, "has images 3x200x300"),
        ({}, {**INPUT, "scale": (1,)}, RAW, "has images 200x300x3, scale"),
        ({}, INPUT, NMS, "for outputs offsets 13x4, logits 13x3, but its graph has boxes 7x4, scores 7,"),
        ({}, INPUT, dict(reversed(RAW.items())), "has logits 13x3, offsets 13x4"),
        ({"nms": INSIDE}, INPUT, RAW, r"for outputs boxes \?x4, scores \?, labels \?, count, but"),
        ({"nms": {**INSIDE, "score": 7}}, INPUT, NMS, "damaged .*score is 7; it must be between 0 and 1"),
        ({"classes": "cat"}, INPUT, RAW, "damaged .*classes are no list"),
        ({"classes": [1, 2]}, INPUT, RAW, "damaged .*classes are no list"),
    ],
)
def test_what_does_not_fit(change: dict[str, Any], inputs: Any, outputs: Any, message: str) -> None:
    with pytest.raises(CheckpointError, match=rf"model\.onnx: .*{message}"):
        read({**DOCUMENT, **change}, inputs, outputs)

"""What an exported graph takes and gives, in words: the description of an ONNX file, shown by its viewers."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from fssd.counted import counted

if TYPE_CHECKING:
    import onnx

INPUT = "images (B, {height}, {width}, 3) uint8, RGB: {fitting} to {width} x {height}, bilinear; B is free"
FITTING = {"warp": "each image stretched", "letterbox": "each image scaled and centred, the rest filled,"}
NMS_ENDS = {
    "boxes": "boxes (B, K, 4) float32: x1, y1, x2, y2 in pixels of the input, not clipped, best first",
    "scores": "scores (B, K) float32: 0 to 1, descending; 0 behind the last detection",
    "labels": "labels (B, K) int64: places in the list of classes; -1 behind the last detection",
    "count": "count (B,) int64: how many of K are detections",
}
RAW_ENDS = {
    "offsets": "offsets (B, P, 4) float32: of each prior, to be decoded with the variances in the metadata",
    "logits": "logits (B, P, {columns}) float32: of each prior, {scores}",
    "predictions": "predictions (B, C, rows, columns) float32: of each anchor, before sigmoid and softmax",
}


def describe(model: onnx.ModelProto, header: str) -> None:
    """Set the description of a model and of its inputs and outputs, in place. header: its metadata."""
    document = json.loads(header)
    ends = _ends(document)
    outputs = [ends.get(output.name, output.name) for output in model.graph.output]
    images = _images(document)
    classes = document["classes"]
    names = ", ".join(f"{index} {name}" for index, name in enumerate(classes))
    thresholds = document["nms"]
    lines = [
        f"{document['model']}: a detector of {counted(len(classes), 'class')}, exported by fssd"
        f" ({document['precision']}).",
        f"Takes {images}.",
        *(f"Gives {output}." for output in outputs),
    ]
    if thresholds is not None:
        lines.append(
            "NMS inside: " + ", ".join(f"{name} {value}" for name, value in thresholds.items()) + "."
        )
    lines.append(f"Classes: {names}.")
    model.doc_string = "\n".join(lines)
    model.producer_name, model.producer_version = "fssd", ""
    model.graph.input[0].doc_string = images
    for output, text in zip(model.graph.output, outputs, strict=True):
        output.doc_string = text


def _images(document: Mapping[str, Any]) -> str:
    side = document["image_size"]
    width, height = (side, side) if isinstance(side, int) else side
    return INPUT.format(
        width=width, height=height, fitting=FITTING.get(document["geometry"], "each image fitted")
    )


def _ends(document: Mapping[str, Any]) -> dict[str, str]:
    if document["nms"] is not None:
        return NMS_ENDS
    classes = len(document["classes"])
    sigmoid = document.get("scores") == "sigmoid"
    columns = classes if sigmoid else classes + 1
    scores = "a sigmoid gives the scores" if sigmoid else "background first, a softmax gives the scores"
    return {name: text.format(columns=columns, scores=scores) for name, text in RAW_ENDS.items()}

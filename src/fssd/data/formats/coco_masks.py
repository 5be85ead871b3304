"""The box of a COCO segmentation: polygons, or a mask as run lengths, plain or compressed."""

from __future__ import annotations

from typing import Any

import numpy as np

from fssd.data.formats.json_values import is_number, show
from fssd.data.formats.labels import Corners
from fssd.errors import LabelError


def box_of_segmentation(value: Any) -> tuple[Corners, str]:
    """xyxy in pixels, and what it was drawn as. Raises LabelError."""
    if isinstance(value, dict):
        return _box_of_runs(value), "mask"
    outlines = [value] if isinstance(value, list) and value and all(map(is_number, value)) else value
    if not (isinstance(outlines, list) and outlines and all(map(_is_outline, outlines))):
        raise LabelError(
            f"segmentation {show(value)} is neither polygons nor a mask; add a bbox or remove it"
        )
    xs = [float(x) for outline in outlines for x in outline[::2]]
    ys = [float(y) for outline in outlines for y in outline[1::2]]
    return (min(xs), min(ys), max(xs), max(ys)), "polygon"


def _is_outline(value: Any) -> bool:
    return isinstance(value, list) and len(value) >= 6 and len(value) % 2 == 0 and all(map(is_number, value))


def _box_of_runs(value: dict[str, Any]) -> Corners:
    """Runs go down the columns, first of pixels outside the object."""
    size, counts = value.get("size"), value.get("counts")
    if not (
        isinstance(size, list) and len(size) == 2 and all(type(side) is int and side > 0 for side in size)
    ):
        raise LabelError(f"the mask has a size of {show(size)}, not height and width; correct or remove it")
    height, width = size
    runs = _unpack(counts) if isinstance(counts, str) else counts
    if not (isinstance(runs, list) and all(type(run) is int and run >= 0 for run in runs)):
        raise LabelError("the mask's counts are damaged; export them again or remove the annotation")
    if sum(runs) != height * width:
        reason = f"the mask counts {sum(runs)} pixels in an image of {width} x {height}"
        raise LabelError(f"{reason}; export it again or remove the annotation")
    ends = np.cumsum(np.array(runs, np.int64))
    starts, ends = ends[:-1:2], ends[1::2]
    starts, ends = starts[ends > starts], ends[ends > starts]
    if not len(starts):
        raise LabelError("the mask has no pixel; remove the annotation")
    left, right = starts // height, (ends - 1) // height
    is_tall = right > left  # goes over the end of a column
    top = np.where(is_tall, 0, starts % height).min()
    bottom = np.where(is_tall, height, (ends - 1) % height + 1).max()
    return float(left.min()), float(top), float(right.max() + 1), float(bottom)


def _unpack(text: str) -> list[int]:
    """COCO's compressed counts: five bits a character, from the third on less the count two before."""
    runs: list[int] = []
    word = shift = 0
    for character in text:
        bits = ord(character) - 48
        if not 0 <= bits < 64:
            return [-1]
        word |= (bits & 0x1F) << shift
        shift += 5
        if bits & 0x20:
            continue
        word -= (bits & 0x10) << (shift - 4)  # the sign
        runs.append(word + (runs[-2] if len(runs) > 2 else 0))
        word = shift = 0
    return [-1] if shift else runs

"""The forms of an answer: JSON, or the picture with the boxes on it."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import cv2

from fssd.data.sample import Image
from fssd.evaluation.results import object_rows

if TYPE_CHECKING:
    from fssd.serve.pipeline import Looked

STAGES = ("read", "decode", "warp", "wait", "network", "finish", "draw", "total")


def looked_json(looked: Looked) -> dict[str, Any]:
    """The objects of an image, as `fssd detect` writes them."""
    return {"width": looked.width, "height": looked.height, "objects": object_rows(looked.found)}


def milliseconds(seconds: dict[str, float]) -> dict[str, float]:
    """Times by stage for people: milliseconds, rounded to 0.01, in the order of the stages."""
    return {stage: round(1000 * seconds[stage], 2) for stage in STAGES if stage in seconds}


def server_timing(seconds: dict[str, float]) -> str:
    """The same as the header Server-Timing, which browsers show beside a request."""
    return ", ".join(f"{stage};dur={value}" for stage, value in milliseconds(seconds).items())


def encode_png(image: Image) -> bytes:
    """(H, W, 3) uint8 RGB as a PNG."""
    _, data = cv2.imencode(".png", cv2.cvtColor(image, cv2.COLOR_RGB2BGR))
    return data.tobytes()


def wants_png(accept: str) -> bool:
    """Whether a header Accept would rather have image/png than JSON, which is what `*/*` gets."""
    ranges = dict(_quality(part) for part in accept.split(",") if part.strip())
    png = _wanted("image/png", ranges)
    return png > _wanted("application/json", ranges)


def _wanted(kind: str, ranges: dict[str, float]) -> float:
    """The weight of the most specific range that a kind falls into, 0 if none."""
    for name in (kind, kind.partition("/")[0] + "/*", "*/*"):
        if name in ranges:
            return ranges[name]
    return 0.0


def _quality(part: str) -> tuple[str, float]:
    name, *parameters = (piece.strip() for piece in part.split(";"))
    for parameter in parameters:
        key, _, value = parameter.partition("=")
        if key.strip().lower() == "q":
            try:
                return name.lower(), float(value)
            except ValueError:
                return name.lower(), 0.0
    return name.lower(), 1.0

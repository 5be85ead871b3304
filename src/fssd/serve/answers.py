"""The content of answers: JSON, times, and the choice between JSON and PNG."""

from __future__ import annotations

from typing import Any

from python_multipart.multipart import parse_options_header

from fssd.evaluation.results import object_rows
from fssd.serve.pipeline import ImageResult

STAGES = ("read", "decode", "warp", "wait", "network", "finish", "draw", "total")


def result_json(result: ImageResult, seconds: dict[str, float]) -> dict[str, Any]:
    """The objects of an image in the form that `fssd detect` writes, and the times by stage."""
    objects = {"width": result.width, "height": result.height, "objects": object_rows(result.found)}
    return {**objects, "batch": result.batch, "milliseconds": milliseconds(seconds)}


def milliseconds(seconds: dict[str, float]) -> dict[str, float]:
    """Times by stage in milliseconds, rounded to 0.01, in the order of the stages."""
    return {stage: round(1000 * seconds[stage], 2) for stage in STAGES if stage in seconds}


def server_timing(seconds: dict[str, float]) -> str:
    """The same times as a Server-Timing header, which browsers show with a request."""
    return ", ".join(f"{stage};dur={value}" for stage, value in milliseconds(seconds).items())


def wants_png(accept: str) -> bool:
    """Whether an Accept header prefers image/png to JSON; `*/*` gets JSON."""
    ranges = dict(_quality(part) for part in accept.split(",") if part.strip())
    return _wanted("image/png", ranges) > _wanted("application/json", ranges)


def _wanted(kind: str, ranges: dict[str, float]) -> float:
    """The weight of the most specific media range that matches, 0 if none does."""
    for name in (kind, kind.partition("/")[0] + "/*", "*/*"):
        if name in ranges:
            return ranges[name]
    return 0.0


def _quality(part: str) -> tuple[str, float]:
    name, parameters = parse_options_header(part)
    try:
        return name.decode("latin-1"), float(parameters.get(b"q", b"1"))
    except ValueError:
        return name.decode("latin-1"), 0.0

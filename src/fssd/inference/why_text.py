"""An explanation as text for people and as JSON for programs."""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import asdict
from typing import Any

from fssd.inference.why import Box, ExplainedObject, Explanation, Prediction


def why_text(why: Explanation, name: str) -> str:
    """Lines for a terminal. name: of the image."""
    return "\n".join(_lines(why, name))


def why_json(why: Explanation, name: str) -> str:
    """The explanation as a JSON object; see docs/why.md for its keys. name: of the image."""
    document = {
        "image": name,
        "width": why.size[0],
        "height": why.size[1],
        "model": why.model,
        "input": list(why.input_size),
        "thresholds": asdict(why.thresholds),
        "class_scores": why.class_scores,
        "levels": [{"cells": list(cells), "sources": list(sources)} for cells, sources in why.levels],
        "detections": [{**_values(one.prediction), "suppressed": one.suppressed} for one in why.detections],
        "objects": [_object_values(one) for one in why.objects],
    }
    return json.dumps(document, indent=1, ensure_ascii=False) + "\n"


def _values(prediction: Prediction) -> dict[str, Any]:
    fate = prediction.fate
    return {
        "name": prediction.name,
        "score": round(prediction.score, 5),
        "box": _rounded(prediction.box),
        "level": prediction.level,
        "cell": [prediction.row, prediction.column],
        "prior": _rounded(prediction.prior),
        "prior_size": [round(side, 2) for side in prediction.prior_size],
        "prior_iou": round(prediction.prior_iou, 4),
        "scores": {name: round(score, 5) for name, score in prediction.scores},
        "without": {name: round(score, 5) for name, score in prediction.without.items()},
        "outcome": fate.outcome,
        "rank": fate.rank,
        "iou": None if fate.iou is None else round(fate.iou, 4),
    }


def _object_values(found: ExplainedObject) -> dict[str, Any]:
    return {
        "box": list(found.sought.box),
        "name": found.sought.name,
        "verdict": found.verdict,
        "detection": found.detection,
        "best_prior": {"overlap": round(found.prior_overlap, 4), **_values(found.prior)},
        "best_prediction": {"overlap": round(found.overlap, 4), **_values(found.best)},
        "suppressed_by": None if found.by is None else _values(found.by),
    }


def _lines(why: Explanation, name: str) -> Iterator[str]:
    limits = why.thresholds
    count = len(why.detections)
    yield f"{name}, {why.size[0]} x {why.size[1]}: {count} detection{'s' * (count != 1)} of {why.model}"
    own = "".join(f", {name} {score:.3f}" for name, score in why.class_scores.items())
    scores = f"{limits.score:g}{own}" if not own else f"{limits.score:g}{own} (kept in the model)"
    yield f"score above {scores}, nms {limits.nms:g}, top_k {limits.top_k}, keep {limits.keep}"
    for number, one in enumerate(why.detections, 1):
        yield ""
        yield f"{number}. {one.prediction.name} {one.prediction.score:.3f}, box {_shown(one.prediction.box)}"
        yield from _prediction_lines(why, one.prediction)
        yield f"   it suppressed {one.suppressed} candidate{'s' * (one.suppressed != 1)} of its class"
    for number, found in enumerate(why.objects, 1):
        kind = "" if found.sought.name is None else f" ({found.sought.name})"
        yield ""
        yield f"object {number}{kind}, box {_shown(found.sought.box)}"
        yield f"   {found.verdict}"
        yield f"   best prior: overlaps it by {found.prior_overlap:.2f}"
        yield from _indented(_prediction_lines(why, found.prior))
        yield f"   best prediction: box {_shown(found.best.box)}, overlaps it by {found.overlap:.2f}"
        yield from _indented(_prediction_lines(why, found.best))
        if found.by is not None:
            yield f"   what suppressed it: {found.by.name} {found.by.score:.3f}, box {_shown(found.by.box)}"
            yield from _indented(_prediction_lines(why, found.by))


def _prediction_lines(why: Explanation, made: Prediction) -> Iterator[str]:
    (rows, columns), sources = why.levels[made.level]
    width, height = made.prior_size
    where = f"level {made.level + 1} of {len(why.levels)} ({columns} x {rows} cells)"
    yield f"   {where}, row {made.row + 1}, column {made.column + 1}"
    at = f"of the input, {why.input_size[0]} x {why.input_size[1]}"
    yield f"   prior {width:.0f} x {height:.0f} px {at}; overlaps the predicted box by {made.prior_iou:.2f}"
    if sources:
        yield f"   the level is made of {', '.join(sources)}"
    told = [f"{name} {made.without[name]:.3f}" for name in sources if name in made.without]
    if told:
        yield f"   its score of {made.score:.3f} without the detail of one map: {', '.join(told)}"
    yield f"   class scores before NMS: {', '.join(f'{name} {score:.3f}' for name, score in made.scores)}"


def _indented(lines: Iterator[str]) -> Iterator[str]:
    return (f"   {line}" for line in lines)


def _shown(box: Box) -> str:
    return ",".join(f"{value:.0f}" for value in box)


def _rounded(box: Box) -> list[float]:
    return [round(value, 2) for value in box]

"""An explanation as a picture: detections with their priors, or sought objects with what they lost to."""

from __future__ import annotations

import textwrap

import numpy as np
from PIL import Image as PillowImage
from PIL import ImageDraw

from fssd.data.sample import Image
from fssd.inference.draw import Colour, class_colour, draw_boxes, fitting_text
from fssd.inference.why import Box, Explanation, Prediction

OBJECT: Colour = (255, 255, 255)
PRIOR: Colour = (255, 0, 200)
PREDICTED: Colour = (0, 220, 255)
RIVAL: Colour = (255, 60, 40)
PAPER, INK = (250, 250, 248), (25, 25, 25)
LEAST_SIDE = 640  # pixels; smaller images are enlarged, so that lines and words do not cover them


def why_picture(why: Explanation, image: Image) -> Image:
    """(H, W, 3) uint8 RGB: the image with what was explained, and a legend and the verdicts below it.

    Each detection has a colour of its own; its prior is dashed, with a dot in its centre. If objects were
    sought, these, their best priors and predictions are drawn instead.
    """
    scale = max(1.0, LEAST_SIDE / max(image.shape[:2]))
    canvas = PillowImage.fromarray(image)
    if scale > 1:
        canvas = canvas.resize(
            (round(canvas.width * scale), round(canvas.height * scale)), PillowImage.Resampling.BICUBIC
        )
    enlarged = np.array(canvas, np.uint8)
    line = max(2, round(0.0025 * sum(enlarged.shape[:2])))
    rows = _objects(why) if why.objects else _detections(why)
    solid = [(box, name, colour) for box, name, colour, dashed in rows if not dashed]
    boxes = np.array([box for box, *_ in solid], np.float32).reshape(-1, 4) * scale
    enlarged = draw_boxes(enlarged, boxes, [n for _, n, _ in solid], [c for *_, c in solid], line=line)
    canvas = PillowImage.fromarray(enlarged)
    pen = ImageDraw.Draw(canvas)
    for box, _, colour, dashed in rows:
        if dashed:
            _draw_dashes(pen, [value * scale for value in box], colour, line)
    return _with_caption(np.array(canvas, np.uint8), _caption(why))


Row = tuple[Box, str, Colour, bool]  # box, label, colour, whether dashed


def _detections(why: Explanation) -> list[Row]:
    rows: list[Row] = []
    for number, one in reversed(list(enumerate(why.detections, 1))):
        made = one.prediction
        colour = class_colour(number - 1)
        rows.append((made.prior, "", colour, True))
        rows.append((made.box, f"{number} {made.name} {100 * made.score:.0f}%", colour, False))
    return rows


def _objects(why: Explanation) -> list[Row]:
    rows: list[Row] = []
    for number, found in enumerate(why.objects, 1):
        rows.append((found.prior.prior, "", PRIOR, True))
        if found.by is not None:
            rows.append((found.by.box, _told(found.by), RIVAL, False))
        rows.append((found.best.box, _told(found.best), PREDICTED, False))
        rows.append((found.sought.box, f"object {number}", OBJECT, False))
    return rows


def _told(made: Prediction) -> str:
    return f"{made.name} {made.score:.2f}"


def _caption(why: Explanation) -> list[tuple[str, Colour]]:
    """Lines below the picture, each with the colour of its mark."""
    lines: list[tuple[str, Colour]] = []
    for number, found in enumerate(why.objects, 1):
        lines.append((f"object {number}, {found.verdict}", OBJECT))
        text = f"best prior, overlaps it by {found.prior_overlap:.2f}: {_where(why, found.prior)}"
        lines.append((text, PRIOR))
        lines.append(
            (f"best prediction, overlaps it by {found.overlap:.2f}: {_where(why, found.best)}", PREDICTED)
        )
        if found.by is not None:
            lines.append((f"what suppressed it: {_where(why, found.by)}", RIVAL))
    if why.objects:
        return lines
    for number, one in enumerate(why.detections, 1):
        made = one.prediction
        colour = class_colour(number - 1)
        lines.append((f"{number} {made.name} {made.score:.2f}: {_where(why, made)}", colour))
    limit = "the threshold of its class" if why.class_scores else f"{why.thresholds.score:g}"
    return lines or [(f"no detection scores more than {limit}", INK)]


def _where(why: Explanation, made: Prediction) -> str:
    (rows, columns), sources = why.levels[made.level]
    width, height = made.prior_size
    text = f"level {made.level + 1} ({columns} x {rows}), prior {width:.0f} x {height:.0f}"
    told = [f"{name} {made.without[name]:.2f}" for name in sources if name in made.without]
    if len(sources) > 1 and told:
        return f"{text}; score {made.score:.2f}, without {', '.join(told)}"
    return f"{text}; from {', '.join(sources)}" if sources else text


def _draw_dashes(pen: ImageDraw.ImageDraw, box: list[float], colour: Colour, line: int) -> None:
    """A dashed rectangle, and a dot in its centre."""
    x1, y1, x2, y2 = box
    dash = 4 * line
    for start, end in (
        ((x1, y1), (x2, y1)),
        ((x2, y1), (x2, y2)),
        ((x2, y2), (x1, y2)),
        ((x1, y2), (x1, y1)),
    ):
        length = max(1e-6, float(np.hypot(end[0] - start[0], end[1] - start[1])))
        for offset in np.arange(0, length, 2 * dash):
            ends = [min(length, part) / length for part in (float(offset), float(offset) + dash)]
            points = [tuple(a + (b - a) * share for a, b in zip(start, end, strict=True)) for share in ends]
            pen.line([(points[0][0], points[0][1]), (points[1][0], points[1][1])], fill=colour, width=line)
    x, y, radius = (x1 + x2) / 2, (y1 + y2) / 2, 2 * line
    pen.ellipse((x - radius, y - radius, x + radius, y + radius), fill=colour, outline=INK)


def _with_caption(image: Image, lines: list[tuple[str, Colour]]) -> Image:
    """The image with lines of text below it, each after a square of its colour; the text gets room enough."""
    height, width = image.shape[0], max(image.shape[1], LEAST_SIDE)
    size = max(12, round(0.02 * width))
    across = max(20, int((width - 4 * size) / (0.5 * size)))
    rows = [
        (part, colour if not index else None)
        for text, colour in lines
        for index, part in enumerate(textwrap.wrap(text, across))
    ]
    step = round(1.5 * size)
    canvas = PillowImage.new("RGB", (width, height + step * len(rows) + size), PAPER)
    canvas.paste(PillowImage.fromarray(image), (0, 0))
    pen = ImageDraw.Draw(canvas)
    for index, (text, colour) in enumerate(rows):
        top = height + size // 2 + index * step
        if colour is not None:
            pen.rectangle((size, top + size // 4, 2 * size, top + size // 4 + size), fill=colour, outline=INK)
        told, font, _ = fitting_text(text, size, width - 3 * size, 2 * size)
        pen.text((round(2.7 * size), top), told, fill=INK, font=font)
    return np.array(canvas, np.uint8)

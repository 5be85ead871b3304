"""Rows of a result file, as its format states them: an image, a class, a score and a box."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import NamedTuple

from fssd.errors import DataError

Box = tuple[float, float, float, float]


class ResultRow(NamedTuple):
    """One detection. name: its class. box: xyxy, in pixels or shares of the image (see `ResultRows`)."""

    name: str
    score: float
    box: Box


@dataclass
class ResultRows:
    """The content of a result file or folder.

    form: the format, as a phrase. classes: every class that the file knows or names. images: the rows of
    each image, by what the file calls it; an image may have none. sizes: (width, height) where the file
    states them. shares: boxes are shares of the image, not pixels. notes: sentences for the user.
    """

    path: Path
    form: str
    classes: tuple[str, ...] = ()
    images: dict[str, list[ResultRow]] = field(default_factory=dict)
    sizes: dict[str, tuple[int, int]] = field(default_factory=dict)
    shares: bool = False
    notes: list[str] = field(default_factory=list)

    def add(self, image: str, name: str, score: float, box: Box) -> None:
        self.images.setdefault(image, []).append(ResultRow(name, score, box))


def checked(score: float, box: Sequence[float], file: Path, place: str) -> tuple[float, Box]:
    """A score and an xyxy box. Raises DataError for a score outside 0..1, NaN, or a box that is inverted."""
    if not 0 <= score <= 1:
        raise DataError(f"the score {score:g} lies outside 0..1; write probabilities", file=file, place=place)
    x1, y1, x2, y2 = map(float, box)
    if not math.isfinite(x1 + y1 + x2 + y2):
        raise DataError("the box has a coordinate that is not finite; correct it", file=file, place=place)
    if x2 < x1 or y2 < y1:
        shown = f"({x1:g}, {y1:g}, {x2:g}, {y2:g})"
        reason = f"the box {shown} ends before it begins; the order is x1 y1 x2 y2 in pixels"
        raise DataError(reason, file=file, place=place)
    return float(score), (x1, y1, x2, y2)


def number(word: object, file: Path, place: str) -> float:
    """A number of a text file or of json. Raises DataError."""
    if isinstance(word, bool) or not isinstance(word, (int, float, str)):
        raise DataError(f"{word!r} is no number; correct it", file=file, place=place)
    try:
        return float(word)
    except (ValueError, OverflowError):
        raise DataError(f"{str(word)[:40]!r} is no number; correct it", file=file, place=place) from None

"""Pictures of what went wrong: the worst images, lost objects, false alarms."""

from __future__ import annotations

from collections.abc import Iterable
from functools import lru_cache
from pathlib import Path

import numpy as np

from fssd.data.loader import read_fitting
from fssd.data.sample import DataSet, Image, Record
from fssd.evaluation.mistakes import KINDS
from fssd.evaluation.pairing import FREE, Ints, Judgement, overlaps
from fssd.report.analysis import Analysis, Tally
from fssd.report.html import Html
from fssd.report.layout import TIMES, percent, plural
from fssd.report.thumbnails import FALSE, FOUND, MISSED, RIGHT, Mark, around, figure, whole

WORST = 12  # images
CROPS = 24  # parts of images, of lost objects and of false alarms each
OF_AN_IMAGE = 2  # crops, so that one image does not fill a gallery

LEGEND = (
    ("object, found", FOUND),
    ("object, not found", MISSED),
    ("detection, right", RIGHT),
    ("false alarm", FALSE),
)

_REASONS = {
    "classification": "wrong name for {name}",
    "localisation": "misses {name}",
    "both": "near {name}, wrong name and place",
    "duplicate": "{name} was found already",
}


class Album:
    """Draws the images of a data set for a page in `folder`."""

    def __init__(self, dataset: DataSet, folder: Path) -> None:
        self.dataset = dataset
        self.folder = folder
        self._read = lru_cache(maxsize=4)(lambda image: read_fitting(dataset.records[image]))

    def image(self, index: int) -> Image:
        """(H, W, 3) uint8 RGB. Raises ImageError."""
        return self._read(index)

    def record(self, index: int) -> Record:
        return self.dataset.records[index]


def worst_images(album: Album, analysis: Analysis) -> list[Html]:
    """The images with the lowest F1, of equals those with more mistakes."""
    tally = Tally(analysis.shown)
    mistakes = tally.false + tally.lost
    order = np.lexsort((-mistakes, tally.f1))  # nan comes last
    chosen = [int(image) for image in order[:WORST] if mistakes[image]]
    return [_worst(album, analysis, tally, image) for image in chosen]


def lost_objects(album: Album, analysis: Analysis) -> list[Html]:
    """Objects that were not found, the largest first."""
    objects = analysis.shown.objects
    rows = np.flatnonzero(objects.finder == FREE)
    area = (objects.boxes[rows, 2:] - objects.boxes[rows, :2]).prod(axis=1)
    return [
        _lost(album, analysis, row) for row in _spread(rows[np.argsort(-area, kind="stable")], objects.image)
    ]


def false_alarms(album: Album, analysis: Analysis) -> list[Html]:
    """Detections that are wrong, the surest first."""
    found = analysis.shown.found
    rows = np.flatnonzero(~found.right)
    best_first = rows[np.argsort(-found.score[rows], kind="stable")]
    return [_false_alarm(album, analysis, row) for row in _spread(best_first, found.image)]


def marks_of(judgement: Judgement, image: int) -> list[Mark]:
    """Boxes of an image: what agrees without a name, what does not with one, and on top."""
    found, objects = judgement.found, judgement.objects
    own = np.flatnonzero(objects.image == image)
    rows = np.flatnonzero(found.image == image)[::-1]  # the best score on top
    names = judgement.classes
    lost = [row for row in own if objects.finder[row] == FREE]
    return [
        *(Mark(objects.boxes[row], "", FOUND) for row in own if objects.finder[row] != FREE),
        *(Mark(found.boxes[row], "", RIGHT) for row in rows if found.right[row]),
        *(Mark(objects.boxes[row], names[objects.label[row]], MISSED) for row in lost),
        *(Mark(found.boxes[row], _said(judgement, row), FALSE) for row in rows if not found.right[row]),
    ]


def _spread(rows: Iterable[int], images: Ints) -> list[int]:
    """The first rows, so many of one image at most."""
    used: dict[int, int] = {}
    chosen: list[int] = []
    for row in rows:
        image = int(images[row])
        if used.get(image, 0) == OF_AN_IMAGE:
            continue
        used[image] = used.get(image, 0) + 1
        chosen.append(int(row))
        if len(chosen) == CROPS:
            break
    return chosen


def _worst(album: Album, analysis: Analysis, tally: Tally, image: int) -> Html:
    record = album.record(image)
    told = (
        f"{tally.right[image]} right, {plural(int(tally.false[image]), 'false alarm')},"
        f" {tally.lost[image]} not found"
    )
    view = whole(album.image(image), marks_of(analysis.shown, image))
    return figure(
        view, record.path, album.folder, f"{record.path.name}: {told}", f"{record.path.name}: {told}"
    )


def _lost(album: Album, analysis: Analysis, row: int) -> Html:
    objects = analysis.shown.objects
    image, box = int(objects.image[row]), objects.boxes[row]
    record = album.record(image)
    name = analysis.shown.classes[objects.label[row]]
    size = f"{box[2] - box[0]:.0f} {TIMES} {box[3] - box[1]:.0f} px"
    view = around(album.image(image), box, _near(analysis.shown, image, lost=row))
    return figure(
        view,
        record.path,
        album.folder,
        f"{name}, {size}, not found",
        f"{name}, {size}: {_why_lost(analysis, row)}",
    )


def _why_lost(analysis: Analysis, row: int) -> str:
    """What came nearest to finding an object."""
    every, shown = analysis.every, analysis.shown
    finder = every.objects.finder[row]
    if finder != FREE:
        cut = analysis.cuts[every.objects.label[row]].threshold
        return f"found at {_score(every.found.score[finder])}, below the threshold of {_score(cut)}"
    rows = np.flatnonzero(shown.found.image == shown.objects.image[row])
    if not len(rows):
        return "nothing was detected in this image"
    overlap = overlaps(shown.objects.boxes[row][None], shown.found.boxes[rows])[0]
    best = int(overlap.argmax())
    if overlap[best] < 0.1:
        return "no detection is near"
    busy = ", which found another object" if shown.found.right[rows[best]] else ""
    return f"nearest is {_said(shown, int(rows[best]))}, overlap {overlap[best]:.2f}{busy}"


def _false_alarm(album: Album, analysis: Analysis, row: int) -> Html:
    found = analysis.shown.found
    image = int(found.image[row])
    record = album.record(image)
    said = _said(analysis.shown, row)
    view = around(album.image(image), found.boxes[row], _near(analysis.shown, image, alarm=row))
    caption = f"{said}: {_why_false(analysis, row)}"
    return figure(view, record.path, album.folder, caption, caption)


def _why_false(analysis: Analysis, row: int) -> str:
    errors, objects = analysis.errors, analysis.shown.objects
    partner = errors.partner[row]
    if partner == FREE:
        return "nothing is labelled there"
    overlap = overlaps(analysis.shown.found.boxes[row][None], objects.boxes[partner][None])[0, 0]
    name = analysis.shown.classes[objects.label[partner]]
    return f"{_REASONS[KINDS[errors.kind[row]]].format(name=name)}, overlap {overlap:.2f}"


def _near(judgement: Judgement, image: int, lost: int = FREE, alarm: int = FREE) -> list[Mark]:
    """Boxes of an image for a crop: objects, and the one that the crop is about with its name, on top."""
    found, objects = judgement.found, judgement.objects
    own = [row for row in np.flatnonzero(objects.image == image) if row != lost]
    marks = [Mark(objects.boxes[row], "", FOUND if objects.finder[row] != FREE else MISSED) for row in own]
    if lost != FREE:
        rows = np.flatnonzero(found.image == image)[::-1]
        marks += [Mark(found.boxes[row], "", RIGHT if found.right[row] else FALSE) for row in rows]
        marks.append(Mark(objects.boxes[lost], judgement.classes[objects.label[lost]], MISSED))
    if alarm != FREE:
        marks.append(Mark(found.boxes[alarm], _said(judgement, alarm), FALSE))
    return marks


def _said(judgement: Judgement, row: int) -> str:
    found = judgement.found
    return f"{judgement.classes[found.label[row]]} {_score(found.score[row])}"


def _score(score: float) -> str:
    return f"{percent(float(score), 0)}%"

"""Pictures of mistakes: the worst images, missed objects, false positives."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable
from functools import lru_cache
from pathlib import Path

import numpy as np

from fssd.boxes import overlaps
from fssd.data.loader import read_fitting
from fssd.data.sample import DataSet, Record
from fssd.evaluation.mistakes import KINDS
from fssd.evaluation.pairing import FREE, Ints, Judgement
from fssd.report.analysis import Analysis, Tally
from fssd.report.html import Html
from fssd.report.layout import TIMES, isolated, percent
from fssd.report.thumbnails import CORRECT, FALSE, FOUND, MISSED, Mark, around, figure, whole

WORST = 12  # images
CROPS = 24  # crops of missed objects, and as many of false positives
CROPS_PER_IMAGE = 2  # so that one image does not fill a gallery

LEGEND = (
    ("object, found", FOUND),
    ("object, missed", MISSED),
    ("detection, correct", CORRECT),
    ("false positive", FALSE),
)

_REASONS = {
    "classification": "wrong class for {name}",
    "localisation": "too little overlap with {name}",
    "both": "near {name}, wrong class and box",
    "duplicate": "{name} was already found",
}


class Album:
    """Draws the images of a data set for a page in `folder`."""

    def __init__(self, dataset: DataSet, folder: Path) -> None:
        self.dataset = dataset
        self.folder = folder
        self.image = lru_cache(maxsize=4)(lambda index: read_fitting(dataset.records[index]))

    def record(self, index: int) -> Record:
        return self.dataset.records[index]


def worst_images(album: Album, analysis: Analysis) -> list[Html]:
    """The images with the lowest F1; if F1 is equal, those with more mistakes first."""
    tally = Tally.by_image(analysis.shown)
    mistakes = tally.false_positives + tally.missed
    order = np.lexsort((-mistakes, tally.f1))  # nan comes last
    figures = []
    for image in (int(image) for image in order[:WORST] if mistakes[image]):
        file = album.record(image).path
        text = f"{isolated(file.name)}: {tally.words(image)}"
        view = whole(album.image(image), marks_of(analysis.shown, image))
        figures.append(figure(view, album.record(image).picture, album.folder, text, text))
    return figures


def missed_objects(album: Album, analysis: Analysis) -> list[Html]:
    """Objects that were not found, largest first."""
    objects = analysis.shown.objects
    rows = np.flatnonzero(objects.finder == FREE)
    area = (objects.boxes[rows, 2:] - objects.boxes[rows, :2]).prod(axis=1)
    figures = []
    for row in _limited(rows[np.argsort(-area, kind="stable")], objects.image):
        image, box = int(objects.image[row]), objects.boxes[row]
        name = analysis.shown.classes[objects.label[row]]
        text = f"{isolated(name)}, {box[2] - box[0]:.0f} {TIMES} {box[3] - box[1]:.0f} px"
        view = around(album.image(image), box, _near(analysis.shown, image, missed=row))
        caption = f"{text}: {_why_missed(analysis, row)}"
        figures.append(figure(view, album.record(image).picture, album.folder, f"{text}, missed", caption))
    return figures


def false_positives(album: Album, analysis: Analysis) -> list[Html]:
    """Wrong detections, most confident first."""
    found = analysis.shown.found
    rows = np.flatnonzero(~found.correct)
    figures = []
    for row in _limited(rows[np.argsort(-found.score[rows], kind="stable")], found.image):
        image = int(found.image[row])
        view = around(album.image(image), found.boxes[row], _near(analysis.shown, image, false_positive=row))
        caption = f"{_said(analysis.shown, row)}: {_why_false_positive(analysis, row)}"
        figures.append(figure(view, album.record(image).picture, album.folder, caption, caption))
    return figures


def marks_of(judgement: Judgement, image: int) -> list[Mark]:
    """Boxes of an image; those that disagree with the labels have a name and are drawn last, on top."""
    found, objects = judgement.found, judgement.objects
    own = np.flatnonzero(objects.image == image)
    rows = np.flatnonzero(found.image == image)[::-1]  # the best score on top
    names = judgement.classes
    missed = [row for row in own if objects.finder[row] == FREE]
    return [
        *(Mark(objects.boxes[row], "", FOUND) for row in own if objects.finder[row] != FREE),
        *(Mark(found.boxes[row], "", CORRECT) for row in rows[found.correct[rows]]),
        *(Mark(objects.boxes[row], names[objects.label[row]], MISSED) for row in missed),
        *(Mark(found.boxes[row], _prediction(judgement, row), FALSE) for row in rows[~found.correct[rows]]),
    ]


def _limited(rows: Iterable[int], images: Ints) -> list[int]:
    """The first `CROPS` rows, at most `CROPS_PER_IMAGE` of one image."""
    used: Counter[int] = Counter()
    chosen: list[int] = []
    for row in rows:
        used[images[row]] += 1
        if used[images[row]] <= CROPS_PER_IMAGE:
            chosen.append(int(row))
    return chosen[:CROPS]


def _why_missed(analysis: Analysis, row: int) -> str:
    """The detection that came nearest to finding an object, in words."""
    every, shown = analysis.every, analysis.shown
    finder = every.objects.finder[row]
    if finder != FREE:
        best = analysis.best[every.objects.label[row]].threshold
        return f"found at {_score(every.found.score[finder])}, below the threshold of {_score(best)}"
    rows = np.flatnonzero(shown.found.image == shown.objects.image[row])
    if not len(rows):
        return "nothing was detected in this image"
    overlap = overlaps(shown.objects.boxes[row][None], shown.found.boxes[rows])[0]
    best = int(overlap.argmax())
    if overlap[best] < 0.1:
        return "no detection is near"
    other = ", which found another object" if shown.found.correct[rows[best]] else ""
    return f"nearest is {_said(shown, int(rows[best]))}, overlap {overlap[best]:.2f}{other}"


def _why_false_positive(analysis: Analysis, row: int) -> str:
    errors, objects = analysis.errors, analysis.shown.objects
    partner = errors.partner[row]
    if partner == FREE:
        return "nothing is labelled there"
    overlap = overlaps(analysis.shown.found.boxes[[row]], objects.boxes[[partner]])[0, 0]
    name = analysis.shown.classes[objects.label[partner]]
    return f"{_REASONS[KINDS[errors.kind[row]]].format(name=isolated(name))}, overlap {overlap:.2f}"


def _near(judgement: Judgement, image: int, missed: int = FREE, false_positive: int = FREE) -> list[Mark]:
    """Boxes of an image for a crop. The box that the crop is about has its name and is drawn last, on top."""
    found, objects = judgement.found, judgement.objects
    own = [row for row in np.flatnonzero(objects.image == image) if row != missed]
    marks = [Mark(objects.boxes[row], "", FOUND if objects.finder[row] != FREE else MISSED) for row in own]
    if missed != FREE:
        rows = np.flatnonzero(found.image == image)[::-1]
        marks += [Mark(found.boxes[row], "", CORRECT if found.correct[row] else FALSE) for row in rows]
        marks.append(Mark(objects.boxes[missed], judgement.classes[objects.label[missed]], MISSED))
    if false_positive != FREE:
        marks.append(Mark(found.boxes[false_positive], _prediction(judgement, false_positive), FALSE))
    return marks


def _said(judgement: Judgement, row: int) -> str:
    """A detection in a sentence."""
    found = judgement.found
    return f"{isolated(judgement.classes[found.label[row]])} {_score(found.score[row])}"


def _prediction(judgement: Judgement, row: int) -> str:
    """A detection on a picture."""
    found = judgement.found
    return f"{judgement.classes[found.label[row]]} {_score(found.score[row])}"


def _score(score: float) -> str:
    return f"{percent(float(score), 0)}%"

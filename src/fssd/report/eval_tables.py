"""The numbers of an evaluation as tables and curves."""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np

from fssd.evaluation.evaluate import SIZES
from fssd.evaluation.mistakes import KINDS, MISSED, kinds_by_class
from fssd.evaluation.pairing import Ints
from fssd.evaluation.scores import BestThreshold, Calibration
from fssd.report import charts
from fssd.report.analysis import Analysis, Tally
from fssd.report.html import Html, join, tag
from fssd.report.layout import Cell, caption, details, grid, lead, percent, percent_cell, scroller, table

CLASSES_IN_MATRIX = 20
CONFUSIONS = 10  # rows in the table of confusions

MEANINGS = {
    "classification": "the box is correct, the class is wrong",
    "localisation": "the class is correct, the box overlaps the object too little",
    "both": "near an object, but class and box are wrong",
    "duplicate": "a detection with a better score had already found the object",
    "background": "nothing is labelled there",
    MISSED: "no detection, not even one with a wrong class or box, is about the object",
}


def class_table(analysis: Analysis) -> Html:
    """AP by class and size; the best threshold of each class with its precision, recall and F1."""
    report = analysis.report
    objects = np.bincount(analysis.every.objects.label, minlength=len(report.classes))
    columns = (
        *("class", "objects", "AP %", *(f"{size} AP %" for size in SIZES)),
        *("best threshold %", "precision %", "recall %", "F1 %"),
    )
    classes = zip(report.classes.items(), objects, analysis.sizes, analysis.best, strict=True)
    rows: list[Sequence[object]] = [
        [name, count, percent_cell(ap), *sizes, _threshold(best), *best[1:]]
        for (name, ap), count, sizes, best in classes
    ]
    total = Tally.total(analysis.shown)
    shares = map(float, (total.precision, total.recall, total.f1))
    aps = (percent_cell(report.map), *report.sizes.values())
    rows.append(["mean AP, all objects", objects.sum(), *aps, "", *shares])
    intro = lead(
        "Small objects have an area up to 32\u00b2 pixels of the image, large ones from 96\u00b2 on (COCO)."
        " The best threshold is the score with the highest F1; precision and recall are those of the"
        f" detections that reach it.{_without_threshold(analysis)}"
    )
    body = [intro, table(columns, rows, label="Results by class", last_is_sum=True)]
    if report.numbers:
        numbers = [[name, percent_cell(value)] for name, value in report.numbers.items()]
        body += [tag("h3", "COCO's twelve numbers"), table(("number", "%"), numbers, label="COCO's numbers")]
    return join(body)


def error_table(analysis: Analysis) -> Html:
    """Mistakes by kind: how many, how much mAP they cost, and their classes."""
    counts = analysis.errors.counts()
    most = max(*analysis.gains.values(), 1e-9)
    rows = [
        [name, counts[name], percent_cell(analysis.gains[name], most), Cell(MEANINGS[name], kind="wide")]
        for name in (*KINDS, MISSED)
    ]
    by_class = kinds_by_class(analysis.shown, analysis.errors)
    split = [[name, *counts] for name, counts in zip(analysis.shown.classes, by_class, strict=True)]
    intro = lead(
        "The kinds are those of TIDE (Bolya et al. 2020): an object is found if the overlap is"
        f" {analysis.shown.iou:.2f} or more, and a detection that overlaps nothing by more than 0.10 lies on"
        " background. Mistakes are counted at the best thresholds. The points of mAP (101-point AP at that"
        " overlap) would be gained if every mistake of the kind, at any score, were corrected; they do not"
        " add up. Missed objects are taken out for that; a class whose objects are all missed adds nothing."
    )
    by_class_table = table(("class", *KINDS, MISSED), split, label="Mistakes by class")
    folded = details("By class; false positives count for the predicted class", by_class_table)
    columns = ("kind", "how many", "mAP points lost", "meaning")
    return join([intro, table(columns, rows, label="Mistakes by kind"), folded])


def curves(analysis: Analysis) -> Html:
    """Precision against recall, F1 against the threshold, calibration."""
    columns = zip(analysis.every.classes, analysis.sweeps, analysis.best, strict=True)
    known = [row for row in columns if not math.isnan(row[2].f1)]
    recall = charts.precision_recall(known)
    f1 = charts.thresholds(known)
    calibration = caption(
        charts.calibration(analysis.calibration),
        "Whether scores can be read as probabilities. In a bar that ends on the dashed line the share of"
        " correct detections equals the score; above the line the model is underconfident, below it"
        " overconfident. The numbers are the detections in each bar. Score and share differ by"
        f" {percent(analysis.calibration.error)} points on average (expected calibration"
        f" error){_low_scores(analysis.calibration)}.",
    )
    if not known:
        return join([tag("p", "No class has a correct detection.", class_="empty"), grid([calibration])])
    first = [
        caption(
            recall[0],
            f"Precision and recall at every score threshold, overlap {analysis.every.iou:.2f}. The highest"
            " thresholds are on the left; the dot is the best one.",
        ),
        caption(
            f1[0],
            "F1, the harmonic mean of precision and recall, of the detections at or above the threshold. If"
            " the top is flat, the exact threshold matters little.",
        ),
    ]
    more = [plot for pair in zip(recall[1:], f1[1:], strict=True) for plot in pair]
    folded = details(f"The other {len(known) - charts.LINES} classes", grid(more)) if more else ""
    return join([grid([*first, calibration]), folded])


def confusion_table(analysis: Analysis) -> Html:
    """The matrix, limited to the most confused classes if there are many, and a table of the worst pairs."""
    matrix, names = analysis.confusion, analysis.shown.classes
    labels = _most_confused(matrix, CLASSES_IN_MATRIX)
    some = f" Shown are the {len(labels)} classes with most confusion." if len(labels) < len(names) else ""
    intro = lead(
        "Rows are labelled classes, columns predicted ones, at the best thresholds. Each detection takes the"
        " object of any class that it overlaps most, if the overlap is"
        f" {analysis.shown.iou:.2f} or more. The colour is the share of the row.{some}"
    )
    return join([intro, _matrix(matrix, (*names, "nothing"), [*labels, len(names)]), *_pairs(matrix, names)])


def _low_scores(result: Calibration) -> str:
    """A note if the detections of the lowest bin make up more than half of the error."""
    gaps = np.nan_to_num(result.detections * np.abs(result.score - result.correct))
    return ", mostly because of the many low scores" if 2 * gaps[0] > gaps.sum() else ""


def _without_threshold(analysis: Analysis) -> str:
    """A note if some classes have no best threshold."""
    count = sum(math.isnan(one.f1) for one in analysis.best)
    classes = f"{count} class{'es have' if count > 1 else ' has'}"
    note = f" {classes} no correct detection and so no best threshold; 50 % is used instead."
    return note if count else ""


def _threshold(best: BestThreshold) -> float:
    # Rounded down to the digits shown, so that the number copied from the page keeps the detection at it.
    return math.nan if math.isnan(best.f1) else math.floor(1000 * best.threshold) / 1000


def _most_confused(matrix: Ints, limit: int) -> list[int]:
    """The classes to show: all, or those with most entries off the diagonal."""
    inner = matrix[:-1, :-1]
    confusions = inner.sum(axis=0) + inner.sum(axis=1) - 2 * np.diag(inner)
    return sorted(int(label) for label in np.argsort(-confusions, kind="stable")[:limit])


def _matrix(matrix: Ints, names: Sequence[str], shown: Sequence[int]) -> Html:
    columns = (tag("th", names[label], scope="col", title=names[label]) for label in shown)
    head = tag("thead", tag("tr", tag("th", "labelled", scope="col"), *columns))
    body = []
    for row in shown:
        cells = (_share_cell(matrix, row, column) for column in shown)
        body.append(tag("tr", tag("th", names[row], scope="row", title=names[row]), *cells))
    return scroller(tag("table", head, tag("tbody", *body), class_="matrix"), "Confusion matrix")


def _share_cell(matrix: Ints, row: int, column: int) -> Html:
    count = int(matrix[row, column])
    share = count / max(int(matrix[row].sum()), 1)
    hot = "hot" if share > 0.55 else None
    return tag("td", f"{count:,}" if count else "", class_=hot, style=f"--h:{100 * share:.0f}%")


def _pairs(matrix: Ints, names: Sequence[str]) -> list[Html]:
    """A table of the most frequent confusions of two classes."""
    inner = matrix[:-1, :-1].copy()
    np.fill_diagonal(inner, 0)
    order = np.argsort(-inner, axis=None, kind="stable")[:CONFUSIONS]
    pairs = zip(*np.unravel_index(order, inner.shape), strict=True)
    rows = [
        [names[row], names[column], count, count / int(matrix[row].sum())]
        for row, column in pairs
        if (count := int(inner[row, column]))
    ]
    if not rows:
        return []
    columns = ("labelled", "predicted", "how often", "% of its objects")
    return [tag("h3", "Most frequent confusions"), table(columns, rows, label="Most frequent confusions")]

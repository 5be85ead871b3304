"""The numbers of an evaluation as tables and curves."""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np

from fssd.evaluation.evaluate import SIZES
from fssd.evaluation.mistakes import KINDS, MISSED, kinds_by_class
from fssd.evaluation.pairing import Ints
from fssd.report import charts
from fssd.report.analysis import Analysis, Totals
from fssd.report.html import Html, join, tag
from fssd.report.layout import Cell, caption, details, grid, lead, percent, percent_cell, scroller, table

CLASSES_IN_MATRIX = 20
CONFUSIONS = 10  # named in words

MEANINGS = {
    "classification": "the right place, the wrong name",
    "localisation": "the right name, the wrong place: too little overlap",
    "both": "near an object, but the wrong name and the wrong place",
    "duplicate": "an object that a better score had found already",
    "background": "nothing is labelled there",
    MISSED: "no detection, not even a misplaced one, is about the object",
}


def class_table(analysis: Analysis) -> Html:
    """AP by class and size, the best threshold of each class and what it gives."""
    report = analysis.report
    objects = np.bincount(analysis.every.objects.label, minlength=len(report.classes))
    columns = (
        *("class", "objects", "AP %", *(f"{size} AP %" for size in SIZES)),
        *("best threshold %", "precision %", "recall %", "F1 %"),
    )
    rows: list[Sequence[object]] = [
        [
            name,
            Cell(f"{objects[place]:,}"),
            percent_cell(ap),
            *(Cell(percent(float(value))) for value in analysis.sizes[place]),
            Cell(percent(_threshold(analysis, place))),
            *(Cell(percent(value)) for value in analysis.cuts[place][1:]),
        ]
        for place, (name, ap) in enumerate(report.classes.items())
    ]
    rows.append(_sum_row(analysis, int(objects.sum())))
    intro = lead(
        "Small objects have an area up to 32\u00b2 pixels of the image, large ones from 96\u00b2 on (COCO)."
        " The best threshold is the score with the highest F1; precision and recall are those of the"
        f" detections that reach it.{_unknown(analysis)}"
    )
    body = [intro, table(columns, rows, label="Results by class", last_is_sum=True)]
    if report.numbers:
        numbers = [[name, percent_cell(value)] for name, value in report.numbers.items()]
        body += [tag("h3", "COCO's twelve numbers"), table(("number", "%"), numbers, label="COCO's numbers")]
    return join(body)


def error_table(analysis: Analysis) -> Html:
    """Mistakes by kind: how many, what they cost, and of which classes."""
    counts = analysis.errors.counts()
    most = max(*analysis.gains.values(), 1e-9)
    rows = [
        [
            name,
            Cell(f"{counts[name]:,}"),
            Cell(percent(analysis.gains[name]), bar=analysis.gains[name] / most, kind="n bar"),
            Cell(MEANINGS[name], kind="wide"),
        ]
        for name in (*KINDS, MISSED)
    ]
    by_class = kinds_by_class(analysis.shown, analysis.errors)
    split = [
        [name, *(Cell(f"{int(count):,}") for count in by_class[place])]
        for place, name in enumerate(analysis.shown.classes)
    ]
    intro = lead(
        "The kinds are those of TIDE (Bolya et al. 2020): an object is found from an overlap of"
        f" {analysis.shown.iou:.2f} on, and a detection that overlaps nothing by more than 0.10 lies on"
        " background. They are counted at the best thresholds. The points of mAP (101-point AP at that"
        " overlap) would be gained if every mistake of the kind, at any score, were corrected; they do not"
        " add up."
    )
    folded = details(
        "By class; false alarms count for the class that was said",
        table(("class", *KINDS, MISSED), split, label="Mistakes by class"),
    )
    columns = ("kind", "how many", "mAP points lost", "meaning")
    return join([intro, table(columns, rows, label="Mistakes by kind"), folded])


def curves(analysis: Analysis) -> Html:
    """Precision against recall, F1 against the threshold, calibration."""
    places = [place for place, cut in enumerate(analysis.cuts) if not math.isnan(cut.f1)]
    names = [analysis.every.classes[place] for place in places]
    sweeps = [analysis.sweeps[place] for place in places]
    cuts = [analysis.cuts[place] for place in places]
    recall = charts.precision_recall(names, sweeps, cuts)
    f1 = charts.thresholds(names, sweeps, cuts)
    told = caption(
        charts.calibration(analysis.calibration),
        "Whether scores can be read as chances. A bar that ends on the dashed line holds as many right"
        " detections as its scores say; above it the model is too modest, below it too sure. The numbers are"
        " how many detections a bar stands for. Score and share differ by"
        f" {percent(analysis.calibration.error)} points on average (expected calibration error), which the"
        " many low scores decide.",
    )
    if not places:
        return join([tag("p", "No class has a right detection.", class_="empty"), grid([told])])
    first = [
        caption(
            recall[0],
            f"Precision and recall of the detections above a score, overlap {analysis.every.iou:.2f}. The"
            " highest scores are on the left; the dot is the best threshold.",
        ),
        caption(
            f1[0],
            "F1, the harmonic mean of precision and recall, of the detections that score at least so much. A"
            " flat top says that the choice of a threshold matters little.",
        ),
    ]
    more = [plot for pair in zip(recall[1:], f1[1:], strict=True) for plot in pair]
    folded = details(f"The other {len(places) - charts.LINES} classes", grid(more)) if more else ""
    return join([grid([*first, told]), folded])


def confusion_table(analysis: Analysis) -> Html:
    """The matrix, of the most confused classes where there are many, and the worst pairs in words."""
    matrix, names = analysis.confusion, analysis.shown.classes
    places = _confused(matrix, CLASSES_IN_MATRIX)
    some = f" Shown are the {len(places)} classes with most confusion." if len(places) < len(names) else ""
    intro = lead(
        "Rows are what is there, columns what was said, at the best thresholds. Each detection takes the"
        f" object that it overlaps most, of whatever class, from {analysis.shown.iou:.2f} on. The colour is"
        f" the share of the row.{some}"
    )
    return join([intro, _matrix(matrix, (*names, "nothing"), [*places, len(names)]), *_pairs(matrix, names)])


def _unknown(analysis: Analysis) -> str:
    """What is to be said where a class has no best threshold."""
    count = sum(math.isnan(cut.f1) for cut in analysis.cuts)
    if not count:
        return ""
    return (
        f" {count} class{'es have' if count > 1 else ' has'} no right detection, and so no best threshold;"
        " 50 % stands in for it."
    )


def _threshold(analysis: Analysis, place: int) -> float:
    cut = analysis.cuts[place]
    # Cut to what is shown, so that the number typed off the page keeps the detection it stands for.
    return math.nan if math.isnan(cut.f1) else math.floor(1000 * cut.threshold) / 1000


def _sum_row(analysis: Analysis, objects: int) -> list[object]:
    totals = Totals.of(analysis.shown)
    return [
        "mean AP, all objects",
        Cell(f"{objects:,}"),
        percent_cell(analysis.report.map),
        *(Cell(percent(value)) for value in analysis.report.sizes.values()),
        Cell(""),
        *(Cell(percent(value)) for value in (totals.precision, totals.recall, totals.f1)),
    ]


def _confused(matrix: Ints, limit: int) -> list[int]:
    """The classes to show: all, or those with most entries beside the diagonal."""
    inner = matrix[:-1, :-1]
    beside = inner.sum(axis=0) + inner.sum(axis=1) - 2 * np.diag(inner)
    return sorted(int(place) for place in np.argsort(-beside, kind="stable")[:limit])


def _matrix(matrix: Ints, names: Sequence[str], shown: Sequence[int]) -> Html:
    head = tag(
        "tr", tag("th", "there is", scope="col"), *(tag("th", names[place], scope="col") for place in shown)
    )
    body = [
        tag(
            "tr",
            tag("th", names[row], scope="row", title=names[row]),
            *(_share_cell(matrix, row, column) for column in shown),
        )
        for row in shown
    ]
    return scroller(
        tag("table", tag("thead", head), tag("tbody", *body), class_="matrix"), "Confusion matrix"
    )


def _share_cell(matrix: Ints, row: int, column: int) -> Html:
    count = int(matrix[row, column])
    share = count / max(int(matrix[row].sum()), 1)
    return tag(
        "td",
        f"{count:,}" if count else "",
        class_="hot" if share > 0.55 else None,
        style=f"--h:{100 * share:.0f}%",
    )


def _pairs(matrix: Ints, names: Sequence[str]) -> list[Html]:
    """The most frequent confusions of two classes in words."""
    inner = matrix[:-1, :-1].copy()
    np.fill_diagonal(inner, 0)
    order = np.argsort(-inner, axis=None, kind="stable")[:CONFUSIONS]
    pairs = [(int(place) // len(names), int(place) % len(names)) for place in order]
    rows = [
        [names[row], names[column], Cell(f"{count:,}"), Cell(percent(count / int(matrix[row].sum())))]
        for row, column in pairs
        if (count := int(inner[row, column]))
    ]
    if not rows:
        return []
    columns = ("there is", "was called", "how often", "% of its objects")
    return [tag("h3", "Most frequent confusions"), table(columns, rows, label="Most frequent confusions")]

"""The page of `fssd compare --report`: two models on the same images."""

from __future__ import annotations

import math
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np

from fssd.config import Metric
from fssd.data.sample import DataSet
from fssd.evaluation.bootstrap import Comparison, Difference, compare_rankings, rank
from fssd.evaluation.evaluate import SIZES, Report, evaluate_detections
from fssd.evaluation.mistakes import KINDS, MISSED
from fssd.evaluation.pairing import FREE, Floats
from fssd.inference.detections import Detections
from fssd.plots import require_matplotlib
from fssd.report import charts
from fssd.report.analysis import Analysis, Tally, Totals, analyse
from fssd.report.eval_page import Subject, facts
from fssd.report.galleries import LEGEND, Album, marks_of
from fssd.report.html import Html, file_link, join, tag, write_page
from fssd.report.layout import (
    DASH,
    Card,
    Cell,
    Section,
    caption,
    details,
    document,
    gallery,
    grid,
    key,
    lead,
    percent,
    percent_cell,
    plural,
    signed,
    signed_cell,
    table,
)
from fssd.report.thumbnails import picture, whole

PAIRS = 8  # of pictures, of gains and of losses each
PAIR_SIDE = 360  # pixels, the width of one of them
PLOTS = 6  # classes whose curves are not folded away
ROWS = 200  # images in the table
LETTERS = ("A", "B")


class Two(NamedTuple):
    """Two models on the same images. names: of the models. comparison: B less A."""

    names: tuple[str, str]
    a: Analysis
    b: Analysis
    comparison: Comparison
    draws: int

    @property
    def analyses(self) -> tuple[Analysis, Analysis]:
        return self.a, self.b


def write_compare_page(
    folder: Path,
    subject: Subject,
    names: tuple[str, str],
    dataset: DataSet,
    detections: tuple[Sequence[Detections], Sequence[Detections]],
    metric: Metric,
    iou: float = 0.5,
    draws: int = 1000,
) -> tuple[Path, Difference]:
    """Write the page of models A and B, with one Detections per record each. Returns the file and B less A.

    subject: data and split; its model is not looked at. draws: of the bootstrap.
    Raises ConfigError without matplotlib, ImageError for an image that is gone.
    """
    require_matplotlib()
    reports = [evaluate_detections(dataset, found, metric, iou) for found in detections]
    first, second = (
        analyse(dataset, found, report) for found, report in zip(detections, reports, strict=True)
    )
    of_a, of_b = (rank(dataset, found, metric, iou) for found in detections)
    two = Two(names, first, second, compare_rankings(of_a, of_b, draws), draws)
    album = Album(dataset, folder)
    lines = [*(f"{letter}: {name}" for letter, name in zip(LETTERS, names, strict=True))]
    body = document(
        "compare",
        f"{names[0]} against {names[1]}",
        [*lines, *facts(subject, reports[0])],
        _cards(two, reports),
        _sections(album, two),
    )
    return write_page(folder, f"{names[0]} against {names[1]}", body), two.comparison.mean


def verdict(difference: Difference) -> str:
    """What an interval says of a difference."""
    if math.isnan(difference.low):
        return "cannot be said: there is nothing to find"
    if difference.low > 0:
        return "B is better"
    if difference.high < 0:
        return "A is better"
    return "may be chance"


def interval(difference: Difference) -> str:
    """`+0.4 to +2.1`, points."""
    if math.isnan(difference.low):
        return DASH
    return f"{signed(difference.low)} to {signed(difference.high)}"


def _sections(album: Album, two: Two) -> list[Section]:
    change = _change(two)
    better = [int(image) for image in np.argsort(-change, kind="stable")[:PAIRS] if change[image] > 0]
    worse = [int(image) for image in np.argsort(change, kind="stable")[:PAIRS] if change[image] < 0]
    return [
        Section("difference", "Difference", _difference(two)),
        Section("errors", "Mistakes by kind", _errors(two)),
        Section("objects", "Objects found", _objects(two)),
        Section("curves", "Precision and recall", _curves(two)),
        Section("gained", "What B gained", _pairs(album, two, better, "rises")),
        Section("lost", "What B lost", _pairs(album, two, worse, "falls")),
        Section("images", "Image by image", _images(album, two, change)),
    ]


def _cards(two: Two, reports: Sequence[Report]) -> list[Card]:
    mean = two.comparison.mean
    totals = [Totals.of(analysis.shown) for analysis in two.analyses]
    return [
        *(
            Card(f"mAP of {letter}", f"{percent(report.map)} %", name)
            for letter, report, name in zip(LETTERS, reports, two.names, strict=True)
        ),
        Card("B less A", signed(mean.value), f"points of mAP; {verdict(mean)}"),
        Card("95 % interval", interval(mean), f"{two.draws:,} draws of the images"),
        *(
            Card(f"objects found by {letter}", f"{percent(total.recall)} %", f"{total.false:,} false alarms")
            for letter, total in zip(LETTERS, totals, strict=True)
        ),
    ]


def _difference(two: Two) -> Html:
    objects = np.bincount(two.a.every.objects.label, minlength=len(two.a.every.classes))
    columns = ("", "objects", "A, AP %", "B, AP %", "B less A", "95 % interval", "draws with B above A, %")
    reports = two.a.report, two.b.report
    rows: list[Sequence[object]] = [
        [name, Cell(f"{objects[place]:,}"), *_ap_cells(two, name), *_sure(two.comparison.classes[place])]
        for place, name in enumerate(two.a.every.classes)
    ]
    rows += [
        [
            f"{size} objects",
            Cell(""),
            *(percent_cell(report.sizes[size]) for report in reports),
            signed_cell(reports[1].sizes[size] - reports[0].sizes[size]),
            Cell(""),
            Cell(""),
        ]
        for size in SIZES
    ]
    rows.append(
        [
            "mean AP",
            Cell(f"{int(objects.sum()):,}"),
            *(percent_cell(report.map) for report in reports),
            *_sure(two.comparison.mean),
        ]
    )
    intro = lead(
        "The interval is that of a paired bootstrap: as many images as there are are drawn with replacement,"
        f" {two.draws:,} times, both models are measured on each draw, and the middle 95 % of the differences"
        " make the interval. It says what other images of the same kind could have given, not what another"
        " training could have given."
    )
    if math.isnan(two.comparison.mean.low):
        return join([intro, table(columns, rows, label="Difference by class", last_is_sum=True)])
    plot = caption(
        charts.draws(two.comparison.draws, two.comparison.mean),
        "The differences over the draws, the interval shaded; the solid line is the difference on the images"
        " as they are, the dashed one is zero.",
    )
    return join([intro, table(columns, rows, label="Difference by class", last_is_sum=True), grid([plot])])


def _ap_cells(two: Two, name: str) -> list[Cell]:
    return [percent_cell(analysis.report.classes[name]) for analysis in two.analyses]


def _sure(difference: Difference) -> list[Cell]:
    return [signed_cell(difference.value), Cell(interval(difference)), Cell(percent(difference.share))]


def _errors(two: Two) -> Html:
    counts = [analysis.errors.counts() for analysis in two.analyses]
    rows = [
        [
            name,
            *(Cell(f"{count[name]:,}") for count in counts),
            *(Cell(percent(analysis.gains[name])) for analysis in two.analyses),
        ]
        for name in (*KINDS, MISSED)
    ]
    columns = ("kind", "A, how many", "B, how many", "A, mAP points lost", "B, mAP points lost")
    intro = lead(
        "Counted at each model's own best thresholds; the points are what mAP would gain if every mistake of"
        " the kind were corrected (TIDE)."
    )
    return join([intro, table(columns, rows, label="Mistakes by kind")])


def _objects(two: Two) -> Html:
    classes = two.a.every.classes
    label = two.a.shown.objects.label
    found = [analysis.shown.objects.finder != FREE for analysis in two.analyses]
    groups = (found[0] & found[1], ~found[0] & found[1], found[0] & ~found[1], ~found[0] & ~found[1])
    counts = [np.bincount(label[group], minlength=len(classes)) for group in groups]
    rows: list[Sequence[object]] = [
        [name, *(Cell(f"{column[place]:,}") for column in counts)] for place, name in enumerate(classes)
    ]
    rows.append(["all", *(Cell(f"{int(column.sum()):,}") for column in counts)])
    columns = ("class", "found by both", "by B only", "by A only", "by neither")
    return join(
        [
            lead("Each object, at each model's own best thresholds."),
            table(columns, rows, label="Objects found by each model", last_is_sum=True),
        ]
    )


def _curves(two: Two) -> Html:
    plots = [
        caption(
            charts.two_models(
                name,
                [f"{letter}: {model}" for letter, model in zip(LETTERS, two.names, strict=True)],
                [analysis.sweeps[place] for analysis in two.analyses],
                [analysis.cuts[place] for analysis in two.analyses],
            ),
            name,
        )
        for place, name in enumerate(two.a.every.classes)
        if not all(math.isnan(analysis.cuts[place].f1) for analysis in two.analyses)
    ]
    if not plots:
        return tag("p", "No class has a right detection.", class_="empty")
    intro = lead(f"One plot for each class, overlap {two.a.every.iou:.2f}; dots are the best thresholds.")
    rest = plots[PLOTS:]
    return join([intro, grid(plots[:PLOTS]), details("More classes", grid(rest)) if rest else ""])


def _change(two: Two) -> Floats:
    """(I,) F1 of each image by B less that by A; an image without anything to find or found is right."""
    first, second = (np.nan_to_num(Tally(analysis.shown).f1, nan=1.0) for analysis in two.analyses)
    return np.asarray(second - first)


def _pairs(album: Album, two: Two, images: Sequence[int], way: str) -> Html:
    intro = lead(
        f"The images whose F1 {way} most from A (left) to B, each at its own best thresholds. Only what"
        " disagrees with the labels has a name."
    )
    figures = [_pair(album, two, image) for image in images]
    return join([intro, key(LEGEND) if figures else "", gallery(figures, "pairs", "No image.")])


def _pair(album: Album, two: Two, image: int) -> Html:
    record = album.record(image)
    sides = []
    told = []
    for letter, analysis in zip(LETTERS, two.analyses, strict=True):
        told.append(f"{letter} {_told(Tally(analysis.shown), image)}")
        view = whole(album.image(image), marks_of(analysis.shown, image), PAIR_SIDE)
        sides.append(picture(view, f"{record.path.name}, {told[-1]}"))
    link = tag("a", *sides, href=file_link(record.path, album.folder), class_="two")
    return tag("figure", link, tag("figcaption", f"{record.path.name}: {'; '.join(told)}"))


def _told(tally: Tally, image: int) -> str:
    alarms = plural(int(tally.false[image]), "false alarm")
    return f"{tally.right[image]} right, {alarms}, {tally.lost[image]} not found"


def _images(album: Album, two: Two, change: Floats) -> Html:
    tallies = [Tally(analysis.shown) for analysis in two.analyses]
    columns = (
        *("image", "A right", "B right", "A false alarms", "B false alarms", "A not found", "B not found"),
        "F1, B less A",
    )
    differs = [
        image
        for image in np.argsort(-np.abs(change), kind="stable")
        if any((getattr(tallies[0], k) != getattr(tallies[1], k))[image] for k in ("right", "false", "lost"))
    ]
    rows = [
        [
            tag("a", album.record(image).path.name, href=file_link(album.record(image).path, album.folder)),
            *(
                Cell(f"{column[image]:,}")
                for name in ("right", "false", "lost")
                for column in _columns(tallies, name)
            ),
            signed_cell(float(change[image])),
        ]
        for image in map(int, differs[:ROWS])
    ]
    same = len(change) - len(differs)
    intro = lead(
        f"{plural(len(differs), 'image')} on which the models differ, the largest change first;"
        f" on {plural(same, 'image')} the counts are equal."
        + (f" The first {ROWS} are shown." if len(differs) > ROWS else "")
    )
    if not rows:
        return intro
    return join([intro, details("Show them", table(columns, rows, label="Image by image"))])


def _columns(tallies: Sequence[Tally], name: str) -> list[Floats]:
    return [getattr(tally, name) for tally in tallies]

"""The page of `fssd compare --report`: two models on the same images."""

from __future__ import annotations

import math
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np

from fssd.config.train_config import Metric
from fssd.counted import counted
from fssd.data.sample import DataSet
from fssd.evaluation.bootstrap import Comparison, Difference, compare_rankings, rank
from fssd.evaluation.evaluate import SIZES, evaluate_detections
from fssd.evaluation.known_classes import known_to_both
from fssd.evaluation.mistakes import KINDS, MISSED
from fssd.evaluation.pairing import FREE, Floats
from fssd.inference.detections import Detections
from fssd.plots import require_matplotlib
from fssd.report import charts, layout
from fssd.report.analysis import Analysis, Tally, analyse
from fssd.report.eval_page import ReportSubject, facts
from fssd.report.galleries import LEGEND, Album, marks_of
from fssd.report.html import Html, file_link, join, tag, write_page
from fssd.report.thumbnails import linked, picture, whole

PAIRS = 8  # pairs of pictures of images that improved, and as many of images that got worse
PAIR_SIDE = 360  # pixels, the width of one picture of a pair
PLOTS = 6  # classes whose curves are shown without a click
ROWS = 200  # images in the table
LETTERS = ("A", "B")


class Two(NamedTuple):
    """Two models on the same images. names: of the models. comparison: B minus A."""

    names: tuple[str, str]
    analyses: tuple[Analysis, Analysis]
    comparison: Comparison
    resamples: int

    @property
    def classes(self) -> tuple[str, ...]:
        return self.analyses[0].every.classes

    @property
    def titles(self) -> list[str]:
        """`A: name` and `B: name`."""
        return [f"{letter}: {name}" for letter, name in zip(LETTERS, self.names, strict=True)]


def write_compare_page(
    folder: Path,
    subject: ReportSubject,
    names: tuple[str, str],
    dataset: DataSet,
    detections: tuple[Sequence[Detections], Sequence[Detections]],
    metric: Metric,
    iou: float = 0.5,
    resamples: int = 1000,
) -> tuple[Path, Difference]:
    """Write the page of models A and B, with one Detections per record each. Returns the file and B minus A.

    subject: data, split and notes; its name is not used. resamples: of the bootstrap. Classes of the data
    set that one of the models does not know are left out.
    Raises ConfigError without matplotlib or if no class is left, ImageError for a missing image.
    """
    require_matplotlib()
    dataset, note = known_to_both(dataset, detections[0][0].classes, detections[1][0].classes)
    reports = [evaluate_detections(dataset, found, metric, iou) for found in detections]
    a, b = (analyse(dataset, found, report) for found, report in zip(detections, reports, strict=True))
    of_a, of_b = (rank(dataset, found, metric, iou) for found in detections)
    two = Two(names, (a, b), compare_rankings(of_a, of_b, resamples), resamples)
    title = f"{names[0]} against {names[1]}"
    lines = [*two.titles, *facts(subject, reports[0]), *filter(None, [note])]
    body = layout.document("compare", title, lines, _cards(two), _sections(Album(dataset, folder), two))
    return write_page(folder, title, body), two.comparison.mean


def verdict(difference: Difference) -> str:
    """What the interval of a difference means."""
    if math.isnan(difference.low):
        return "unknown: there is no object to find"
    if difference.low > 0:
        return "B is better"
    if difference.high < 0:
        return "A is better"
    return "may be chance"


def interval(difference: Difference) -> str:
    """`+0.4 to +2.1`, points."""
    if math.isnan(difference.low):
        return layout.DASH
    return f"{layout.signed(difference.low)} to {layout.signed(difference.high)}"


def _sections(album: Album, two: Two) -> list[layout.Section]:
    tallies = (Tally.by_image(analysis.shown) for analysis in two.analyses)
    a, b = (np.nan_to_num(tally.f1, nan=1.0) for tally in tallies)  # 1: neither objects nor detections
    change = b - a  # (I,)
    better = [int(image) for image in np.argsort(-change, kind="stable")[:PAIRS] if change[image] > 0]
    worse = [int(image) for image in np.argsort(change, kind="stable")[:PAIRS] if change[image] < 0]
    return [
        layout.Section("difference", "Difference", _difference(two)),
        layout.Section("errors", "Mistakes by kind", _errors(two)),
        layout.Section("objects", "Objects found", _objects(two)),
        layout.Section("curves", "Precision and recall", _curves(two)),
        layout.Section("better", "Images where B is better", _pairs(album, two, better, "rises")),
        layout.Section("worse", "Images where B is worse", _pairs(album, two, worse, "falls")),
        layout.Section("images", "Image by image", _images(album, two, change)),
    ]


def _cards(two: Two) -> list[layout.Card]:
    mean = two.comparison.mean
    scores, found = [], []
    for letter, name, analysis in zip(LETTERS, two.names, two.analyses, strict=True):
        totals = Tally.total(analysis.shown)
        wrong = f"{totals.false_positives:,} false positives"
        scores.append(layout.Card(f"mAP of {letter}", layout.share(analysis.report.map), name))
        found.append(layout.Card(f"objects found by {letter}", layout.share(totals.recall), wrong))
    return [
        *scores,
        layout.Card("B minus A", layout.signed(mean.value), f"points of mAP; {verdict(mean)}"),
        layout.Card("95 % interval", interval(mean), f"{two.resamples:,} resamples of the images"),
        *found,
    ]


def _difference(two: Two) -> Html:
    objects = np.bincount(two.analyses[0].every.objects.label, minlength=len(two.classes))
    columns = (
        *("", "objects", "A, AP %", "B, AP %", "B minus A", "95 % interval"),
        "resamples with B above A, %",
    )
    reports = [analysis.report for analysis in two.analyses]
    rows: list[Sequence[object]] = []
    for name, count, difference in zip(two.classes, objects, two.comparison.classes, strict=True):
        aps = [layout.percent_cell(report.classes[name]) for report in reports]
        rows.append([name, count, *aps, *_difference_cells(difference)])
    for size in SIZES:
        change = layout.signed_cell(reports[1].sizes[size] - reports[0].sizes[size])
        aps = [layout.percent_cell(report.sizes[size]) for report in reports]
        rows.append([f"{size} objects", "", *aps, change, "", ""])
    aps = [layout.percent_cell(report.map) for report in reports]
    rows.append(["mean AP", objects.sum(), *aps, *_difference_cells(two.comparison.mean)])
    intro = layout.lead(
        f"The interval is that of a paired bootstrap: the images are resampled {two.resamples:,} times with"
        " replacement, both models are measured on each resample, and the interval is the middle 95 % of the"
        " differences. It shows how the result could vary with other images of the same kind, not with"
        " another training."
    )
    parts = [intro, layout.table(columns, rows, label="Difference by class", last_is_sum=True)]
    if math.isnan(two.comparison.mean.low):
        return join(parts)
    plot = layout.caption(
        charts.resamples(two.comparison.resamples, two.comparison.mean),
        "The differences over the resamples, with the interval shaded; the solid line is the difference on"
        " the original images, the dashed line is zero.",
    )
    return join([*parts, layout.grid([plot])])


def _difference_cells(difference: Difference) -> tuple[layout.Cell, layout.Cell, float]:
    return layout.signed_cell(difference.value), layout.Cell(interval(difference)), difference.share


def _errors(two: Two) -> Html:
    counts = [analysis.errors.counts() for analysis in two.analyses]
    rows = [
        [name, *(count[name] for count in counts), *(analysis.gains[name] for analysis in two.analyses)]
        for name in (*KINDS, MISSED)
    ]
    columns = ("kind", "A, how many", "B, how many", "A, mAP points lost", "B, mAP points lost")
    intro = layout.lead(
        "Counted at each model's own best thresholds. The points are the gain in mAP if every mistake of the"
        " kind were corrected (TIDE)."
    )
    return join([intro, layout.table(columns, rows, label="Mistakes by kind")])


def _objects(two: Two) -> Html:
    classes, labels = two.classes, two.analyses[0].shown.objects.label
    by_a, by_b = (analysis.shown.objects.finder != FREE for analysis in two.analyses)
    groups = (by_a & by_b, ~by_a & by_b, by_a & ~by_b, ~by_a & ~by_b)
    counts = [np.bincount(labels[group], minlength=len(classes)) for group in groups]
    rows: list[Sequence[object]] = [list(row) for row in zip(classes, *counts, strict=True)]
    rows.append(["all", *(column.sum() for column in counts)])
    columns = ("class", "found by both", "by B only", "by A only", "by neither")
    intro = layout.lead("Each object, at each model's own best thresholds.")
    return join([intro, layout.table(columns, rows, label="Objects found by each model", last_is_sum=True)])


def _curves(two: Two) -> Html:
    plots: list[Html] = []
    for label, name in enumerate(two.classes):
        pairs = zip(two.titles, two.analyses, strict=True)
        curves = [(title, analysis.sweeps[label], analysis.best[label]) for title, analysis in pairs]
        known = [curve for curve in curves if not math.isnan(curve[2].f1)]
        plots += [layout.caption(plot, name) for plot in charts.precision_recall(known, f" of {name}")]
    if not plots:
        return tag("p", "No class has a correct detection.", class_="empty")
    least = two.analyses[0].every.iou
    intro = layout.lead(f"One plot for each class, overlap {least:.2f}; dots are the best thresholds.")
    more = layout.details("More classes", layout.grid(plots[PLOTS:])) if plots[PLOTS:] else ""
    return join([intro, layout.grid(plots[:PLOTS]), more])


def _pairs(album: Album, two: Two, images: Sequence[int], change: str) -> Html:
    intro = layout.lead(
        f"The images whose F1 {change} most from A (left) to B, each at its own best thresholds. Only boxes"
        " that disagree with the labels have a name."
    )
    figures = [_pair(album, two, image) for image in images]
    return join([intro, layout.key(LEGEND) if figures else "", layout.gallery(figures, "pairs", "No image.")])


def _pair(album: Album, two: Two, image: int) -> Html:
    file = album.record(image).path
    pictures, texts = [], []
    for letter, analysis in zip(LETTERS, two.analyses, strict=True):
        texts.append(f"{letter} {Tally.by_image(analysis.shown).words(image)}")
        view = whole(album.image(image), marks_of(analysis.shown, image), PAIR_SIDE)
        pictures.append(picture(view, f"{layout.isolated(file.name)}, {texts[-1]}"))
    if album.record(image).stored is None:
        both = tag("a", *pictures, href=file_link(file, album.folder), class_="two")
    else:
        both = tag("div", *pictures, class_="two")
    return tag("figure", both, tag("figcaption", f"{layout.isolated(file.name)}: {'; '.join(texts)}"))


def _images(album: Album, two: Two, change: Floats) -> Html:
    tallies = [Tally.by_image(analysis.shown) for analysis in two.analyses]
    kinds = ("correct", "false positives", "missed")
    columns = ("image", *(f"{letter} {kind}" for kind in kinds for letter in LETTERS), "F1, B minus A")
    pairs = [getattr(tally, kind.replace(" ", "_")) for kind in kinds for tally in tallies]
    counts = np.stack(pairs, axis=1)  # (I, 6), A and B side by side
    order = np.argsort(-np.abs(change), kind="stable")
    differs = order[(counts[order, ::2] != counts[order, 1::2]).any(axis=1)]
    rows: list[list[object]] = []
    for image in differs[:ROWS]:
        record = album.record(int(image))
        link = linked(record.path.name, record.picture, album.folder)
        rows.append([link, *counts[image], layout.signed_cell(float(change[image]))])
    intro = layout.lead(
        f"{counted(len(differs), 'image')} on which the models differ, largest change first;"
        f" on {counted(len(change) - len(differs), 'image')} the counts are equal."
        + (f" The first {ROWS} are shown." if len(differs) > ROWS else "")
    )
    if not rows:
        return intro
    return join([intro, layout.details("Show them", layout.table(columns, rows, label="Image by image"))])

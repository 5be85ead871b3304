"""The page of `fssd eval --report`: one model on one data set."""

from __future__ import annotations

import math
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

from fssd.counted import counted
from fssd.data.sample import DataSet
from fssd.evaluation.evaluate import Report
from fssd.inference.detections import Detections
from fssd.plots import metric_label, require_matplotlib
from fssd.report.analysis import Analysis, Tally, analyse
from fssd.report.eval_tables import class_table, confusion_table, curves, error_table
from fssd.report.galleries import LEGEND, Album, false_positives, missed_objects, worst_images
from fssd.report.html import Html, join, write_page
from fssd.report.layout import Card, Section, document, gallery, isolated, key, lead, share

_WORST = (
    "The images with the lowest F1 at the best thresholds. Only boxes that disagree with the labels have a"
    " name. Each picture links to its file."
)
_MISSED = "Objects that no detection found at the best thresholds, largest first, at most two per image."
_WRONG = "Wrong detections at the best thresholds, most confident first, at most two per image."


class ReportSubject(NamedTuple):
    """What a page is about. name: of the model. data: as the user named it. split: None or "none" is all.

    notes: sentences about how the detections were made, or read from a file.
    """

    name: str
    data: Path
    split: str | None
    notes: tuple[str, ...] = ()

    @property
    def images(self) -> str:
        """The data set and its split."""
        return str(self.data) if self.split in (None, "none") else f"{self.data}, split {self.split}"


def write_eval_page(
    folder: Path, subject: ReportSubject, dataset: DataSet, detections: Sequence[Detections], report: Report
) -> Path:
    """Write the page. Raises ConfigError without matplotlib, ImageError for a missing image."""
    require_matplotlib()
    analysis = analyse(dataset, detections, report)
    sections = _sections(Album(dataset, folder), analysis)
    body = document("eval", subject.name, facts(subject, report), _cards(analysis), sections)
    return write_page(folder, f"{subject.name} on {subject.data.name}", body)


def facts(subject: ReportSubject, report: Report) -> list[str]:
    """The lines below the title: data, metric, classes that the model does not know, and notes."""
    names = ", ".join(map(isolated, report.unknown_classes))
    unknown = [f"not known to the model, AP 0: {names}"] * bool(names)
    return [
        f"{subject.images}: {counted(report.images, 'image')}, {counted(report.objects, 'object')}",
        f"AP in percent: {metric_label(report.metric, report.iou)}",
        *unknown,
        *subject.notes,
    ]


def _sections(album: Album, analysis: Analysis) -> list[Section]:
    return [
        Section("classes", "Classes and sizes", class_table(analysis)),
        Section("errors", "Mistakes by kind", error_table(analysis)),
        Section("curves", "Curves", curves(analysis)),
        Section("confusion", "Confusion", confusion_table(analysis)),
        Section("worst", "Worst images", _pictures(_WORST, worst_images(album, analysis))),
        Section("missed", "Missed objects", _pictures(_MISSED, missed_objects(album, analysis), "small")),
        Section("wrong", "False positives", _pictures(_WRONG, false_positives(album, analysis), "small")),
    ]


def _cards(analysis: Analysis) -> list[Card]:
    report, totals = analysis.report, Tally.total(analysis.shown)
    measured = sum(not math.isnan(ap) for ap in report.classes.values())
    return [
        Card("mAP", share(report.map), f"mean of {counted(measured, 'class')}"),
        *[Card("mAP", share(report.known_map), f"mean of the {report.known}")] * bool(report.unknown_classes),
        Card("objects found", share(totals.recall), f"{totals.correct:,} at the best thresholds"),
        Card("correct detections", share(totals.precision), f"{totals.false_positives:,} false positives"),
        *(Card(f"{size} objects", share(ap), "AP") for size, ap in report.sizes.items()),
    ]


def _pictures(intro: str, figures: Sequence[Html], kind: str = "") -> Html:
    return join([lead(intro), key(LEGEND) if figures else "", gallery(figures, kind)])

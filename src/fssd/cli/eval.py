"""fssd eval MODEL --data DATA --split val --metric voc07|voc12|coco [--report DIR] [--json FILE]"""

from __future__ import annotations

import sys
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

from fssd.cli.options import (
    FLAT,
    Device,
    Iou,
    Loading,
    Measuring,
    Model,
    Scales,
    ThresholdFlags,
    detect_all,
    parse,
    spare_inputs,
    write_each,
)
from fssd.errors import ConfigError

if TYPE_CHECKING:
    from fssd.data.sample import DataSet
    from fssd.evaluation.evaluate import Report
    from fssd.inference.detections import Detections


@dataclass(frozen=True)
class Eval:
    """Measure a model on a data set."""

    model: Model
    data: Path
    """Data set, in any form that `fssd train` takes."""
    measuring: Annotated[Measuring, FLAT] = Measuring()
    iou: Iou = 0.5
    thresholds: Annotated[ThresholdFlags, FLAT] = ThresholdFlags()
    loading: Annotated[Loading, FLAT] = Loading()
    scales: Scales = ()
    device: Device = "auto"
    report: Path | None = None
    """Write a page with curves, mistakes and pictures into this folder; needs the extra plot."""
    json: Path | None = None
    """Write the numbers to this file."""
    voc_results: Path | None = None
    """Write detections as VOC result files (comp4_det_CLASS.txt) into this folder."""
    coco_results: Path | None = None
    """Write detections as a COCO result json."""


def run(arguments: list[str]) -> int:
    command = parse(Eval, arguments)
    from rich.console import Console

    from fssd.evaluation.evaluate import evaluate_detections
    from fssd.evaluation.known_classes import unknown_note
    from fssd.inference.detector import Detector

    detector = Detector.load(command.model, device=command.device)
    settings = {**asdict(command.thresholds), "scales": list(command.scales) or None}
    detector.sized(settings["scales"])  # before the data are read
    dataset = command.measuring.open(command.data, [command.model], [detector], command.iou)
    _check_outputs(command, dataset)
    if note := unknown_note(dataset, detector.classes):
        print(f"note: {note}", file=sys.stderr)
    console = Console()
    found = detect_all(detector, dataset, console, **asdict(command.loading), **settings)
    report = evaluate_detections(dataset, found, command.measuring.metric, command.iou)
    console.print(report.table())
    _write(command, dataset, found, report, settings)
    return 0


def _check_outputs(command: Eval, dataset: DataSet) -> None:
    """Raise what would keep a result from being written, before the time is spent."""
    from fssd.atomic import require_writable
    from fssd.evaluation.results import voc_files
    from fssd.plots import require_matplotlib
    from fssd.report.html import PAGE_FILE
    from fssd.weights.checkpoint import model_file

    files = [file for file in (command.json, command.coco_results) if file is not None]
    if command.report is not None:
        require_matplotlib()
        files.append(command.report / PAGE_FILE)
    if command.voc_results is not None:
        ids = [record.image_id for record in dataset.records]
        files += voc_files(command.voc_results, ids, dataset.classes, split=dataset.facts["split"] or "test")
    spare_inputs([model_file(command.model), *(record.source for record in dataset.records)], files)
    if len({file.resolve() for file in files}) < len(files):
        raise ConfigError("two results have the same file; give each a name of its own")
    require_writable(*files)


def _write(
    command: Eval, dataset: DataSet, found: list[Detections], report: Report, settings: Mapping[str, Any]
) -> None:
    """Write every result that was asked for, also if another one fails."""
    from fssd.atomic import atomic_write
    from fssd.evaluation.results import write_coco_results, write_voc_results
    from fssd.report.eval_page import ReportSubject, write_eval_page

    steps: list[Callable[[], object]] = []
    split = dataset.facts["split"]
    if command.json is not None:
        steps.append(partial(atomic_write, command.json, report.to_json(settings)))
    if command.coco_results is not None:
        steps.append(partial(write_coco_results, command.coco_results, dataset, found))
    if command.voc_results is not None:
        ids = [record.image_id for record in dataset.records]
        arguments = (command.voc_results, ids, found, dataset.classes)
        steps.append(partial(write_voc_results, *arguments, split=split or "test"))
    if command.report is not None:
        subject = ReportSubject(command.model, command.data, split)
        page = partial(write_eval_page, command.report, subject, dataset, found, report)
        steps.append(lambda: print(f"report in {page()}"))
    write_each(*steps)

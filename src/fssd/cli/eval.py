"""fssd eval MODEL --data DATA --split val --metric voc07|voc12|coco [--report DIR] [--json FILE]"""

from __future__ import annotations

import math
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Literal

import tyro

from fssd.errors import ConfigError


@dataclass(frozen=True)
class Eval:
    """Measure a model on a data set."""

    model: Annotated[Path, tyro.conf.Positional]
    """Model file, the folder of a run, or a packaged model: animals."""
    data: Path
    """Data set, in any form that `fssd train` takes."""
    split: str | None = "val"
    """Split to measure on; "none" for every image."""
    metric: Literal["voc07", "voc12", "coco"] = "voc12"
    """11-point AP, integral AP, or COCO's twelve numbers."""
    iou: float = 0.5
    """Overlap from which an object counts as found, for the VOC metrics."""
    score: float = 0.01
    """Detections score more than this."""
    nms: float = 0.45
    """Overlap above which the weaker of two detections of one class is dropped."""
    top_k: int = 400
    """Candidates in each class before NMS."""
    keep: int = 200
    """Detections in an image after NMS."""
    batch_size: int = 16
    """Images at a time."""
    workers: int = 1
    """Processes that load images."""
    bad_share: float = 0.02
    """Share of images with errors (0..1) that may be left out with a warning; above it, nothing runs."""
    device: str = "auto"
    """cpu, cuda, or auto."""
    report: Path | None = None
    """Write a page with curves, mistakes and pictures into this folder; needs the extra plot."""
    json: Path | None = None
    """Write the numbers to this file."""
    voc_results: Path | None = None
    """Write detections as VOC result files (comp4_det_CLASS.txt) into this folder."""
    coco_results: Path | None = None
    """Write detections as a COCO result json."""


def run(arguments: list[str]) -> int:
    """Evaluate, print the table, write what was asked for."""
    command = tyro.cli(Eval, prog="fssd eval", args=arguments)
    check_thresholds(score=command.score, nms=command.nms, iou=command.iou)
    check_counts(top_k=command.top_k, keep=command.keep, batch_size=command.batch_size)
    check_counts(0, workers=command.workers)
    from rich.console import Console
    from rich.progress import track

    from fssd.atomic import atomic_write, make_folder
    from fssd.data.source import open_data, print_left_out, require_usable
    from fssd.evaluation.evaluate import check_measurable, evaluate_detections
    from fssd.evaluation.results import write_coco_results, write_voc_results
    from fssd.inference.detector import Detector
    from fssd.plots import require_matplotlib

    detector = Detector.load(command.model, device=command.device)
    dataset = open_data(command.data, None if command.split == "none" else command.split)
    require_usable(dataset, command.bad_share)
    print_left_out(dataset)
    check_measurable(dataset, detector.classes, command.metric, command.iou)
    for file in (command.json, command.coco_results):
        if file is not None:
            make_folder(file.parent)
    if command.report is not None:
        require_matplotlib()
        make_folder(command.report)
    stream = detector.evaluate_on(
        dataset,
        batch_size=command.batch_size,
        workers=command.workers,
        score=command.score,
        nms=command.nms,
        top_k=command.top_k,
        keep=command.keep,
    )
    console = Console()
    found = list(
        track(stream, "detecting", total=len(dataset), console=console, disable=not console.is_terminal)
    )
    report = evaluate_detections(dataset, found, command.metric, command.iou)
    console.print(report.table())
    if command.json is not None:
        atomic_write(command.json, report.to_json())
    if command.report is not None:
        from fssd.report.eval_page import ReportSubject, write_eval_page

        subject = ReportSubject(command.model, command.data, command.split)
        print(f"report in {write_eval_page(command.report, subject, dataset, found, report)}")
    if command.voc_results is not None:
        ids = [record.image_id for record in dataset.records]
        write_voc_results(command.voc_results, ids, found, dataset.classes, split=command.split or "test")
    if command.coco_results is not None:
        write_coco_results(command.coco_results, dataset, found)
    return 0


def check_thresholds(**values: float) -> None:
    """Raise ConfigError unless all lie in 0..1."""
    for name, value in values.items():
        if not 0 <= value <= 1:
            raise ConfigError(f"{name} is {value}; it lies between 0 and 1")


def check_minutes(minutes: float | None) -> None:
    """Raise ConfigError unless it is a length of time."""
    if minutes is not None and not 0 < minutes < math.inf:
        raise ConfigError(f"minutes is {minutes}; it must be above 0 and finite")


def check_counts(least: int = 1, **values: int) -> None:
    """Raise ConfigError unless all are at least `least`."""
    for name, value in values.items():
        if value < least:
            raise ConfigError(f"{name} is {value}; it must be {least} or more")

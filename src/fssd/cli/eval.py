"""fssd eval MODEL --data DATA --split val --metric voc07|voc12|coco [--report DIR] [--json FILE]"""

from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Annotated

from fssd.cli.options import FLAT, Device, Iou, Loading, Measuring, Model, ThresholdFlags, detect_all, parse


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
    metric = command.measuring.metric
    from rich.console import Console

    from fssd.atomic import atomic_write, make_folder
    from fssd.evaluation.evaluate import evaluate_detections
    from fssd.evaluation.results import write_coco_results, write_voc_results
    from fssd.inference.detector import Detector
    from fssd.plots import require_matplotlib

    detector = Detector.load(command.model, device=command.device)
    dataset = command.measuring.open(command.data, [command.model], [detector], command.iou)
    split = dataset.facts["split"]
    for file in (command.json, command.coco_results):
        if file is not None:
            make_folder(file.parent)
    if command.report is not None:
        require_matplotlib()
        make_folder(command.report)
    console = Console()
    found = detect_all(detector, dataset, console, **asdict(command.loading), **asdict(command.thresholds))
    report = evaluate_detections(dataset, found, metric, command.iou)
    console.print(report.table())
    if command.json is not None:
        atomic_write(command.json, report.to_json())
    if command.report is not None:
        from fssd.report.eval_page import ReportSubject, write_eval_page

        subject = ReportSubject(command.model, command.data, split)
        print(f"report in {write_eval_page(command.report, subject, dataset, found, report)}")
    if command.voc_results is not None:
        ids = [record.image_id for record in dataset.records]
        write_voc_results(command.voc_results, ids, found, dataset.classes, split=split or "test")
    if command.coco_results is not None:
        write_coco_results(command.coco_results, dataset, found)
    return 0

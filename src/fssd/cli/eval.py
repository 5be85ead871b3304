"""fssd eval MODEL --data DATA --split val --metric voc07|voc12|coco [--report DIR] [--json FILE]"""

from __future__ import annotations

import json
import sys
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, NamedTuple

from fssd.cli.options import (
    FLAT,
    Device,
    Flag,
    Iou,
    Loading,
    Measured,
    Measuring,
    RuleFlags,
    Scales,
    ThresholdFlags,
    TileFlags,
    changed,
    open_models,
    parse,
    refuse_names,
    spare_folder,
    spare_inputs,
    spare_records,
    write_each,
)
from fssd.cli.result import add_result
from fssd.errors import ConfigError

if TYPE_CHECKING:
    from fssd.data.sample import DataSet
    from fssd.evaluation.evaluate import Report
    from fssd.inference.detections import Detections
    from fssd.inference.detector import Detector
    from fssd.training.distributed import Process


@dataclass(frozen=True)
class Eval:
    """Measure a model, or detections that another program wrote, on a data set."""

    model: Measured
    data: Path
    """Data set, in any form that `fssd train` takes."""
    measuring: Annotated[Measuring, FLAT] = Measuring()
    iou: Iou = 0.5
    thresholds: Annotated[ThresholdFlags, FLAT] = ThresholdFlags()
    rules: Annotated[RuleFlags, FLAT] = RuleFlags()
    tiling: Annotated[TileFlags, FLAT] = TileFlags()
    keep_tiles: Flag = False
    """Write the tiles of this evaluation into the model file, as the default of all verbs."""
    keep_thresholds: Flag = False
    """Write the score with the best F1 of each class, at --iou, into the model file as its default."""
    loading: Annotated[Loading, FLAT] = Loading()
    scales: Scales = ()
    device: Device = "auto"
    report: Path | None = None
    """Write a page with curves, mistakes and pictures into this folder; needs the extra plot."""
    json: Path | None = None
    """Write the numbers to this file; without a name print them as JSON, and all else to stderr."""
    voc_results: Path | None = None
    """Write detections as VOC result files (comp4_det_CLASS.txt) into this folder."""
    coco_results: Path | None = None
    """Write detections as a COCO result json."""


def run(arguments: list[str]) -> int:
    command = parse(Eval, arguments)
    from fssd.cli.eval_group import device_of, evaluation_group

    with evaluation_group() as process:
        return _run(replace(command, device=device_of(command.device, process)), process)


def _run(command: Eval, process: Process) -> int:
    from rich.console import Console

    from fssd.cli.eval_group import detect_in_group
    from fssd.evaluation.class_scores import require_own_model
    from fssd.evaluation.evaluate import evaluate_detections
    from fssd.evaluation.known_classes import unknown_note

    groups = {command.thresholds: ThresholdFlags(), command.rules: RuleFlags(), command.loading: Loading()}
    groups[command.tiling] = TileFlags()
    (detector,) = open_models([command.model], command.device, groups, command.scales)
    refuse_names(command.measuring, [detector])
    if command.keep_thresholds:
        _refuse_other_rules(command)
    if command.keep_thresholds or command.keep_tiles:
        require_own_model(command.model, detector)
    settings = {} if detector is None else _settings(command, detector)
    dataset = _open(command, detector)
    _check_outputs(command, dataset)
    console = Console()
    notes: tuple[str, ...] = ()
    if detector is None:
        read = command.measuring.read(command.model, dataset, command.iou)
        found, classes, notes = read.detections, read.classes, read.notes
    else:
        classes = detector.classes
    if note := unknown_note(dataset, classes):
        print(f"note: {note}", file=sys.stderr)
    if detector is not None:
        loading, defaults = asdict(command.loading), detector.runner.defaults
        notes = _told(settings, vars(defaults))
        found = detect_in_group(detector, dataset, console, process, **loading, **settings)
        settings |= vars(defaults.replaced(command.thresholds.given()))
    if not process.is_first:
        return 0
    report = evaluate_detections(dataset, found, command.measuring.metric, command.iou)
    console.print(report.table())
    outcome = Outcome(found, report, notes, settings, {})
    steps = [partial(_write, command, dataset, outcome)]
    if command.keep_tiles:
        steps.append(partial(_keep_tiles, command, outcome, detector))
    if command.keep_thresholds and detector is not None:
        steps.append(partial(_keep_thresholds, command, dataset, outcome, detector.classes))
    steps.append(partial(_tell, command.json, outcome))  # last, with what the others kept and wrote
    write_each(*steps)
    return 0


def _open(command: Eval, detector: Detector | None) -> DataSet:
    """The images to measure on, with the labels of --classes alone."""
    from fssd.evaluation.known_classes import wanted_classes

    wanted = command.rules.classes
    if detector is None or not wanted:
        models = {} if detector is None else {command.model: detector}
        return command.measuring.open(command.data, list(models), list(models.values()), command.iou)
    detector.require_settings(classes=list(wanted))
    dataset = command.measuring.open(command.data, [command.model], [detector], command.iou)
    dataset, note = wanted_classes(dataset, wanted)
    if note:
        print(f"note: {note}", file=sys.stderr)
    return dataset


def _settings(command: Eval, detector: Detector) -> dict[str, Any]:
    """Those of the detector, checked before the data are read; tiles are the model's own if not given."""
    scales = list(command.scales) or None
    detector.sized(scales)
    tiles = detector.tiling(command.tiling.given())
    if tiles is not None:
        print(f"looking at {tiles}", file=sys.stderr)
    own = {"tiles": "none"} if tiles is None else tiles.settings()
    return {**command.thresholds.given(), **command.rules.given(), **own, "scales": scales}


def _told(settings: Mapping[str, Any], defaults: Mapping[str, Any]) -> tuple[str, ...]:
    """A line about the settings of a detector that are not those of every evaluation, none if all are."""
    told = []
    for name, value in settings.items():
        if value in (None, "none") or value == defaults.get(name):
            continue
        many = [f"{key}={one}" for key, one in value.items()] if isinstance(value, Mapping) else value
        text = "" if value is True else " ".join(map(str, many)) if isinstance(many, list) else str(value)
        told.append(f"--{name.replace('_', '-')} {text}".rstrip())
    return (f"detected with {', '.join(told)}",) if told else ()


def _keep_tiles(command: Eval, outcome: Outcome, detector: Detector | None) -> None:
    """Write the tiles of these settings into the model, and say so."""
    from fssd.data.tiles import FACT, read_tiles
    from fssd.weights.checkpoint import model_file, write_facts

    tiles = read_tiles(outcome.settings, None, {}, (1, 1))
    file = model_file(command.model)
    write_facts(file, {FACT: None if tiles is None else tiles.facts()})
    outcome.told["tiles"] = None if tiles is None else tiles.facts()
    print(f"tiles kept in {file}: {tiles or 'none'}")
    if (
        detector is not None
        and detector.class_scores
        and detector.tiles != tiles
        and not command.keep_thresholds
    ):
        note = "its thresholds were chosen for other tiles; choose them again with --keep-thresholds"
        print(f"note: {command.model}: {note}", file=sys.stderr)


def _refuse_other_rules(command: Eval) -> None:
    """Raise ConfigError for flags under which the best thresholds are not those of plain detection."""
    groups: dict[Any, Any] = {command.thresholds: ThresholdFlags(), command.rules: RuleFlags()}
    if not command.keep_tiles:
        groups[command.tiling] = TileFlags()
    given = [name for group, default in groups.items() for name in changed(group, default)]
    given += ["scales"] * bool(command.scales)
    if given:
        flag = given[0].replace("_", "-")
        raise ConfigError(f"--keep-thresholds is for detection without --{flag}; leave one of the two out")


def _keep_thresholds(command: Eval, dataset: DataSet, outcome: Outcome, classes: Sequence[str]) -> None:
    """Write them into the model, which has these classes, and say so."""
    from fssd.evaluation.class_scores import best_class_scores, write_class_scores
    from fssd.weights.checkpoint import model_file

    best = best_class_scores(dataset, outcome.found, command.iou)
    file = model_file(command.model)
    write_class_scores(file, best)
    outcome.told["class_scores"] = best
    scores = ", ".join(f"{name} {score:.3f}" for name, score in best.items())
    others = [name for name in classes if name not in best]
    missing = f"; 0.5 for {', '.join(others)}, never found correctly" if others else ""
    print(f"thresholds kept in {file}: {scores or 'none'}{missing}")


def _input(command: Eval) -> Path:
    """The file that is measured: of the model, or of the detections."""
    from fssd.evaluation.detection_files import is_detection_file
    from fssd.weights.checkpoint import model_file

    return command.model if is_detection_file(command.model) else model_file(command.model)


def _check_outputs(command: Eval, dataset: DataSet) -> None:
    """Raise what would keep a result from being written, before the time is spent."""
    from fssd.atomic import require_writable
    from fssd.evaluation.results import voc_files
    from fssd.plots import require_matplotlib
    from fssd.report.html import PAGE_FILE, require_own_page

    files = [file for file in (command.json, command.coco_results) if file is not None]
    if command.voc_results is not None:
        ids = [record.image_id for record in dataset.records]
        files += voc_files(command.voc_results, ids, dataset.classes, split=dataset.facts["split"] or "test")
    spare_records(dataset.records, files)
    spare_folder(command.data, files)
    if command.report is not None:
        require_matplotlib()
        require_own_page(command.report)
        files.append(command.report / PAGE_FILE)
    own = _input(command)
    inputs = list(own.rglob("*.txt")) if own.is_dir() else [own]
    spare_inputs([*inputs, command.data], files)
    require_writable(*files, *([own] if command.keep_thresholds or command.keep_tiles else ()))


class Outcome(NamedTuple):
    """What was found and how good it is. notes: how it was detected. settings: of a detector, or none.

    told: what was kept and written, beside the numbers.
    """

    found: list[Detections]
    report: Report
    notes: tuple[str, ...]
    settings: Mapping[str, Any]
    told: dict[str, Any]


def _write(command: Eval, dataset: DataSet, outcome: Outcome) -> None:
    """Write every result that was asked for beside the JSON, also if another one fails."""
    from fssd.evaluation.results import write_coco_results, write_voc_results
    from fssd.plots import model_names
    from fssd.report.eval_page import ReportSubject, write_eval_page

    found, report, notes, _, told = outcome
    steps: list[Callable[[], object]] = []
    split = dataset.facts["split"]
    if command.coco_results is not None:
        steps.append(partial(write_coco_results, command.coco_results, dataset, found))
    if command.voc_results is not None:
        ids = [record.image_id for record in dataset.records]
        known = [name for name in dataset.classes if name in found[0].classes]  # no file: an unknown class
        arguments = (command.voc_results, ids, found, known)
        steps.append(partial(write_voc_results, *arguments, split=split or "test"))
    if command.report is not None:
        (name,) = model_names([_input(command)])
        subject = ReportSubject(name, command.data, split, notes)
        page = partial(write_eval_page, command.report, subject, dataset, found, report)
        steps.append(lambda: _say_page(page(), told))
    write_each(*steps)


def _say_page(page: Path, told: dict[str, Any]) -> None:
    print(f"report in {page}")
    told["report"] = str(page)


def _tell(file: Path | None, outcome: Outcome) -> None:
    """The result, to stdout if it was asked for there, and to the file."""
    from fssd.atomic import atomic_write

    document = json.loads(outcome.report.to_json(outcome.settings or None)) | outcome.told
    add_result(**document)
    if file is not None:
        atomic_write(file, json.dumps(document, indent=2, ensure_ascii=False, allow_nan=False) + "\n")

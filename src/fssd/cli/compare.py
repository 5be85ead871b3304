"""fssd compare MODEL_A MODEL_B IMAGES... [--out compare.png], or MODEL_A MODEL_B --data DATA --report DIR"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import tyro

from fssd.cli.options import (
    FLAT,
    Device,
    Iou,
    Loading,
    Measuring,
    Selection,
    changed,
    open_models,
    parse,
    refuse_names,
    spare_inputs,
)
from fssd.cli.result import add_result
from fssd.config.bounds import Bound, Count
from fssd.counted import counted
from fssd.errors import ConfigError

if TYPE_CHECKING:
    from fssd.data.sample import DataSet
    from fssd.evaluation.detection_files import FileDetections
    from fssd.inference.detections import Detections
    from fssd.inference.detector import Detector

PICTURE_SCORE = 0.5


@dataclass(frozen=True)
class Compare:
    """Draw what two models find in the same images, one row each, as the paper's Fig. 6.

    With --data and --report, write a page instead: what B gained and lost against A on a labelled data set.
    """

    model_a: Annotated[Path, tyro.conf.Positional]
    """Model file, the folder of a run, or a packaged model, of the upper row; for a page also detections in a
    file, as `fssd eval` takes them."""
    model_b: Annotated[Path, tyro.conf.Positional]
    """The same for the lower row; it may know other classes."""
    images: Annotated[tuple[str, ...], tyro.conf.Positional]
    """Image files, folders, or patterns such as "shots/**/*.jpg"."""
    out: Path = Path("compare.png")
    """Picture, .png or .jpg."""
    selection: Annotated[Selection, FLAT] = Selection(score=PICTURE_SCORE)
    columns: Count = 4
    """Images side by side; more of them make further pairs of rows."""
    cell: Annotated[int, Bound("32 or more", lambda value: value >= 32)] = 320
    """Width of an image in the picture, pixels."""
    device: Device = "auto"
    report: Path | None = None
    """Write a page into this folder, instead of a picture; needs --data and the extra plot."""
    data: Path | None = None
    """Data set for the page, in any form that `fssd train` takes."""
    measuring: Annotated[Measuring, FLAT] = Measuring()
    iou: Iou = 0.5
    draws: Count = 1000
    """Bootstrap samples of the images for the interval on the difference in mAP."""
    loading: Annotated[Loading, FLAT] = Loading()


def run(arguments: list[str]) -> int:
    command = parse(Compare, arguments)
    if (command.data is None) != (command.report is None):
        raise ConfigError("a page needs both: give --data DATA and --report DIR")
    _refuse_idle_flags(command)
    from fssd.evaluation.detection_files import is_detection_file
    from fssd.weights.checkpoint import model_file

    named = (command.model_a, command.model_b)
    models = [path if is_detection_file(path) else model_file(path) for path in named]
    if models[0].resolve() == models[1].resolve():
        raise ConfigError(f"{command.model_a}: is named twice; name two different models")
    for path in filter(is_detection_file, () if command.report else models):
        raise ConfigError(f"{path}: holds detections; to compare them give --data and --report")
    return _picture(command, models) if command.report is None else _page(command, models)


def _refuse_idle_flags(command: Compare) -> None:
    """Raise ConfigError for flags of a page with a picture, or of a picture with a page."""
    plain = Compare(command.model_a, command.model_b, command.images)
    given = changed(command, plain)
    picture = [name for name in given if name in ("out", "columns", "cell")]
    picture += ["score"] * (command.selection.score != PICTURE_SCORE)
    page = [name for name in given if name in ("iou", "draws")]
    page += changed(command.measuring, plain.measuring)
    idle, kind = (page, "page") if command.report is None else (picture, "picture")
    if idle:
        raise ConfigError(f"--{idle[0].replace('_', '-')} is for a {kind}; leave it out")


def _picture(command: Compare, models: list[Path]) -> int:
    from fssd.atomic import require_writable
    from fssd.figures.side_by_side import PICTURE_SUFFIXES, check_room, compose, fit, write_picture
    from fssd.inference.detector import Detector
    from fssd.inference.inputs import find_only_stills
    from fssd.plots import check_suffix, model_names

    check_suffix(command.out, PICTURE_SUFFIXES)
    files = find_only_stills(command.images)
    spare_inputs([*files, *models], [command.out])
    require_writable(command.out)
    check_room(len(files), len(models), command.columns, command.cell)
    detectors = [Detector.load(model, device=command.device) for model in models]
    _require_settings(models, detectors, command.selection.given())
    rows = []
    for detector, name in zip(detectors, model_names(models), strict=True):
        stream = detector.stream(files, **command.selection.given())
        # Scaled down at once, because photographs of full size would fill the memory.
        rows.append([fit(found, command.cell) for found in stream])
        print(f"{name}: {counted(sum(map(len, rows[-1])), 'object')} in {counted(len(files), 'image')}")
    write_picture(command.out, compose(rows, model_names(models), command.columns, command.cell))
    print(f"picture in {command.out}")
    objects = [sum(map(len, row)) for row in rows]
    add_result(models=models, images=len(files), objects=objects, picture=command.out)
    return 0


def _page(command: Compare, models: list[Path]) -> int:
    assert command.data is not None and command.report is not None
    if command.images:
        raise ConfigError("--data names the images of the page; leave out the others")
    from fssd.atomic import require_writable
    from fssd.evaluation.known_classes import known_to_both
    from fssd.plots import model_names, require_matplotlib
    from fssd.report.compare_page import verdict, write_compare_page
    from fssd.report.eval_page import ReportSubject
    from fssd.report.html import PAGE_FILE, require_own_page

    require_matplotlib()
    require_own_page(command.report)
    require_writable(command.report / PAGE_FILE)
    groups = {command.loading: Loading(), command.selection: Selection(score=PICTURE_SCORE)}
    detectors = open_models(models, command.device, groups)
    measuring = command.measuring
    refuse_names(measuring, detectors)
    opened = {path: one for path, one in zip(models, detectors, strict=True) if one is not None}
    _require_settings(list(opened), list(opened.values()), _evaluated(command))
    dataset = measuring.open(command.data, list(opened), list(opened.values()), command.iou)
    sides = [
        measuring.read(path, dataset, command.iou) if detector is None else detector
        for path, detector in zip(models, detectors, strict=True)
    ]
    _, note = known_to_both(dataset, *(side.classes for side in sides))
    first, second = (_detections(command, side, dataset) for side in sides)
    a, b = model_names(models)
    subject = ReportSubject(b, command.data, dataset.facts["split"], _notes(sides))
    found = (first, second)
    page, difference = write_compare_page(
        command.report, subject, (a, b), dataset, found, measuring.metric, command.iou, command.draws
    )
    low, value, high = (100 * number for number in (difference.low, difference.value, difference.high))
    print(f"A: {a}\nB: {b}")
    if note:
        print(note)
    interval = f"95 % interval {low:+.1f} to {high:+.1f}"
    print(f"B minus A: {value:+.1f} points of mAP, {interval}; {verdict(difference)}")
    print(f"report in {page}")
    add_result(a=a, b=b, metric=measuring.metric, difference=difference._asdict(), report=page)
    return 0


def _detections(command: Compare, side: Detector | FileDetections, dataset: DataSet) -> list[Detections]:
    from fssd.inference.detector import Detector

    if not isinstance(side, Detector):
        return side.detections
    return list(side.evaluate_on(dataset, **asdict(command.loading), **_evaluated(command)))


def _evaluated(command: Compare) -> dict[str, Any]:
    """The settings of detection for a page, which has those of every evaluation otherwise."""
    return {} if command.selection.nms is None else {"nms": command.selection.nms}


def _require_settings(
    models: Sequence[Path], detectors: Sequence[Detector], settings: Mapping[str, Any]
) -> None:
    """Raise ConfigError for what one of the models cannot follow, before the other has done its work."""
    for model, detector in zip(models, detectors, strict=True):
        try:
            detector.require_settings(**settings)
        except ConfigError as error:
            raise ConfigError(f"{model}: {error}") from error


def _notes(sides: Sequence[Detector | FileDetections]) -> tuple[str, ...]:
    """What is told of detections from files, after the letter of the side."""
    pairs = zip("AB", sides, strict=True)
    return tuple(f"{letter}: {note}" for letter, side in pairs for note in getattr(side, "notes", ()))

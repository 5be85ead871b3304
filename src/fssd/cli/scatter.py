"""fssd scatter MODEL... [--data DATA --split val] [--out scatter.png] [--paper]"""

from __future__ import annotations

import sys
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import tyro

from fssd.cli.options import (
    FLAT,
    Device,
    Flag,
    Loading,
    Measuring,
    open_models,
    parse,
    refuse_names,
    spare_inputs,
    spare_records,
)
from fssd.cli.result import add_result
from fssd.config.bounds import Count
from fssd.errors import ConfigError

if TYPE_CHECKING:
    from fssd.figures.scatter import Accuracy
    from fssd.inference.detector import Detector


@dataclass(frozen=True)
class Scatter:
    """Plot speed on this machine against accuracy, as the paper's Fig. 5."""

    models: Annotated[tuple[str, ...], tyro.conf.Positional]
    """Model files, folders of runs, or packaged models; with --data also detections in files, as `fssd eval`
    takes them, each with the speed that you measured: other.json=41.5 (images a second)."""
    data: Path | None = None
    """Data set to measure accuracy on; by default the accuracy that each file stores."""
    measuring: Annotated[Measuring, FLAT] = Measuring()
    out: Path = Path("scatter.png")
    """Picture, .png, .svg or .pdf; the numbers go beside it as .csv."""
    paper: Flag = False
    """Show the points of the paper's Table 3 in grey."""
    image: Path | None = None
    """Image to measure speed on; by default a colour card."""
    repeats: Count = 20
    """Timed detections per model, models in turn; the median counts."""
    loading: Annotated[Loading, FLAT] = Loading()
    device: Device = "auto"


def run(arguments: list[str]) -> int:
    command = parse(Scatter, arguments)
    from fssd.plots import check_suffix, require_matplotlib, save_plot

    check_suffix(command.out)
    if not command.models:
        raise ConfigError("there is nothing to plot; name model files or the folders of runs")
    require_matplotlib()
    from fssd.figures import scatter
    from fssd.plots import model_names

    stated = _files(command)
    files = list(stated)
    table = command.out.with_suffix(".csv")
    _check_outputs(command, files, [command.out, table])
    detectors = open_models(files, command.device, {command.loading: Loading()})
    refuse_names(command.measuring, detectors)
    accuracies = _accuracies(command, files, detectors)
    scatter.require_one_metric(files, accuracies)
    speeds = _speeds(command, stated, detectors)
    points = [
        scatter.Point(name, speed, accuracy.ap, detector is not None)
        for name, speed, accuracy, detector in zip(
            model_names(files), speeds, accuracies, detectors, strict=True
        )
    ]
    for point in points:
        how = "" if point.measured else " (stated)"
        print(f"{point.name}: {point.speed:.1f} images/s{how}, mAP {100 * point.ap:.1f} %")
    machine = _machine(detectors)
    scatter.write_csv(table, points, accuracies[0], machine, command.paper)
    save_plot(command.out, scatter.draw_scatter(points, accuracies[0], machine, command.paper))
    print(f"{len(points)} models in {command.out}, numbers in {table}")
    rows = [point._asdict() for point in points]
    add_result(models=rows, machine=machine, picture=command.out, table=table)
    return 0


def _check_outputs(command: Scatter, files: Sequence[Path], outputs: Sequence[Path]) -> None:
    """Raise what would keep the result from being made, before the time is spent."""
    from fssd.atomic import require_writable
    from fssd.figures.scatter import COLUMNS
    from fssd.inference.inputs import find_only_stills
    from fssd.plots import require_own_table

    spare_inputs([*files, *filter(None, (command.data, command.image))], outputs)
    require_own_table(command.out.with_suffix(".csv"), COLUMNS)
    require_writable(*outputs)
    if command.image is not None:
        find_only_stills([str(command.image)])


def _files(command: Scatter) -> dict[Path, float | None]:
    """The files to plot, each once, and the speeds that the user states for files of detections."""
    from fssd.evaluation.detection_files import is_detection_file
    from fssd.plots import split_number
    from fssd.weights.checkpoint import model_file

    files: dict[Path, float | None] = {}
    for text in command.models:
        name, speed = split_number(text)
        path = Path(name)
        if is_detection_file(path):
            if command.data is None:
                raise ConfigError(f"{path}: holds detections, whose accuracy is to be measured; give --data")
            if speed is None or speed <= 0:
                raise ConfigError(
                    f"{path}: holds detections, and no speed; write {path}=IMAGES_A_SECOND as it was measured"
                )
        elif speed is not None:
            raise ConfigError(f"{path}: is a model, whose speed is measured here; leave out ={speed:g}")
        else:
            path = model_file(path)
        files.setdefault(path.resolve(), speed)
    return files


def _speeds(
    command: Scatter, stated: dict[Path, float | None], detectors: Sequence[Detector | None]
) -> list[float]:
    """Images a second: measured of models, in turns, and as stated of files of detections."""
    from fssd.data.decode import read_image
    from fssd.figures.scatter import detection_speeds

    image = None if command.image is None else read_image(command.image)
    models = [detector for detector in detectors if detector is not None]
    measured = iter(detection_speeds(models, image, command.repeats) if models else ())
    return [next(measured) if speed is None else speed for speed in stated.values()]


def _machine(detectors: Sequence[Detector | None]) -> str:
    from fssd.figures.scatter import machines

    models = [detector for detector in detectors if detector is not None]
    return machines(models) if models else "as stated"


def _accuracies(
    command: Scatter, files: Sequence[Path], detectors: Sequence[Detector | None]
) -> list[Accuracy]:
    from fssd.evaluation.detection_files import FileDetections
    from fssd.evaluation.evaluate import evaluate_detections
    from fssd.evaluation.known_classes import unknown_note
    from fssd.figures.scatter import Accuracy, stored_accuracy

    pairs = list(zip(files, detectors, strict=True))
    models = {file: detector for file, detector in pairs if detector is not None}
    if command.data is None:
        return [stored_accuracy(detector, file) for file, detector in models.items()]
    dataset = command.measuring.open(command.data, list(models), list(models.values()))
    spare_records(dataset.records, [command.out, command.out.with_suffix(".csv")])
    accuracies = []
    for file, detector in pairs:
        side = command.measuring.read(file, dataset) if detector is None else detector
        if note := unknown_note(dataset, side.classes):
            print(f"note: {file}: {note}", file=sys.stderr)
        if isinstance(side, FileDetections):
            found = side.detections
        else:
            found = list(side.evaluate_on(dataset, **asdict(command.loading)))
        report = evaluate_detections(dataset, found, command.measuring.metric)
        accuracies.append(Accuracy(report.map, report.metric, report.iou))
    return accuracies

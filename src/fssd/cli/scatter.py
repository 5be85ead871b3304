"""fssd scatter MODEL... [--data DATA --split val] [--out scatter.png] [--paper]"""

from __future__ import annotations

from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import tyro

from fssd.cli.options import FLAT, Device, Flag, Loading, Measuring, parse
from fssd.config import Count
from fssd.errors import ConfigError

if TYPE_CHECKING:
    from fssd.figures.scatter import Accuracy
    from fssd.inference.detector import Detector


@dataclass(frozen=True)
class Scatter:
    """Plot speed on this machine against accuracy, as the paper's Fig. 5."""

    models: Annotated[tuple[Path, ...], tyro.conf.Positional]
    """Model files, folders of runs, or packaged models."""
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
    from fssd.data.decode import read_image
    from fssd.figures import scatter
    from fssd.inference.detector import Detector
    from fssd.plots import model_names
    from fssd.weights.checkpoint import model_file

    files = list(dict.fromkeys(model_file(model).resolve() for model in command.models))
    image = None if command.image is None else read_image(command.image)
    detectors = [Detector.load(file, device=command.device) for file in files]
    accuracies = _accuracies(command, files, detectors)
    scatter.require_one_metric(files, accuracies)
    speeds = scatter.detection_speeds(detectors, image, command.repeats)
    measured = zip(model_names(files), speeds, accuracies, strict=True)
    points = [scatter.Point(name, speed, accuracy.ap) for name, speed, accuracy in measured]
    for point in points:
        print(f"{point.name}: {point.speed:.1f} images/s, mAP {100 * point.ap:.1f} %")
    machine = scatter.machine(detectors[0].network.device)
    table = command.out.with_suffix(".csv")
    scatter.write_csv(table, points, accuracies[0], machine, command.paper)
    save_plot(command.out, scatter.draw_scatter(points, accuracies[0], machine, command.paper))
    print(f"{len(points)} models in {command.out}, numbers in {table}")
    return 0


def _accuracies(command: Scatter, files: list[Path], detectors: list[Detector]) -> list[Accuracy]:
    from fssd.evaluation.evaluate import evaluate_detections
    from fssd.figures.scatter import Accuracy, stored_accuracy

    if command.data is None:
        return [stored_accuracy(detector, file) for detector, file in zip(detectors, files, strict=True)]
    dataset = command.measuring.open(command.data, files, detectors)
    accuracies = []
    for detector in detectors:
        found = list(detector.evaluate_on(dataset, **asdict(command.loading)))
        report = evaluate_detections(dataset, found, command.measuring.metric)
        accuracies.append(Accuracy(report.map, report.metric, report.iou))
    return accuracies

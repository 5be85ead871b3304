"""Speed against accuracy, one point for each model: the paper's Fig. 5, measured on this machine."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path
from statistics import median
from typing import TYPE_CHECKING, NamedTuple

import numpy as np
import torch
from torch import Tensor

from fssd import plots
from fssd.bench.timing import take_turns
from fssd.data.sample import Image
from fssd.errors import CheckpointError, ConfigError
from fssd.heads.head import Thresholds
from fssd.inference.detector import Detector
from fssd.runtimes.runner import NetworkRunner, Runner

if TYPE_CHECKING:
    from matplotlib.axes import Axes

WIDTH, HEIGHT = 900, 600  # pixels
COLUMNS = ("name", "images_per_second", "map", "metric", "machine", "from")  # of the CSV file
WIDE = 4  # the axis of speeds is logarithmic if their ratio is at least this


class Point(NamedTuple):
    """A model: speed in images per second, accuracy as AP in 0..1. measured: here, or stated by the user."""

    name: str
    speed: float
    ap: float
    measured: bool = True


class Accuracy(NamedTuple):
    """A measured mAP and its metric. iou: None for COCO's average."""

    ap: float
    metric: str
    iou: float | None


# Table 3 of the paper: VOC 2007 test, mAP in percent, speed on the GPU named in it. *: also trained on COCO,
# S: from scratch. The only row without a speed (R-FCN, ResNet-50) is left out.
PAPER_TABLE_3 = (
    ("Faster R-CNN VGG", 7, "Titan X", 73.2),
    ("Faster R-CNN R101", 2.4, "K40", 76.4),
    ("R-FCN R101", 5.8, "K40", 79.5),
    ("YOLOv2", 81, "Titan X", 73.7),
    ("SSD300S", 46, "Titan X", 69.6),
    ("SSD300*", 46, "Titan X", 81.2),
    ("SSD300", 46, "Titan X", 77.2),
    ("SSD300", 85, "1080Ti", 77.2),
    ("SSD512", 19, "Titan X", 78.5),
    ("SSD512*", 19, "Titan X", 83.2),
    ("DSOD300", 17.4, "Titan X", 77.7),
    ("DSOD300*", 17.4, "Titan X", 81.7),
    ("DSSD321", 9.5, "Titan X", 78.6),
    ("DSSD513", 5.5, "Titan X", 81.5),
    ("RSSD300", 35, "Titan X", 78.5),
    ("RSSD512", 16.6, "Titan X", 80.8),
    ("FSSD300S", 65.8, "1080Ti", 72.7),
    ("FSSD300", 65.8, "1080Ti", 78.8),
    ("FSSD300*", 65.8, "1080Ti", 82.7),
    ("FSSD512", 35.7, "1080Ti", 80.9),
    ("FSSD512*", 35.7, "1080Ti", 84.5),
)


def stored_accuracy(detector: Detector, file: Path) -> Accuracy:
    """The accuracy that training stored in a model file. Raises CheckpointError if there is none."""
    metrics = detector.facts.get("metrics")
    if not isinstance(metrics, dict) or not isinstance(metrics.get("map"), (int, float)):
        raise CheckpointError(f"{file}: holds no accuracy; give --data to measure it")
    return Accuracy(float(metrics["map"]), str(metrics.get("metric")), metrics.get("iou"))


def require_one_metric(files: Sequence[Path], accuracies: Sequence[Accuracy]) -> None:
    """Raise ConfigError if the accuracies do not fit on one axis."""
    for file, accuracy in zip(files, accuracies, strict=True):
        if accuracy[1:] != accuracies[0][1:]:
            one, other = (plots.metric_label(a.metric, a.iou) for a in (accuracies[0], accuracy))
            raise ConfigError(f"{files[0]} was measured by {one}, {file} by {other}; give --data for all")


def detection_speeds(
    detectors: Sequence[Detector], image: Image | None = None, repeats: int = 20
) -> list[float]:
    """Throughput of each detector in images per second, one image at a time, measured as in the paper.

    The time covers network and detection, not decoding and resizing. Detection runs at the thresholds of
    evaluation (score 0.01, NMS 0.45, 400 candidates, 200 kept). image: (H, W, 3) uint8 RGB, by default
    `colour_card`.
    """
    picture = colour_card() if image is None else image
    steps = [_step(detector, picture) for detector in detectors]
    return [1 / median(times) for times in take_turns(dict(enumerate(steps)), repeats).values()]


def colour_card() -> Image:
    """A fixed test image, (300, 300, 3) uint8 RGB: soft colours with squares of four sizes."""
    rise = np.linspace(0, 255, 300)
    red, green = np.meshgrid(rise, rise)
    card = np.stack([red, green, 255 - (red + green) / 2], axis=-1).astype(np.uint8)
    for corner, side in ((20, 12), (60, 28), (110, 52), (180, 100)):
        card[corner : corner + side, corner : corner + side] = 255 - card[corner, corner]
    return card


def machines(detectors: Sequence[Detector]) -> str:
    """Short names of what the speed of these detectors is measured on; exported files run on the CPU."""
    runners = [detector.runner for detector in detectors]
    devices = [
        one.network.device if isinstance(one, NetworkRunner) else torch.device("cpu") for one in runners
    ]
    return " and ".join(dict.fromkeys(map(machine, devices)))


def machine(device: torch.device) -> str:
    """A short name of the device that speed was measured on."""
    if device.type == "cuda":
        return str(torch.cuda.get_device_name(device))
    threads = torch.get_num_threads()
    return f"CPU, {threads} thread{'s' if threads > 1 else ''}"


def write_csv(path: Path, points: Sequence[Point], accuracy: Accuracy, device: str, paper: bool) -> None:
    """Write the points, AP in 0..1: name, images_per_second, map, metric, machine, from (here, stated or
    paper).
    """
    rows: list[tuple[object, ...]] = []
    for name, speed, ap, measured in points:
        rows.append((name, speed, ap, accuracy.metric, *((device, "here") if measured else ("", "stated"))))
    if paper:
        rows += [(name, fps, ap / 100, "voc07", gpu, "paper") for name, fps, gpu, ap in PAPER_TABLE_3]
    plots.save_table(path, COLUMNS, rows)


def draw_scatter(points: Sequence[Point], accuracy: Accuracy, device: str, paper: bool) -> Axes:
    """Plot points in percent with their names. paper: also plot the paper's Table 3 in grey behind them.

    accuracy: metric of all points. device: what speed was measured on. The axis of speeds is logarithmic if
    they differ widely.
    """
    axes = plots.new_axes(WIDTH, HEIGHT)
    own = [(point.speed, 100 * point.ap) for point in points]
    printed = [(float(speed), ap) for _, speed, _, ap in PAPER_TABLE_3] if paper else []
    for index, (speed, ap) in enumerate(own):
        fill = "full" if points[index].measured else "none"
        axes.plot(speed, ap, "o", color=plots.colour(index), markersize=9, fillstyle=fill, zorder=3)
    if printed:
        axes.plot(*zip(*printed, strict=True), "o", color=plots.QUIET, markersize=4, zorder=2)
    axes.margins(0.1)
    plots.limit_percent(axes)
    scale_by_ratio(axes, [speed for speed, _ in (*own, *printed)])
    axes.set_xlabel("speed (images/s)")
    axes.set_ylabel("mAP (%)")
    note = f"{plots.metric_label(accuracy.metric, accuracy.iou)}; network + detection, batch 1, {device}"
    grey = "\ngrey: Table 3 of the paper, VOC 2007 test, on its GPUs (* with COCO, S from scratch)"
    hollow = "\nhollow: speed as stated, not measured here" * any(not point.measured for point in points)
    axes.set_title(note + hollow + grey * paper, loc="left", fontsize=plots.TEXT, color=plots.QUIET)
    plots.label_points(
        axes,
        own + printed,
        [point.name for point in points] + [name for name, *_ in PAPER_TABLE_3][: len(printed)],
        [plots.TEXT] * len(own) + [plots.SMALL_TEXT] * len(printed),
        [plots.INK] * len(own) + [plots.QUIET] * len(printed),
    )
    return axes


def _step(detector: Detector, picture: Image) -> Callable[[], None]:
    """One detection in an image that is already of the network's size and on its device."""
    runner, thresholds = detector.runner, Thresholds()
    if not isinstance(runner, NetworkRunner):
        return partial(_run_file, runner, detector.warp([picture]))
    network = runner.network
    device = network.device
    batch = detector.warp([picture]).float().to(device)  # (1, 3, H, W)
    batch = batch.contiguous(memory_format=torch.channels_last)

    @torch.inference_mode()
    def step() -> None:
        network.heads.detect(network(batch), thresholds)
        if device.type == "cuda":
            torch.cuda.synchronize(device)

    return step


def _run_file(runner: Runner, images: Tensor) -> None:
    runner.finish(runner.predict(images))


def scale_by_ratio(axes: Axes, values: Sequence[float]) -> None:
    """A logarithmic x axis if these values differ widely, else one from zero."""
    if max(values) < WIDE * min(values):
        axes.set_xlim(0, 1.15 * max(values))  # from zero, so that a small difference looks small
        return
    from matplotlib.ticker import LogLocator, NullLocator

    axes.set_xscale("log")
    axes.xaxis.set_major_locator(LogLocator(subs=(1, 2, 5)))
    axes.xaxis.set_minor_locator(NullLocator())
    axes.xaxis.set_major_formatter(lambda value, _: f"{value:g}")

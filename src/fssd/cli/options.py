"""What several verbs share: flags with their defaults and bounds, and opening the data set to measure on."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, TypeVar

import tyro

from fssd.config import BelowOne, Bound, Count, Metric, Natural, check_bounds

if TYPE_CHECKING:
    from fssd.data.sample import DataSet
    from fssd.inference.detector import Detector

Command = TypeVar("Command")

FLAT = tyro.conf.arg(name="")
"""Marks a group of flags, whose name is then no part of the flags."""

Share = Annotated[float, Bound("between 0 and 1", lambda value: 0 <= value <= 1)]
Model = Annotated[
    Path,
    tyro.conf.Positional,
    tyro.conf.arg(help="Model file, the folder of a run, or a packaged model: animals."),
]
Device = Annotated[str, tyro.conf.arg(help="cpu, cuda, or auto.")]
BatchSize = Annotated[Count, tyro.conf.arg(help="Images at a time.")]
Score = Annotated[Share, tyro.conf.arg(help="Keep detections that score more than this.")]
Iou = Annotated[Share, tyro.conf.arg(help="IoU from which an object counts as found, for the VOC metrics.")]
BadShare = Annotated[
    BelowOne,
    tyro.conf.arg(
        help="Share of images with errors (0..1) that may be left out with a warning; above it, nothing runs."
    ),
]


@dataclass(frozen=True)
class Selection:
    """Which detections are kept."""

    score: Score = 0.01
    nms: Share = 0.45
    """IoU above which the less confident of two detections of one class is dropped."""


@dataclass(frozen=True)
class Limits:
    """How many detections are kept."""

    top_k: Count = 400
    """Candidates in each class before NMS."""
    keep: Count = 200
    """Detections in an image after NMS."""


@dataclass(frozen=True)
class Thresholds(Limits, Selection):
    """Which detections are kept, and how many."""


@dataclass(frozen=True)
class Loading:
    """How images are loaded."""

    batch_size: BatchSize = 16
    workers: Natural = 1
    """Processes that load images."""


@dataclass(frozen=True)
class Measuring:
    """What is measured, and on which images."""

    split: str | None = "val"
    """Split to measure on; "none" for every image."""
    metric: Metric = "voc12"
    """11-point AP, integral AP, or COCO's twelve numbers."""
    bad_share: BadShare = 0.02

    def open(self, data: Path, detectors: Sequence[Detector], iou: float = 0.5) -> DataSet:
        """The images to measure `detectors` on; those left out are named. Raises ConfigError, DataError."""
        from fssd.evaluation.evaluate import check_measurable

        dataset = open_usable(data, None if self.split == "none" else self.split, self.bad_share)
        for detector in detectors:
            check_measurable(dataset, detector.classes, self.metric, iou)
        return dataset


def open_usable(data: Path, split: str | None, bad_share: float) -> DataSet:
    """A split of a data set; images that are left out are named. Raises DataError if they are too many."""
    from fssd.data.source import open_data, print_left_out, require_usable

    dataset = open_data(data, split)
    require_usable(dataset, bad_share)
    print_left_out(dataset)
    return dataset


def parse(command: type[Command], arguments: list[str], **settings: Any) -> Command:
    """The flags of a verb. settings: of `tyro.cli`. Raises ConfigError for a number out of its bounds."""
    parsed: Command = tyro.cli(command, prog=f"fssd {command.__name__.lower()}", args=arguments, **settings)
    check_bounds(parsed)
    return parsed

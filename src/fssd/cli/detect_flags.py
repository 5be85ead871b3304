"""The flags of `fssd detect`."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any

import tyro

from fssd.cli.options import (
    FLAT,
    BatchSize,
    Device,
    Flag,
    LiveFlags,
    Model,
    RuleFlags,
    Scales,
    ThresholdFlags,
    TileFlags,
    TrackFlags,
)
from fssd.config.bounds import Count
from fssd.engines import Engine


@dataclass(frozen=True)
class Detect:
    """Find objects in images, folders, patterns and videos; write pictures and JSON."""

    model: Model
    images: Annotated[tuple[str, ...], tyro.conf.Positional]
    """Image and video files, folders, or patterns such as "shots/**/*.jpg"; or one live source, whose
    detections are lines of JSON on stdout: the number of a camera, an rtsp or http address, - for stdin."""
    out: str = "found"
    """Folder for the results; with --engine also one in S3, s3://BUCKET/FOLDER."""
    thresholds: Annotated[ThresholdFlags, FLAT] = ThresholdFlags()
    """The score is 0.5 by default, or what `fssd eval --keep-thresholds` wrote into the model."""
    rules: Annotated[RuleFlags, FLAT] = RuleFlags()
    tiling: Annotated[TileFlags, FLAT] = TileFlags()
    voc: Flag = False
    """Write VOC result files too, with the image's stem as id (numbered where two share it)."""
    coco: Flag = False
    """Write a COCO result json too; image ids are the stems, category ids count from 1."""
    pictures: bool = True
    """Write the drawn pictures."""
    tracking: Annotated[TrackFlags, FLAT] = TrackFlags()
    live: Annotated[LiveFlags, FLAT] = LiveFlags()
    scales: Scales = ()
    batch_size: BatchSize = 8
    device: Device = "auto"
    engine: Engine | None = None
    """For very many images: write parquet parts that any kill leaves whole, here or on a Ray cluster."""
    part: Count | None = None
    """Images in a part, with --engine (1,000): the most that is computed twice."""
    actors: Count | None = None
    """Processes that detect, with --engine ray; as many as the cluster has CPUs."""

    def given(self) -> dict[str, Any]:
        """The settings of a detector that were given."""
        return {**self.thresholds.given(), **self.rules.given(), **self.tiling.given()}

    @property
    def folder(self) -> Path:
        """`out` as a path on a disk."""
        return Path(self.out)

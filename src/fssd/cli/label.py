"""fssd label MODEL IMAGES... --to FORMAT --out DIR; exit code 1 if an input could not be read."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

import tyro

from fssd.cli.options import (
    FLAT,
    BatchSize,
    Device,
    Flag,
    Model,
    ThresholdFlags,
    TileFlags,
    parse,
    reachable_score,
    show_progress,
)
from fssd.cli.result import add_result
from fssd.counted import counted


@dataclass(frozen=True)
class Label:
    """Draft labels with a model, in the format of the annotation tool in which a person corrects them."""

    model: Model
    images: Annotated[tuple[str, ...], tyro.conf.Positional]
    """Image files, folders, or patterns such as "shots/**/*.jpg"."""
    to: str
    """voc, yolo, coco, labelme, cvat, label-studio or createml."""
    out: Path
    """New folder for pictures and labels."""
    thresholds: Annotated[ThresholdFlags, FLAT] = ThresholdFlags(score=0.3)
    link: Flag = False
    """Link the pictures instead of copying them."""
    upright: Flag = False
    """Turn the pixels of pictures that EXIF turns, for software that ignores EXIF."""
    tiling: Annotated[TileFlags, FLAT] = TileFlags()
    batch_size: BatchSize = 8
    device: Device = "auto"


def run(arguments: list[str]) -> int:
    """Detect in every image and write drafts; one that cannot be read is reported and left out."""
    command = parse(Label, arguments)
    from fssd.atomic import require_writable_folder
    from fssd.data.writers.convert import find_writer
    from fssd.data.writers.new_folder import require_new
    from fssd.inference.detector import Detector
    from fssd.inference.draft import draft_labels
    from fssd.inference.inputs import find_stills

    find_writer(command.to)
    require_new(command.out)
    require_writable_folder(command.out)
    files, others = find_stills(command.images)
    detector = Detector.load(command.model, device=command.device)
    thresholds = command.thresholds.given()
    if "score" in thresholds:
        thresholds["score"] = reachable_score(command.model, thresholds["score"], detector.least_score)
    made = draft_labels(
        detector,
        files,
        command.to,
        command.out,
        model=command.model.as_posix(),
        link=command.link,
        upright=command.upright,
        track=show_progress,
        batch_size=command.batch_size,
        **thresholds,
        **command.tiling.given(),
    )
    images = list(made.content.images)
    for note in made.notes:
        print(f"note: {note}")
    objects = sum(len(image.record.labels) for image in images)
    total, drafted = len(files) + others, counted(objects, "object")
    print(f"{len(images)} of {total} inputs done, {drafted} drafted, written: {command.out}")
    add_result(inputs=total, done=len(images), objects=objects, out=command.out, notes=made.notes)
    return 0 if len(images) == total else 1

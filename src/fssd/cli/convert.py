"""fssd convert DATA --to FORMAT --out DIR"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

import tyro

from fssd.cli.options import BadShare, Flag, parse, show_progress
from fssd.cli.result import add_result
from fssd.counted import counted


@dataclass(frozen=True)
class Convert:
    """Write a data set in the format of another tool, and say what that format cannot hold."""

    data: Annotated[Path, tyro.conf.Positional]
    """Data set, in any form that `fssd train` takes."""
    to: str
    """voc, yolo, coco, labelme, cvat, label-studio or createml."""
    out: Path
    """New folder for pictures and labels."""
    images: Path | None = None
    """Folder of the pictures, where they do not lie beside their labels."""
    splits: tuple[str, ...] = ()
    """Splits to write; by default all; "none" for every image, without splits."""
    link: Flag = False
    """Link the pictures instead of copying them."""
    upright: Flag = False
    """Turn the pixels of pictures that EXIF turns, for software that ignores EXIF."""
    bad_share: BadShare = 0.02


def run(arguments: list[str]) -> int:
    command = parse(Convert, arguments)
    from fssd.data.writers.convert import convert_data

    made = convert_data(
        command.data,
        command.to,
        command.out,
        splits=command.splits,
        images=command.images,
        link=command.link,
        upright=command.upright,
        bad_share=command.bad_share,
        track=show_progress,
    )
    splits = {}
    for split, images in made.content.splits.items():
        objects = sum(len(image.record.labels) for image in images)
        print(f"{split or 'all'}: {counted(len(images), 'image')}, {counted(objects, 'object')}")
        splits[split or "all"] = {"images": len(images), "objects": objects}
    for note in made.notes:
        print(f"note: {note}")
    print(f"written: {command.out}, {counted(len(made.content.classes), 'class')}")
    add_result(out=command.out, classes=made.content.classes, splits=splits, notes=made.notes)
    return 0

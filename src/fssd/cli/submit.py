"""fssd submit MODEL --data DATA --to voc2007|voc2012|coco --out FILE [--split test]"""

from __future__ import annotations

import sys
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Annotated, Literal

from fssd.cli.options import FLAT, Device, Loading, Model, Thresholds, parse


@dataclass(frozen=True)
class Submit:
    """Detect on a test split, labelled or not, and pack the results for an evaluation server."""

    model: Model
    data: Path
    """VOCdevkit or VOC folder, COCO folder or image_info json."""
    to: Literal["voc2007", "voc2012", "coco"]
    """The server."""
    out: Path
    """Archive to write, .tar.gz for VOC and .zip for COCO; in a folder it gets the usual name."""
    split: str | None = None
    """Split to detect on; by default test for VOC, test-dev2017 for COCO."""
    competition: Literal["comp3", "comp4"] = "comp4"
    """VOC: comp3 if trained on its own images alone, comp4 if on others too."""
    name: str = "fssd"
    """COCO: name of the method, a part of the file's name."""
    thresholds: Annotated[Thresholds, FLAT] = Thresholds()
    loading: Annotated[Loading, FLAT] = Loading()
    device: Device = "auto"


def run(arguments: list[str]) -> int:
    """Detect, write the archive, say where it is."""
    command = parse(Submit, arguments)
    from rich.console import Console
    from rich.progress import track

    from fssd.atomic import make_folder
    from fssd.evaluation.submit import (
        archive_path,
        open_split,
        require_classes,
        write_coco_archive,
        write_voc_archive,
    )
    from fssd.inference.detector import Detector

    split = open_split(command.data, command.to, command.split)
    file = archive_path(command.out, split, command.name)
    detector = Detector.load(command.model, device=command.device)
    require_classes(detector.classes, split.dataset.classes, command.to)
    make_folder(file.parent)
    stream = detector.evaluate_on(split.dataset, **asdict(command.loading), **asdict(command.thresholds))
    console = Console(stderr=True)
    total = len(split.dataset)
    found = list(track(stream, "detecting", total=total, console=console, disable=not console.is_terminal))
    if command.to == "coco":
        write_coco_archive(file, split, found, command.name)
        _note_name(file, archive_path(file.parent, split, command.name))
    else:
        write_voc_archive(file, split, found, command.competition)
    print(f"{total} images of {split.name}, {sum(map(len, found))} detections: {file}")
    return 0


def _note_name(file: Path, usual: Path) -> None:
    if file.name != usual.name:
        print(f"note: COCO's server wants the archive to be called {usual.name}", file=sys.stderr)

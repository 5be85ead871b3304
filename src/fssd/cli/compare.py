"""fssd compare MODEL_A MODEL_B IMAGES... [--out compare.png]"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

import tyro

from fssd.cli.eval import check_counts, check_thresholds
from fssd.errors import ConfigError, DataError


@dataclass(frozen=True)
class Compare:
    """Draw what two models find in the same images, one row each, as the paper's Fig. 6."""

    model_a: Annotated[Path, tyro.conf.Positional]
    """Model file, the folder of a run, or a packaged model, of the upper row."""
    model_b: Annotated[Path, tyro.conf.Positional]
    """The same for the lower row; it may know other classes."""
    images: Annotated[tuple[str, ...], tyro.conf.Positional]
    """Image files, folders, or patterns such as "shots/**/*.jpg"."""
    out: Path = Path("compare.png")
    """Picture, .png or .jpg."""
    score: float = 0.5
    """Show detections that score more than this."""
    nms: float = 0.45
    """Overlap above which the weaker of two detections of one class is dropped."""
    columns: int = 4
    """Images side by side; more of them make further pairs of rows."""
    cell: int = 320
    """Width of an image in the picture, pixels."""
    device: str = "auto"
    """cpu, cuda, or auto."""


def run(arguments: list[str]) -> int:
    """Detect with both models and write the picture."""
    command = tyro.cli(Compare, prog="fssd compare", args=arguments)
    check_thresholds(score=command.score, nms=command.nms)
    check_counts(columns=command.columns)
    check_counts(32, cell=command.cell)
    from fssd.checkpoint import model_file
    from fssd.compare import PICTURE_SUFFIXES, check_room, compose, fit, write_picture
    from fssd.detector import Detector
    from fssd.inputs import find_inputs
    from fssd.plots import check_suffix, model_names

    check_suffix(command.out, PICTURE_SUFFIXES)
    models = [model_file(model).resolve() for model in (command.model_a, command.model_b)]
    if models[0] == models[1]:
        raise ConfigError(f"{command.model_a}: is given twice; name two models")
    files = find_inputs(command.images)
    _check_images(files, command.out)
    check_room(len(files), len(models), command.columns, command.cell)
    rows = []
    for model, name in zip(models, model_names(models), strict=True):
        detector = Detector.load(model, device=command.device)
        stream = detector.stream(files, score=command.score, nms=command.nms)
        # Fitted at once: photographs at their full size would fill the memory.
        rows.append([fit(found, command.cell) for found in stream])
        print(f"{name}: {sum(map(len, rows[-1]))} objects in {len(files)} images")
    write_picture(command.out, compose(rows, model_names(models), command.columns, command.cell))
    print(f"picture in {command.out}")
    return 0


def _check_images(files: list[Path], out: Path) -> None:
    """Raise DataError for no image or a video, ConfigError for one that the result would replace."""
    from fssd.inputs import is_video

    if not files:
        raise DataError("there is nothing to look at; name images or folders")
    for file in files:
        if is_video(file):
            raise DataError("is a video; compare takes images", file=file)
        if file.resolve() == out.resolve():
            raise ConfigError(f"{out}: is an input and would be written over; choose another --out")

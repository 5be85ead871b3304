"""fssd pick MODEL IMAGES... --count N [--out FILE] [--copy DIR]; exit code 1 if one cannot be read."""

from __future__ import annotations

import os
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import tyro

from fssd.cli.options import (
    FLAT,
    BatchSize,
    Device,
    Flag,
    Model,
    TileFlags,
    parse,
    reachable_score,
    show_progress,
)
from fssd.cli.result import add_result
from fssd.config.bounds import Count, Share
from fssd.errors import ConfigError, DataError

if TYPE_CHECKING:
    from fssd.data.duplicates import Thumbnail


@dataclass(frozen=True)
class Pick:
    """Choose the images most worth labelling: those the model is least sure of, and unlike each other."""

    model: Model
    images: Annotated[tuple[str, ...], tyro.conf.Positional]
    """Image files, folders, or patterns such as "shots/**/*.jpg"."""
    count: Count
    """How many images to choose; copies and near-duplicates of chosen ones are passed over."""
    out: Path | None = None
    """Write the paths to this file too, one a line."""
    copy: Path | None = None
    """New folder to copy the chosen images into."""
    link: Flag = False
    """Link the images in the folder of --copy instead of copying them."""
    score: Annotated[Share, tyro.conf.arg(help="Detections that score less do not count.")] = 0.05
    tiling: Annotated[TileFlags, FLAT] = TileFlags()
    batch_size: BatchSize = 8
    device: Device = "auto"


def run(arguments: list[str]) -> int:
    """Print each chosen image with its uncertainty, the most worth labelling first."""
    command = parse(Pick, arguments)
    from fssd.atomic import atomic_write, require_writable, require_writable_folder
    from fssd.cli.options import spare_inputs
    from fssd.data.writers.new_folder import require_new
    from fssd.inference.inputs import find_stills
    from fssd.inference.pick import pick
    from fssd.weights.checkpoint import model_file

    if command.link and command.copy is None:
        raise ConfigError("--link is for the folder of --copy; give both")
    if command.copy is not None:
        require_new(command.copy)
        require_writable_folder(command.copy)
    files, others = find_stills(command.images)
    if command.out is not None:
        spare_inputs([*files, model_file(command.model)], [command.out])
        require_writable(command.out)
    seen, uncertainties, thumbnails = _look(command, files)
    if not seen:
        raise DataError("none of the images can be read")
    chosen = pick(uncertainties, thumbnails, command.count)
    for index in chosen:
        print(f"{seen[index]}\t{uncertainties[index]:.3f}")
    add_result(images=[{"image": seen[index], "uncertainty": uncertainties[index]} for index in chosen])
    _note_fewer(command.count, len(chosen), len(seen))
    paths = [seen[index] for index in chosen]
    if command.out is not None:
        atomic_write(command.out, os.fsencode("".join(f"{path}\n" for path in paths)))
    if command.copy is not None:
        _copy(paths, command.copy, command.link)
    return 0 if len(seen) == len(files) + others else 1


def _look(command: Pick, files: list[Path]) -> tuple[list[Path], list[float], list[Thumbnail]]:
    """The images that can be read, with the model's uncertainty and a thumbnail of each."""
    from fssd.data.duplicates import thumbnail
    from fssd.inference.detector import Detector
    from fssd.inference.inputs import read_images
    from fssd.inference.pick import uncertainty

    detector = Detector.load(command.model, device=command.device)
    readable: list[int] = []
    uncertainties, thumbnails = [], []
    tiling = command.tiling.given()
    images = read_images(show_progress(files, "looking"), readable, [], detector.windows(tiling))
    score = reachable_score(command.model, command.score, detector.least_score)
    for found in detector.stream(images, score=score, batch_size=command.batch_size, **tiling):
        uncertainties.append(uncertainty(found.scores))
        assert found.image is not None
        thumbnails.append(thumbnail(found.image))
    return [files[index] for index in readable], uncertainties, thumbnails


def _note_fewer(count: int, chosen: int, images: int) -> None:
    if chosen == count:
        return
    alike = f"; {images - chosen} are near-duplicates of those and left out" if chosen < images else ""
    print(f"note: {chosen} of the {count} asked for: there are {images} images{alike}", file=sys.stderr)


def _copy(paths: list[Path], folder: Path, link: bool) -> None:
    from fssd.data.sample import background_record
    from fssd.data.writers.new_folder import new_folder, place_picture
    from fssd.data.writers.picture_names import PictureNames
    from fssd.data.writers.to_labelme import LABELME_WRITER

    records = [background_record(path.as_posix(), path) for path in paths]
    names = PictureNames(LABELME_WRITER).name({"": records})[""]  # each once, as deep as they lie
    with new_folder(folder) as root:
        for path, name in zip(paths, names, strict=True):
            place_picture(path, root / name, link)
    print(f"written: {folder}", file=sys.stderr)

"""fssd scenes FOLDER: digit scenes, a small data set to try things on."""

from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

import tyro

from fssd.cli.options import parse
from fssd.cli.result import add_result


@dataclass(frozen=True)
class Scenes:
    """Write digit scenes in Pascal VOC layout: handwritten digits at many scales in photographs."""

    folder: Annotated[Path, tyro.conf.Positional]
    """Folder to make."""
    train: int = 600
    """Scenes to train on."""
    val: int = 150
    """Scenes to measure on, of other digits and other photographs."""
    seed: int = 0
    """Equal seeds give equal scenes."""
    size: int = 300
    """Side of the images, pixels."""


def run(arguments: list[str]) -> int:
    command = parse(Scenes, arguments)
    from fssd.data.scenes import make_scenes

    counts = {"train": command.train, "val": command.val}
    folder = make_scenes(command.folder, **counts, seed=command.seed, size=command.size)
    print(f"scenes: {folder}")
    add_result(folder=folder)
    return 0

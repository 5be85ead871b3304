"""fssd why MODEL PHOTO [--box x1,y1,x2,y2] [--json FILE] [--out FILE]"""

from __future__ import annotations

import math
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import tyro

from fssd.cli.options import FLAT, Device, Model, ThresholdFlags, note_without_tiles, parse, spare_inputs
from fssd.cli.result import add_document
from fssd.errors import ConfigError

if TYPE_CHECKING:
    from fssd.inference.why import Sought


@dataclass(frozen=True)
class Why:
    """Explain detections: the level, prior and maps that made each, and what became of a missed object."""

    model: Model
    photo: Annotated[Path, tyro.conf.Positional]
    """Image file."""
    box: tuple[str, ...] = ()
    """Objects to explain, each as x1,y1,x2,y2 in pixels of the image, or x1,y1,x2,y2,NAME with its class."""
    json: Path | None = None
    """Write the explanation to this file too; without a name print it as JSON, and all else to stderr."""
    out: Path = Path("why.jpg")
    """File for the picture."""
    thresholds: Annotated[ThresholdFlags, FLAT] = ThresholdFlags()
    """The score is 0.5 by default, or what `fssd eval --keep-thresholds` wrote into the model."""
    device: Device = "auto"


def run(arguments: list[str]) -> int:
    command = parse(Why, arguments)
    sought = [read_box(text) for text in command.box]
    from fssd.atomic import atomic_write, require_writable
    from fssd.inference.detector import Detector
    from fssd.inference.draw import write_jpeg
    from fssd.inference.picture import as_array
    from fssd.inference.why import explain
    from fssd.inference.why_picture import why_picture
    from fssd.inference.why_text import why_json, why_text
    from fssd.weights.checkpoint import model_file

    if command.out.suffix.lower() not in (".jpg", ".jpeg"):
        raise ConfigError(f"--out {command.out}: the picture is a JPEG; end its name in .jpg")
    outputs = [command.out, *([] if command.json is None else [command.json])]
    image = as_array(command.photo)
    detector = Detector.load(command.model, device=command.device)
    spare_inputs([command.photo, model_file(command.model)], outputs)
    require_writable(*outputs)
    note_without_tiles(detector, "why")
    why = explain(detector, image, sought, **command.thresholds.given())
    print(why_text(why, str(command.photo)))
    add_document(why_json(why, str(command.photo)))
    write_jpeg(command.out, why_picture(why, image))
    if command.json is not None:
        atomic_write(command.json, why_json(why, str(command.photo)))
    print(f"\nwritten: {', '.join(map(str, outputs))}")
    return 0


def read_box(text: str) -> Sought:
    """x1,y1,x2,y2 or x1,y1,x2,y2,NAME. Raises ConfigError."""
    from fssd.inference.why import Sought

    parts = text.split(",", 4)
    try:
        x1, y1, x2, y2 = (float(part) for part in parts[:4])
    except ValueError as error:
        raise ConfigError(f"--box {text}: give four numbers, x1,y1,x2,y2 in pixels of the image") from error
    if not all(map(math.isfinite, (x1, y1, x2, y2))) or x1 >= x2 or y1 >= y2:
        raise ConfigError(f"--box {text}: x1 is left of x2 and y1 above y2, all finite; give x1,y1,x2,y2")
    name = parts[4].strip() if len(parts) > 4 else None
    if name == "":
        raise ConfigError(
            f"--box {text}: ends in a comma; give the name of a class after it, or leave it out"
        )
    return Sought((x1, y1, x2, y2), name)

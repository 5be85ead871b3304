"""Makes the packaged files of a finished run: half-precision and eight-bit weights, metrics and the card.

python tools/make_model.py runs/animals --data animals.yaml
"""

from __future__ import annotations

import json
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any

import tyro

from card import fill_part, metrics_table
from fssd.atomic import atomic_write
from fssd.data.sample import DataSet
from fssd.data.source import open_data
from fssd.errors import FssdError
from fssd.evaluation.evaluate import evaluate_detections
from fssd.export.half import export_half
from fssd.export.images import read_pictures
from fssd.export.trial import Trial
from fssd.export.write import export_model
from fssd.inference.detector import Detector
from fssd.weights.model_card import recipe
from fssd.zoo.models import FOLDER


@dataclass(frozen=True)
class Make:
    """Write the packaged files of a model; its card NAME.md must be in the folder."""

    run: Annotated[Path, tyro.conf.Positional]
    """Model file, or the folder of a run."""
    data: Path
    """The data set it was trained on: `train` for calibration, `val` for metrics."""
    name: str = "animals"
    """Name of the model."""
    folder: Path = FOLDER
    """Where the files are written."""


def make(command: Make) -> None:
    """Write NAME.safetensors, NAME-int8.xml and .bin, NAME.json and the generated parts of NAME.md.

    Raises ExportError if a file does not give the model's detections, or eight bits cost over a point of mAP.
    """
    half, eight = (command.folder / f"{command.name}{end}" for end in (".safetensors", "-int8.xml"))
    detector = Detector.load(command.run, device="cpu")
    train, val = open_data(command.data, "train"), open_data(command.data, "val")
    print(export_half(detector, half, _pictures(val, detector)))
    packed = Detector.load(half, device="cpu")
    done = export_model(packed, eight, "openvino", trial=Trial(_pictures(train, packed), val))
    assert done.maps is not None  # always measured for eight bits
    print("mAP {:.4f}, in eight bits {:.4f}".format(*done.maps))
    names = {command.name: packed, f"{command.name}-int8": Detector.load(eight)}
    reports = {name: _measure(one, val) for name, one in names.items()}
    atomic_write(half.with_suffix(".json"), json.dumps(reports, indent=2))
    write_card(half.with_suffix(".md"), reports, packed.facts.get("config", {}))


def write_card(card: Path, reports: dict[str, Any], config: dict[str, Any]) -> None:
    """Fill in the table of the metrics and the settings of the training."""
    text = fill_part(card.read_text(encoding="utf-8"), "metrics", metrics_table(reports))
    atomic_write(card, fill_part(text, "recipe", recipe(config)))


def _pictures(dataset: DataSet, detector: Detector) -> Any:
    return read_pictures([record.path for record in dataset.records], detector.geometry)


def _measure(detector: Detector, dataset: DataSet) -> Any:
    report = evaluate_detections(dataset, list(detector.evaluate_on(dataset)), "voc12")
    return json.loads(report.to_json())


if __name__ == "__main__":
    try:
        make(tyro.cli(Make, prog="python tools/make_model.py"))
    except FssdError as error:
        sys.exit(f"error: {error}")

"""FSSD and SSD object detectors: train on your own images, evaluate as the papers do, detect.

    det = fssd.Detector.load("runs/bccd/best.safetensors")
    found = det("street.jpg")
    found.boxes, found.scores, found.labels, found.names, found.draw()

Names are imported when first used, so that `import fssd` and `fssd --help` do not wait for torch.
`fssd.export` is a package of modules; the function that exports is `fssd.export_model`.
"""

from __future__ import annotations

from importlib.metadata import PackageNotFoundError, version
from pkgutil import resolve_name
from typing import TYPE_CHECKING, Any

from fssd.errors import (
    CheckpointError,
    ConfigError,
    DataError,
    FssdError,
    ImageError,
    LabelError,
    TrainingError,
)

if TYPE_CHECKING:
    from fssd.config.train_config import TrainConfig
    from fssd.data.source import open_data
    from fssd.evaluation.detection_files import read_detections
    from fssd.evaluation.evaluate import evaluate_detections as evaluate
    from fssd.export.write import export_model
    from fssd.inference.detections import Detections
    from fssd.inference.detector import Detector
    from fssd.model.build import build_model
    from fssd.training.loop import train

__all__ = [
    "CheckpointError", "ConfigError", "DataError", "Detections", "Detector", "FssdError", "ImageError",
    "LabelError", "TrainConfig", "TrainingError", "build_model", "evaluate", "export_model", "open_data",
    "read_detections", "train",
]  # fmt: skip
try:
    __version__ = version("fssd")
except PackageNotFoundError:  # frozen, zipped or copied without its metadata
    __version__ = "unknown"

_SOURCES = {
    "Detections": "fssd.inference.detections:Detections",
    "Detector": "fssd.inference.detector:Detector",
    "TrainConfig": "fssd.config.train_config:TrainConfig",
    "build_model": "fssd.model.build:build_model",
    "evaluate": "fssd.evaluation.evaluate:evaluate_detections",
    "export_model": "fssd.export.write:export_model",
    "open_data": "fssd.data.source:open_data",
    "read_detections": "fssd.evaluation.detection_files:read_detections",
    "train": "fssd.training.loop:train",
}


def __getattr__(name: str) -> Any:
    if name not in _SOURCES:
        raise AttributeError(f"module 'fssd' has no attribute {name!r}")
    return resolve_name(_SOURCES[name])

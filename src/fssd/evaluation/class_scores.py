"""The best threshold of each class, kept in a model file as the default of detection."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from fssd.data.sample import DataSet
from fssd.errors import ConfigError
from fssd.evaluation.evaluate import relabel
from fssd.evaluation.pairing import judge
from fssd.evaluation.scores import best_threshold, sweep_classes
from fssd.inference.detections import Detections
from fssd.inference.detector import Detector
from fssd.runtimes.runner import NetworkRunner
from fssd.weights.checkpoint import model_file, write_facts

MARGIN = 1e-3  # ten times what an exported file's scores may differ by


def require_own_model(path: Path, detector: Detector | None) -> None:
    """Raise ConfigError for a model that settings cannot be written into."""
    if detector is None or not isinstance(detector.runner, NetworkRunner):
        raise ConfigError(
            f"{path}: is no PyTorch model; --keep-thresholds and --keep-tiles need one, export it again then"
        )
    if not path.exists():  # a name or an address: its file has a known digest, or belongs to a cache
        copy = f"copy {model_file(path)} and name the copy"
        raise ConfigError(f"{path}: a model that goes by name is not changed; {copy}")


def best_class_scores(dataset: DataSet, found: Sequence[Detections], iou: float) -> dict[str, float]:
    """By class, what detections must exceed for the best F1; none for a class never found."""
    judgement = judge(dataset, [relabel(one, dataset.classes) for one in found], iou)
    best: dict[str, float] = {}
    for label, (name, curve) in enumerate(zip(dataset.classes, sweep_classes(judgement), strict=True)):
        one = best_threshold(curve)
        if np.isfinite(one.f1):
            scores = judgement.found.score[judgement.found.label == label]
            best[name] = _below(one.threshold, scores)
    return best


def _below(lowest: float, scores: npt.NDArray[np.floating[Any]]) -> float:
    """A threshold under the lowest score to keep: half way to the next one, but `MARGIN` at most.

    A detector keeps what scores more than its threshold, and another batch size or runtime moves scores.
    """
    following = float(scores[scores < lowest].max(initial=0))
    threshold = lowest - min((lowest - following) / 2, MARGIN)
    return float(min(np.float32(threshold), np.nextafter(np.float32(lowest), np.float32(0))))


def write_class_scores(file: Path, scores: Mapping[str, float]) -> None:
    """Write thresholds into a model file, whose weights stay as they are."""
    write_facts(file, {"class_scores": dict(scores)})

"""The state that the routes share: the model, its settings and limits, the metrics."""

import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from fssd import __version__
from fssd.errors import ConfigError
from fssd.inference.detector import Detector
from fssd.inference.draw import class_colour
from fssd.runtimes.header import size_value
from fssd.runtimes.runner import FileRunner
from fssd.serve.limits import Gate, ServerLimits
from fssd.serve.metrics import Metrics
from fssd.serve.pipeline import DetectOptions, ImageResult, Pipeline
from fssd.serve.refusals import RequestError
from fssd.zoo.models import PHOTOS

SCORE = 0.5  # where neither a request, the server nor the model says another
SAMPLED = {"cat", "person"}  # the classes in the sample photographs of the package


@dataclass(frozen=True)
class Settings:
    """The settings of all requests.

    runtime: its name, for people. score: objects score more than this, unless a request gives another value;
    None for 0.5, or the thresholds that the model keeps for its classes. most: the most objects in an answer.
    batch: the most images computed together. delay: seconds that an image waits for others that are being
    prepared. name: of the model, in the addresses of the Open Inference Protocol. tiling: see `Pipeline`.
    """

    runtime: str = "torch"
    score: float | None = None
    most: int = 200
    batch: int = 8
    delay: float = 0.005
    limits: ServerLimits = field(default_factory=ServerLimits)
    name: str = "model"
    tiling: Mapping[str, Any] = field(default_factory=dict)


class Service:
    """A model being served. detectors: of one model, one for each batch that is computed at the same time.

    Raises ConfigError for a score below that of a file with NMS inside.
    """

    def __init__(self, detectors: Sequence[Detector], settings: Settings) -> None:
        self.settings = settings
        self.limits = settings.limits
        self.name = settings.name
        self.gate = Gate(self.limits)
        self.metrics = Metrics()
        self.detector = detectors[0]
        self.tiles = self.detector.tiling(settings.tiling)
        self.pipeline = Pipeline(
            detectors, self.limits, batch=settings.batch, delay=settings.delay, tiling=settings.tiling
        )
        runner = self.detector.runner
        inside = runner.thresholds if isinstance(runner, FileRunner) else None
        self.least_score = self.detector.least_score
        self.score = SCORE if settings.score is None else settings.score
        self.class_scores = self.detector.class_scores if settings.score is None else {}
        if self.score < self.least_score:
            raise ConfigError(f"this file has NMS inside, for scores above {self.least_score}; raise --score")
        self.most = settings.most if inside is None else min(settings.most, inside.keep)
        if self.most < settings.most:
            print(f"note: the file has NMS inside: at most {self.most} objects an image", file=sys.stderr)
        gauge = self.metrics.gauge
        gauge("fssd_queue_images", "Images accepted and not yet answered.", lambda: self.gate.images)
        gauge("fssd_queue_limit", "The most images accepted at a time.", lambda: self.limits.queue)
        gauge("fssd_body_bytes", "Bytes of bodies held in memory.", lambda: self.gate.bytes)

    def options(self, score: float | None, most: int | None) -> DetectOptions:
        """The options of a request, None replaced by the default. Raises RequestError if out of range."""
        if score is not None and score < self.least_score:
            message = f"score: this model reports objects above {self.least_score:g} only."
            raise RequestError("bad_parameter", message)
        if most is not None and most > self.most:
            raise RequestError("bad_parameter", f"max: at most {self.most} objects are reported.")
        most = self.most if most is None else most
        if score is None:
            return DetectOptions(self.score, most, self.class_scores)
        return DetectOptions(score, most)

    def count(self, result: ImageResult) -> None:
        self.metrics.images.inc()
        self.metrics.batch_images.observe(result.batch)
        for stage, seconds in result.seconds.items():
            self.metrics.stage_seconds.labels(stage).observe(seconds)
        for name in result.found.names:
            self.metrics.objects.labels(name).inc()

    def _precision(self) -> str:
        """That of the computation: weights in half precision are widened when PyTorch reads them."""
        is_file = isinstance(self.detector.runner, FileRunner)
        return str(self.detector.facts.get("precision", "fp32")) if is_file else "fp32"

    def describe(self) -> dict[str, Any]:
        """The answer of `/model`: the model and its limits, nothing about the machine or the file's path."""
        facts = self.detector.facts
        return {
            "model": str(facts.get("model", "fssd")),
            "runtime": self.settings.runtime,
            "precision": self._precision(),
            "image_size": size_value(self.detector.image_size),
            "classes": [
                {"name": name, "colour": "#{:02x}{:02x}{:02x}".format(*class_colour(index))}
                for index, name in enumerate(self.detector.classes)
            ],
            "score": self.score,
            "class_scores": self.class_scores,
            "least_score": self.least_score,
            "max": self.most,
            "tiles": None if self.tiles is None else self.tiles.facts(),
            "limits": {
                "body_bytes": self.limits.body,
                "pixels": self.limits.pixels,
                "images": self.limits.batch,
                "seconds": self.limits.seconds,
            },
            "samples": [photo.name for photo in PHOTOS] if SAMPLED & set(self.detector.classes) else [],
            "version": __version__,
        }

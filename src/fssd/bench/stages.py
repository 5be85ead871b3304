"""The way of a batch from files to detections, in steps that can be timed one by one."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from fssd.bench.photographs import Photographs
from fssd.bench.subject import Subject
from fssd.bench.timing import Step, take_turns
from fssd.data.decode import decode_image
from fssd.data.sample import Image
from fssd.inference.detections import Detections

STAGES = ("decode", "preprocess", "network", "postprocess")
WHOLES = ("arrays", "files")


@dataclass(frozen=True)
class Timed:
    """Seconds of a batch, by step, and how many detections each image had, in the order they were seen."""

    seconds: dict[str, list[float]]
    detections: list[int]


def time_stages(
    subject: Subject, pictures: Photographs, batch: int, score: float, repeats: int, warm_up: int
) -> Timed:
    """Time each of `STAGES`, and the whole from decoded images ("arrays") and from files ("files").

    A turn takes one batch through all of them; the next turn takes the next images. score: as in
    `Detector.__call__`.
    """
    way = _Way(subject, pictures, batch, score)
    seconds = take_turns(way.steps(), repeats, warm_up)
    return Timed(seconds, way.counts[warm_up * batch :])


def network_step(subject: Subject, pictures: Photographs, batch: int) -> Step:
    """The network alone, on one batch that is ready for it."""
    way = _Way(subject, pictures, batch, score=1.0)
    way.decode()
    way.preprocess()
    return way.network


class _Way:
    """One batch; each step leaves what the next one takes."""

    def __init__(self, subject: Subject, pictures: Photographs, batch: int, score: float) -> None:
        self.detector = subject.detector
        self.device = subject.device
        self.pictures = pictures
        self.batch = batch
        self.score = score
        self.turn = 0
        self.places: list[int] = []
        self.images: Sequence[Image] = ()
        self.warped: Tensor | None = None
        self.predicted: Any = None
        self.counts: list[int] = []

    def steps(self) -> dict[str, Step]:
        return {
            "decode": self.decode,
            "preprocess": self.preprocess,
            "network": self.network,
            "postprocess": self.postprocess,
            "arrays": self.from_arrays,
            "files": self.from_files,
        }

    def decode(self) -> None:
        self.places = self.pictures.places(self.turn, self.batch)
        self.turn += 1
        contents, files = self.pictures.contents, self.pictures.files
        self.images = [decode_image(contents[place], files[place]) for place in self.places]

    def preprocess(self) -> None:
        self.warped = self.detector.warp(self.images)

    def network(self) -> None:
        assert self.warped is not None
        self.predicted = self.detector.runner.predict(self.warped)
        if self.device.type == "cuda":
            torch.cuda.synchronize(self.device)  # it has only been asked for until then

    def postprocess(self) -> None:
        sizes = [(image.shape[1], image.shape[0]) for image in self.images]
        found = self.detector.finish(self.predicted, sizes, score=self.score)
        self.counts += [len(one) for one in found]

    def from_arrays(self) -> list[Detections]:
        return self.detector(self.images, batch_size=self.batch, score=self.score)

    def from_files(self) -> list[Detections]:
        files = [self.pictures.files[place] for place in self.places]
        return self.detector(files, batch_size=self.batch, score=self.score)

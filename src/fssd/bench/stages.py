"""A batch from files to detections, in stages that can be timed separately."""

from __future__ import annotations

from dataclasses import dataclass

import torch

from fssd.bench.photographs import Photographs
from fssd.bench.subject import Subject
from fssd.bench.timing import Step, take_turns
from fssd.data.decode import decode_image
from fssd.inference.detections import Detections

STAGES = ("decode", "preprocess", "network", "postprocess")
WHOLES = ("arrays", "files")


@dataclass(frozen=True)
class Timed:
    """Seconds per batch for each step, and the number of detections of each image, in order."""

    seconds: dict[str, list[float]]
    detections: list[int]


def time_stages(
    subject: Subject, pictures: Photographs, batch: int, score: float, repeats: int, warm_up: int
) -> Timed:
    """Time each of `STAGES`, and the whole from decoded images ("arrays") and from files ("files").

    Each turn takes the next batch of images through all steps. score: threshold, see `Detector.__call__`.
    """
    batches = _Batches(subject, pictures, batch, score)
    steps: dict[str, Step] = {name: getattr(batches, name) for name in (*STAGES, *WHOLES)}
    seconds = take_turns(steps, repeats, warm_up)
    return Timed(seconds, batches.counts[warm_up * batch :])


def network_step(subject: Subject, pictures: Photographs, batch: int) -> Step:
    """The network alone, on one prepared batch."""
    batches = _Batches(subject, pictures, batch, score=1.0)
    batches.decode()
    batches.preprocess()
    return batches.network


def whole_steps(subject: Subject, pictures: Photographs, batch: int, score: float) -> dict[str, Step]:
    """The network alone, and the whole from decoded images, both on the same batch in every turn."""
    batches = _Batches(subject, pictures, batch, score)
    batches.decode()
    batches.preprocess()
    return {"network": batches.network, "arrays": batches.arrays}


class _Batches:
    """The current batch of images. Each stage stores what the next one needs."""

    def __init__(self, subject: Subject, pictures: Photographs, batch: int, score: float) -> None:
        self.detector, self.device = subject.detector, subject.device
        self.pictures = pictures
        self.batch = batch
        self.score = score
        self.turn = 0
        self.counts: list[int] = []

    def decode(self) -> None:
        self.indices = self.pictures.indices(self.turn, self.batch)
        self.turn += 1
        contents, files = self.pictures.contents, self.pictures.files
        self.images = [decode_image(contents[index], files[index]) for index in self.indices]

    def preprocess(self) -> None:
        self.warped = self.detector.warp(self.images)

    def network(self) -> None:
        self.predicted = self.detector.runner.predict(self.warped)
        if self.device.type == "cuda":
            torch.cuda.synchronize(self.device)  # until then it has only been queued

    def postprocess(self) -> None:
        sizes = [(image.shape[1], image.shape[0]) for image in self.images]
        found = self.detector.finish(self.predicted, sizes, score=self.score)
        self.counts += [len(one) for one in found]

    def arrays(self) -> list[Detections]:
        return self.detector(self.images, batch_size=self.batch, score=self.score, tiles="none")

    def files(self) -> list[Detections]:
        files = [self.pictures.files[index] for index in self.indices]
        return self.detector(files, batch_size=self.batch, score=self.score, tiles="none")

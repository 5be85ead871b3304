"""From the bytes of an image to its detections: decoding in threads, the network in batches.

    bytes -> check, decode, warp -> batch -> network -> finish -> Found
             a thread for each core   its own thread      a thread for each core

A decoded image is let go once it is warped, so that what waits is small; for a picture it is decoded again.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import partial
from typing import Any, NamedTuple, ParamSpec, TypeVar

import torch
from torch import Tensor

from fssd.inference.detections import Detections
from fssd.inference.detector import Detector
from fssd.inference.detections import draw_detections
from fssd.runtimes.cores import usable_cores
from fssd.serve.answers import encode_png
from fssd.serve.batching import Batcher, Predict, batch_sizes
from fssd.serve.limits import Limits
from fssd.serve.uploads import check_image, decode_upload

P = ParamSpec("P")
T = TypeVar("T")


class Ask(NamedTuple):
    """score: objects score more than this. most: objects in an answer, the best ones."""

    score: float
    most: int


@dataclass(frozen=True)
class Looked:
    """What came of an image.

    found: the detections. width, height: pixels of the image, upright. batch: images computed with it.
    seconds: by stage.
    """

    found: Detections
    width: int
    height: int
    batch: int
    seconds: dict[str, float]


class _Prepared(NamedTuple):
    picture: Tensor  # (1, 3, S, S) uint8
    size: tuple[int, int]  # width, height
    seconds: dict[str, float]


class Pipeline:
    """The stages of detectors that stand for the same model, one for each batch to be computed at a time.

    batch: images in a batch at most. delay: seconds that an image waits for others that are on their way.
    """

    def __init__(self, detectors: Sequence[Detector], limits: Limits, *, batch: int, delay: float) -> None:
        self.detector = detectors[0]
        self.limits = limits
        self.batch = batch
        self._detectors = detectors
        # torch counts threads by the thread that calls it. Here the network has all of them, and each image
        # one: the images are what is worked on in parallel there.
        cores = partial(torch.set_num_threads, torch.get_num_threads())
        self._batcher = Batcher([_predict_with(detector) for detector in detectors], batch, delay, cores)
        self._threads = ThreadPoolExecutor(
            usable_cores(), "fssd-image", initializer=torch.set_num_threads, initargs=(1,)
        )

    async def start(self) -> None:
        """Begin to work, in the event loop that this runs in."""
        await self._batcher.start()

    async def stop(self) -> None:
        """End, whatever is still waiting."""
        await self._batcher.stop()
        self._threads.shutdown(wait=False, cancel_futures=True)

    def warm_up(self) -> None:
        """Compute once with every size a batch can have: some runtimes compile when they first meet one."""
        side = self.detector.image_size
        for detector in dict.fromkeys(self._detectors):
            for size in batch_sizes(self.batch):
                detector.runner.predict(torch.zeros(size, 3, side, side, dtype=torch.uint8))

    async def run(self, work: Callable[P, T], *values: P.args, **named: P.kwargs) -> T:
        """Run something in one of the threads for images."""
        call = partial(work, *values, **named)
        return await asyncio.get_running_loop().run_in_executor(self._threads, call)

    async def detect(self, data: bytes, ask: Ask) -> Looked:
        """Detect in one image. Raises RequestError for one that may not be or cannot be decoded."""
        start = time.perf_counter()
        with self._batcher.coming():
            prepared = await self.run(self._prepare, data)
        predicted = await self._batcher.predict(prepared.picture)
        found, finishing = await self.run(self._finish, predicted.row, prepared.size, ask)
        seconds = {**prepared.seconds, "network": predicted.seconds, "finish": finishing}
        seconds["wait"] = max(0.0, time.perf_counter() - start - sum(seconds.values()))
        return Looked(found, *prepared.size, predicted.batch, seconds)

    async def draw(self, data: bytes, looked: Looked) -> bytes:
        """The image with its detections on it, as PNG."""
        return await self.run(self._draw, data, looked.found)

    def _prepare(self, data: bytes) -> _Prepared:
        start = time.perf_counter()
        check_image(data, self.limits)
        image = decode_upload(data, self.limits)
        decoded = time.perf_counter()
        picture = self.detector.warp([image])
        warped = time.perf_counter()
        size = (image.shape[1], image.shape[0])
        return _Prepared(picture, size, {"decode": decoded - start, "warp": warped - decoded})

    def _finish(self, row: Any, size: tuple[int, int], ask: Ask) -> tuple[Detections, float]:
        start = time.perf_counter()
        (found,) = self.detector.finish(row, [size], score=ask.score, keep=ask.most)
        return found, time.perf_counter() - start

    def _draw(self, data: bytes, found: Detections) -> bytes:
        return encode_png(draw_detections(decode_upload(data, self.limits), found))


def _predict_with(detector: Detector) -> Predict:
    def predict(pictures: Tensor) -> Sequence[Any]:
        return detector.runner.rows(detector.runner.predict(pictures))

    return predict

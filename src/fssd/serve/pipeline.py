"""From the bytes of an image to its detections: decoding in threads, the network in batches.

    bytes -> check, decode, warp -> batch -> network -> decode boxes, NMS -> Detections
             a thread for each core   its own thread      a thread for each core

A decoded image is released once it is warped, so that waiting images are small. If the answer is a picture,
the image is decoded again.
"""

import asyncio
import time
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import partial
from types import MappingProxyType
from typing import Any, NamedTuple, ParamSpec, TypeVar

import torch
from torch import Tensor

from fssd.data.geometry import Size
from fssd.data.loader import cut_tiles
from fssd.data.sample import Image
from fssd.data.tiles import Window
from fssd.errors import ImageError
from fssd.inference.detections import Detections, draw_detections
from fssd.inference.detector import Detector, size_of
from fssd.inference.draw import encode_png
from fssd.runtimes.cores import usable_cores
from fssd.serve.batching import Batcher, Predict, batch_sizes
from fssd.serve.limits import ServerLimits, all_of
from fssd.serve.refusals import RequestError
from fssd.serve.uploads import check_image, decode_upload

P = ParamSpec("P")
T = TypeVar("T")


class DetectOptions(NamedTuple):
    """score: objects score more than this, or than what `class_scores` has for their class. most: the most
    objects in an answer, the best ones."""

    score: float
    most: int
    class_scores: Mapping[str, float] = MappingProxyType({})


@dataclass(frozen=True)
class ImageResult:
    """The result for one image. width, height: pixels of it upright. batch: images computed together with it.
    seconds: by stage.
    """

    found: Detections
    width: int
    height: int
    batch: int
    seconds: dict[str, float]


class _Ready(NamedTuple):
    """An image that is ready for the network.

    inputs: (T, 3, H, W) uint8 of its tiles, one for the whole image. windows: the T tiles. size: (width,
    height) of the image. seconds: by stage.
    """

    inputs: Tensor
    windows: Sequence[Window]
    size: Size
    seconds: dict[str, float]


class Pipeline:
    """The stages from bytes to detections.

    detectors: of one model, one for each batch that is computed at the same time. batch: the largest batch.
    delay: seconds that an image waits for others that are being prepared. tiling: the settings of tiles of
    each detection; those that are missing are the model's own.
    """

    def __init__(
        self,
        detectors: Sequence[Detector],
        limits: ServerLimits,
        *,
        batch: int,
        delay: float,
        tiling: Mapping[str, Any] = MappingProxyType({}),
    ) -> None:
        self.detector = detectors[0]
        self._windows = self.detector.windows(tiling)
        self.limits = limits
        self.batch = batch
        self._detectors = detectors
        # torch's number of threads is a setting of the calling thread: all for the network, but one in the
        # threads for images, because these run in parallel themselves.
        all_threads = partial(torch.set_num_threads, torch.get_num_threads())
        self._batcher = Batcher([_predict_with(one) for one in detectors], batch, delay, all_threads)
        self._threads = ThreadPoolExecutor(usable_cores(), "fssd-image", torch.set_num_threads, (1,))

    async def start(self) -> None:
        await self._batcher.start()

    async def stop(self) -> None:
        """Stop without finishing the images that wait."""
        await self._batcher.stop()
        self._threads.shutdown(wait=False, cancel_futures=True)

    def warm_up(self) -> None:
        """Compute one batch of every possible size, because some runtimes compile the network for each."""
        width, height = self.detector.image_size
        for detector in dict.fromkeys(self._detectors):
            for size in batch_sizes(self.batch):
                detector.runner.predict(torch.zeros(size, 3, height, width, dtype=torch.uint8))

    async def run(self, work: Callable[P, T], *values: P.args, **named: P.kwargs) -> T:
        """Run something in one of the threads for images."""
        call = partial(work, *values, **named)
        return await asyncio.get_running_loop().run_in_executor(self._threads, call)

    async def detect(self, data: bytes | Image, ask: DetectOptions) -> ImageResult:
        """Detect in one image, a file's bytes or (H, W, 3) uint8 RGB.

        Its tiles wait for a batch as images do, so that they share batches with those of other images. Raises
        RequestError for an image that exceeds the limits or cannot be decoded.
        """
        start = time.perf_counter()
        with self._batcher.expect():
            ready = await self.run(self._prepare, data)
        predicted = await all_of(map(self._batcher.predict, torch.split(ready.inputs, 1)))
        rows = [one.row for one in predicted]
        found, finishing = await self.run(self._finish, rows, ready, ask)
        slowest = max(one.seconds for one in predicted)
        seconds = {**ready.seconds, "network": slowest, "finish": finishing}
        seconds["wait"] = max(0.0, time.perf_counter() - start - sum(seconds.values()))
        return ImageResult(found, *ready.size, max(one.batch for one in predicted), seconds)

    async def draw(self, data: bytes, found: Detections) -> bytes:
        """The image with its detections drawn on it, as a PNG."""
        return await self.run(lambda: encode_png(draw_detections(decode_upload(data, self.limits), found)))

    def _prepare(self, data: bytes | Image) -> _Ready:
        start = time.perf_counter()
        if isinstance(data, bytes):
            check_image(data, self.limits)
            image = decode_upload(data, self.limits)
        else:
            image = data
        decoded = time.perf_counter()
        size = size_of(image)
        try:
            windows = self._windows(size)
        except ImageError as error:
            raise RequestError("too_many_pixels", f"The image {error.reason}.") from None
        inputs = self.detector.warp(cut_tiles(image, windows))
        warped = time.perf_counter()
        return _Ready(inputs, windows, size, {"decode": decoded - start, "warp": warped - decoded})

    def _finish(self, rows: Sequence[Any], ready: _Ready, ask: DetectOptions) -> tuple[Detections, float]:
        start = time.perf_counter()
        settings = {"score": ask.score, "keep": ask.most, "class_scores": ask.class_scores}
        found = self.detector.finish_tiles(rows, ready.windows, ready.size, **settings)
        return found, time.perf_counter() - start


def _predict_with(detector: Detector) -> Predict:
    def predict(pictures: Tensor) -> Sequence[Any]:
        return detector.runner.rows(detector.runner.predict(pictures))

    return predict

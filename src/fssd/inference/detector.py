"""`Detector`: a trained model, from images to `Detections`.

det = fssd.Detector.load("runs/bccd/best.safetensors")
found = det("street.jpg")
found.boxes, found.scores, found.labels, found.names, found.draw()
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any, overload

import numpy as np
import PIL.Image
import torch
from torch import Tensor, nn

from fssd.data.decode import convert_picture, read_image
from fssd.data.geometry import Geometry
from fssd.data.loader import Pictures, picture_batches
from fssd.data.sample import DataSet, Image
from fssd.errors import ConfigError, ImageError
from fssd.heads.head import Found
from fssd.inference.detections import Detections
from fssd.model.network import Network
from fssd.runtimes.runner import NetworkRunner, Runner
from fssd.runtimes.table import open_runner, runtime_of
from fssd.weights.checkpoint import load_model
from fssd.zoo.models import find_model

Picture = str | Path | PIL.Image.Image | np.ndarray


class Detector:
    """A trained model with its class names, ready to use.

    model: a network, which is set to evaluation mode, or what runs an exported file. classes: names by label.
    facts: what its file says of it.
    """

    def __init__(
        self, model: Network | Runner, classes: Sequence[str], facts: dict[str, Any] | None = None
    ) -> None:
        self.runner: Runner = NetworkRunner(model) if isinstance(model, Network) else model
        self.classes = tuple(classes)
        self.facts = facts or {}

    @classmethod
    def load(
        cls,
        path: str | Path,
        *,
        device: str = "auto",
        backbone: nn.Module | None = None,
        threads: int | None = None,
    ) -> Detector:
        """Open a model file, a run's folder, what `fssd export` wrote (.onnx, OpenVINO's .xml), or a model
        of the package by its name: "animals", or "animals-int8" for OpenVINO.

        device: "cpu", "cuda", ... or "auto". backbone: the module of a model with a backbone of its own.
        threads: of an exported file's runtime, one a core if None; PyTorch has `torch.set_num_threads`.
        Raises CheckpointError, ConfigError.
        """
        path = find_model(Path(path))
        if runtime_of(path) is not None:
            runner, opened = open_runner(path, device, threads)
            return cls(runner, opened.header.classes, opened.header.facts)
        loaded = load_model(path, backbone, pick_device(device))
        return cls(loaded.network, loaded.classes, loaded.facts)

    @property
    def network(self) -> Network:
        """The PyTorch network. Raises ConfigError for an exported file, which has none."""
        if not isinstance(self.runner, NetworkRunner):
            raise ConfigError("an exported file has no PyTorch network; load the model it was exported from")
        return self.runner.network

    @property
    def geometry(self) -> Geometry:
        """How images become the model's input, and boxes those of the image again."""
        return self.runner.geometry

    @property
    def image_size(self) -> tuple[int, int]:
        """(width, height) of the model's input, pixels."""
        return self.geometry.size

    @overload
    def __call__(self, images: Picture, **settings: Any) -> Detections: ...

    @overload
    def __call__(self, images: Sequence[Picture], **settings: Any) -> list[Detections]: ...

    def __call__(self, images: Picture | Sequence[Picture], **settings: Any) -> Detections | list[Detections]:
        """Detect objects in one image or a list of them.

        images: a path, a PIL image, an (H, W, 3) uint8 RGB array, or a list of these.
        settings: score (0.5), nms (0.45), top_k (400), keep (200), see `Thresholds`;
        batch_size (8); keep_image (True), whether `Detections.draw` is to work afterwards.
        Raises ImageError for what is not such an image.
        """
        if isinstance(images, (str, Path, PIL.Image.Image, np.ndarray)) or not isinstance(images, Iterable):
            return next(self.stream([images], **settings))
        return list(self.stream(images, **settings))

    def stream(
        self, images: Iterable[Picture], *, batch_size: int = 8, keep_image: bool = True, **settings: Any
    ) -> Iterator[Detections]:
        """Detections one image after the other; at most `batch_size` images are held at a time."""
        if batch_size < 1:
            raise ConfigError(f"batch_size is {batch_size}; it must be 1 or more")
        batch: list[Image] = []
        for image in images:
            batch.append(as_array(image))
            if len(batch) == batch_size:
                yield from self._detect(batch, keep_image, settings)
                batch = []
        if batch:
            yield from self._detect(batch, keep_image, settings)

    def evaluate_on(
        self,
        dataset: DataSet,
        *,
        batch_size: int = 16,
        workers: int = 0,
        score: float = 0.01,
        **settings: Any,
    ) -> Iterator[Detections]:
        """Detections for every record of a data set, in order, with the settings that papers evaluate at."""
        batches = picture_batches(Pictures(dataset.records, self.geometry), batch_size, workers)
        for images, sizes in batches:
            yield from self.finish(self.runner.predict(images), sizes, score=score, **settings)

    def _detect(self, images: list[Image], keep_image: bool, settings: dict[str, Any]) -> list[Detections]:
        sizes = [(image.shape[1], image.shape[0]) for image in images]
        predicted = self.runner.predict(self.warp(images))
        found = self.finish(predicted, sizes, **{"score": 0.5, **settings})
        return (
            [replace(f, image=image) for f, image in zip(found, images, strict=True)] if keep_image else found
        )

    # ---- the stages between decoded images and detections, for those who time or batch them apart:
    # ---- finish(runner.predict(warp(images)), sizes)

    def warp(self, images: Sequence[Image]) -> Tensor:
        """Decoded images (h, w, 3) uint8 RGB of any sizes to the network's input, (B, 3, H, W) uint8."""
        width, height = self.image_size
        inputs = np.empty((len(images), height, width, 3), np.uint8)
        for index, image in enumerate(images):
            inputs[index] = self.geometry.apply(image)
        return torch.from_numpy(inputs).permute(0, 3, 1, 2)

    def finish(self, predicted: Any, sizes: Sequence[tuple[int, int]], **settings: Any) -> list[Detections]:
        """What `runner.predict` gave to detections, one for each of `sizes`, (width, height) of the images.

        settings: see `Thresholds`.
        """
        found = self.runner.finish(predicted, **settings)
        return [self._named(f, size, None) for f, size in zip(found, sizes, strict=True)]

    def _named(self, found: Found, size: tuple[int, int], image: Image | None) -> Detections:
        """From pixels of the network input to pixels of the image, cut to it."""
        boxes, scores, labels = (part.cpu().numpy() for part in found)
        return Detections(self.geometry.undo(boxes, size), scores, labels, self.classes, image)


def as_array(image: Picture) -> Image:
    """A picture as (H, W, 3) uint8 RGB, turned upright where EXIF says so. Raises ImageError."""
    if isinstance(image, (str, Path)):
        return read_image(Path(image))
    if isinstance(image, PIL.Image.Image):
        return convert_picture(image)
    if not isinstance(image, np.ndarray):
        raise ImageError(f"an image is a path, a PIL image or an array, not a {type(image).__name__}")
    if image.ndim != 3 or image.shape[2] != 3 or image.dtype != np.uint8 or image.size == 0:
        raise ImageError(
            f"an image array is (H, W, 3) uint8 RGB; not {image.shape} {image.dtype}; convert it first"
        )
    return image


def pick_device(name: str) -> torch.device:
    """The device of a name; "auto" is a GPU where there is one. Raises ConfigError if it is not there."""
    if name == "auto":
        return torch.device("cuda" if torch.cuda.is_available() else "cpu")
    try:
        device = torch.device(name)
        torch.empty(0, device=device)
    except (RuntimeError, AssertionError, NotImplementedError) as error:
        reason = str(error).splitlines()[0]
        raise ConfigError(f"device {name!r} cannot be used here ({reason}); choose cpu or auto") from error
    return device

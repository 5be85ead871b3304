"""`Detector`: a trained model, from images to `Detections`.

det = fssd.Detector.load("runs/bccd/best.safetensors")
found = det("street.jpg")
found.boxes, found.scores, found.labels, found.names, found.draw()
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import replace
from itertools import islice
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
from fssd.inference.detections import Detections
from fssd.model.network import Network
from fssd.runtimes.choose import runtime_of
from fssd.runtimes.runner import NetworkRunner, Runner
from fssd.weights.checkpoint import load_model
from fssd.zoo.models import find_model

Picture = str | Path | PIL.Image.Image | np.ndarray


class Detector:
    """A trained model with its class names, ready to use.

    model: a network, which is set to evaluation mode, or a runner. classes: names by label. facts: the JSON
    document of the model's file.
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
        """Open a model file, the folder of a run, an exported file (.onnx, OpenVINO's .xml), or a packaged
        model by its name: "animals", or "animals-int8" for OpenVINO.

        device: "cpu", "cuda", ... or "auto". backbone: the module, for a model whose backbone was passed as a
        module. threads: of an exported file's runtime, one per core if None; for PyTorch use
        `torch.set_num_threads`. Raises CheckpointError, ConfigError.
        """
        path = find_model(Path(path))
        runtime = runtime_of(path)
        if runtime is not None:
            if threads is not None and threads < 1:
                raise ConfigError(f"threads is {threads}; it must be 1 or more")
            runner = runtime.open(path, device, threads)
            return cls(runner, runner.header.classes, runner.header.facts)
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
        """How an image becomes the model's input, and how boxes come back."""
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
        batch_size (8); keep_image (True), which `Detections.draw` needs.
        Raises ImageError for anything that is not such an image.
        """
        if isinstance(images, (str, Path, PIL.Image.Image, np.ndarray)) or not isinstance(images, Iterable):
            return next(self.stream([images], **settings))
        return list(self.stream(images, **settings))

    def stream(
        self, images: Iterable[Picture], *, batch_size: int = 8, keep_image: bool = True, **settings: Any
    ) -> Iterator[Detections]:
        """Detections of one image after another; holds at most `batch_size` images at a time."""
        if batch_size < 1:
            raise ConfigError(f"batch_size is {batch_size}; it must be 1 or more")
        remaining = iter(images)
        while batch := [as_array(image) for image in islice(remaining, batch_size)]:
            sizes = [(image.shape[1], image.shape[0]) for image in batch]
            found = self.finish(self.runner.predict(self.warp(batch)), sizes, **{"score": 0.5, **settings})
            for image, one in zip(batch, found, strict=True):
                yield replace(one, image=image) if keep_image else one

    def evaluate_on(
        self,
        dataset: DataSet,
        *,
        batch_size: int = 16,
        workers: int = 0,
        score: float = 0.01,
        **settings: Any,
    ) -> Iterator[Detections]:
        """Detections of every record of a data set, in order, at the score threshold of the papers."""
        for images, sizes in picture_batches(Pictures(dataset.records, self.geometry), batch_size, workers):
            yield from self.finish(self.runner.predict(images), sizes, score=score, **settings)

    # The stages of a detection, to time or batch them separately: finish(runner.predict(warp(images)), sizes)

    def warp(self, images: Sequence[Image]) -> Tensor:
        """Decoded images (h, w, 3) uint8 RGB of any sizes to the network's input, (B, 3, H, W) uint8."""
        width, height = self.image_size
        inputs = np.empty((len(images), height, width, 3), np.uint8)
        for index, image in enumerate(images):
            inputs[index] = self.geometry.apply(image)
        return torch.from_numpy(inputs).permute(0, 3, 1, 2)

    def finish(self, predicted: Any, sizes: Sequence[tuple[int, int]], **settings: Any) -> list[Detections]:
        """The result of `runner.predict` as detections, for images of the given (width, height).

        Boxes are in pixels of the image, clipped to it. settings: see `Thresholds`.
        """
        detections = []
        for found, size in zip(self.runner.finish(predicted, **settings), sizes, strict=True):
            boxes, scores, labels = (part.cpu().numpy() for part in found)
            detections.append(Detections(self.geometry.undo(boxes, size), scores, labels, self.classes))
        return detections


def as_array(image: Picture) -> Image:
    """A picture as (H, W, 3) uint8 RGB, rotated upright by its EXIF tag. Raises ImageError."""
    if isinstance(image, (str, Path)):
        return read_image(Path(image))
    if isinstance(image, PIL.Image.Image):
        return convert_picture(image)
    if not isinstance(image, np.ndarray):
        raise ImageError(f"an image is a path, a PIL image or an array, not a {type(image).__name__}")
    if image.ndim != 3 or image.shape[2] != 3 or image.dtype != np.uint8 or image.size == 0:
        raise ImageError(f"an image array is (H, W, 3) uint8 RGB; convert {image.shape} {image.dtype}")
    return image


def pick_device(name: str) -> torch.device:
    """The device of a name; "auto" prefers a GPU. Raises ConfigError if it cannot be used."""
    if name == "auto":
        return torch.device("cuda" if torch.cuda.is_available() else "cpu")
    try:
        device = torch.device(name)
        torch.empty(0, device=device)
    except (RuntimeError, AssertionError, NotImplementedError) as error:
        reason = str(error).splitlines()[0]
        raise ConfigError(f"device {name!r} cannot be used here ({reason}); choose cpu or auto") from error
    return device

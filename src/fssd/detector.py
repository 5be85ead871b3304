"""`Detector`: a trained model, from images to `Detections`.

det = fssd.Detector.load("runs/bccd/best.safetensors")
found = det("street.jpg")
found.boxes, found.scores, found.labels, found.names, found.draw()
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any, overload

import cv2
import numpy as np
import PIL.Image
import torch
from torch import Tensor, nn

from fssd import boxes as box_maths
from fssd.checkpoint import load_model
from fssd.data.decode import convert_picture, read_image
from fssd.data.loader import Pictures, picture_batches
from fssd.data.sample import DataSet, Image
from fssd.detect import Found, detect
from fssd.detections import Detections
from fssd.errors import ConfigError, ImageError
from fssd.model.network import Network, channels_last

Picture = str | Path | PIL.Image.Image | np.ndarray


class Detector:
    """A network with its class names, ready to use.

    network: in evaluation mode, on its device. classes: names by label. facts: what its file says of it.
    """

    def __init__(self, network: Network, classes: Sequence[str], facts: dict[str, Any] | None = None) -> None:
        self.network = channels_last(network).eval()
        self.classes = tuple(classes)
        self.facts = facts or {}

    @classmethod
    def load(cls, path: str | Path, *, device: str = "auto", backbone: nn.Module | None = None) -> Detector:
        """Open a model file or a run's folder.

        device: "cpu", "cuda", ... or "auto". backbone: the module of a model with a backbone of its own.
        Raises CheckpointError.
        """
        loaded = load_model(path, backbone, pick_device(device))
        return cls(loaded.network, loaded.classes, loaded.facts)

    @overload
    def __call__(self, images: Picture, **settings: Any) -> Detections: ...

    @overload
    def __call__(self, images: Sequence[Picture], **settings: Any) -> list[Detections]: ...

    def __call__(self, images: Picture | Sequence[Picture], **settings: Any) -> Detections | list[Detections]:
        """Detect objects in one image or a list of them.

        images: a path, a PIL image, an (H, W, 3) uint8 RGB array, or a list of these.
        settings: score (0.5), nms (0.45), top_k (400), keep (200), as in `fssd.detect.detect`;
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
        batches = picture_batches(Pictures(dataset.records, self.network.image_size), batch_size, workers)
        for images, sizes in batches:
            found = self._find(images, {"score": score, **settings})
            yield from (self._named(f, size, None) for f, size in zip(found, sizes, strict=True))

    def _detect(self, images: list[Image], keep_image: bool, settings: dict[str, Any]) -> list[Detections]:
        size = self.network.image_size
        warped = np.stack(
            [cv2.resize(image, (size, size), interpolation=cv2.INTER_LINEAR) for image in images]
        )
        found = self._find(torch.from_numpy(warped).permute(0, 3, 1, 2), {"score": 0.5, **settings})
        return [
            self._named(f, (image.shape[1], image.shape[0]), image if keep_image else None)
            for f, image in zip(found, images, strict=True)
        ]

    @torch.inference_mode()
    def _find(self, images: Tensor, settings: dict[str, Any]) -> list[Found]:
        device = self.network.priors.device
        inputs = images.to(device).float().contiguous(memory_format=torch.channels_last)
        return detect(self.network(inputs), self.network.priors, **settings)

    def _named(self, found: Found, size: tuple[int, int], image: Image | None) -> Detections:
        """From pixels of the network input to pixels of the image, cut to it."""
        width, height = size
        side = self.network.image_size
        scale = found.boxes.new_tensor([width / side, height / side] * 2)
        boxes = box_maths.clip(found.boxes * scale, width, height)
        return Detections(
            boxes.cpu().numpy(), found.scores.cpu().numpy(), found.labels.cpu().numpy(), self.classes, image
        )


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

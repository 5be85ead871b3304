"""`Detector`: a trained model, from images to `Detections`.

det = fssd.Detector.load("runs/bccd/best.safetensors")
found = det("street.jpg")
found.boxes, found.scores, found.labels, found.names, found.draw()
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import replace
from functools import partial
from itertools import chain, islice
from pathlib import Path
from typing import Any, overload

import numpy as np
import torch
from torch import Tensor, nn

from fssd.config.bounds import Count, check_number
from fssd.data.geometry import Geometry, Size
from fssd.data.loader import Pictures, Windows, cut_tiles, picture_batches
from fssd.data.sample import DataSet, Image
from fssd.data.tiles import TILE_SETTINGS, Tiles, Window, one_window, read_tiles, stored_tiles
from fssd.errors import ConfigError, ImageError
from fssd.inference.detections import Detections
from fssd.inference.picture import NamedImage, Picture, batches, every_image, kind_of, single_images
from fssd.inference.rules import Rules, read_rules
from fssd.model.designs import read_size
from fssd.model.network import Network
from fssd.model.resize import resized, scaled_size
from fssd.runtimes.choose import runtime_of
from fssd.runtimes.runner import FileRunner, NetworkRunner, Runner
from fssd.weights.checkpoint import load_model
from fssd.zoo.models import find_model

Device = str | int | torch.device | None


class Detector:
    """A trained model with its class names, ready to use.

    model: a network, which is set to evaluation mode, or a runner. classes: names by label. facts: the JSON
    document of the model's file. tiles: how large images are cut: the pixels of a tile, "auto", a `Tiles`,
    "none", or None for what the file says.
    """

    def __init__(
        self,
        model: Network | Runner,
        classes: Sequence[str],
        facts: dict[str, Any] | None = None,
        *,
        tiles: int | str | Tiles | None = None,
    ) -> None:
        self.runner: Runner = NetworkRunner(model) if isinstance(model, Network) else model
        self.classes = tuple(classes)
        if isinstance(model, Network) and len(self.classes) != model.spec.num_classes:
            count = model.spec.num_classes
            raise ConfigError(
                f"{len(self.classes)} class names for a network of {count} classes; give {count}"
            )
        self.facts = facts or {}
        self.tiles = read_tiles({"tiles": tiles}, stored_tiles(self.facts), self.facts, self.image_size)
        self._sized: dict[tuple[int, int], Detector] = {}

    @classmethod
    def load(
        cls,
        path: str | Path,
        *,
        device: Device = "auto",
        backbone: nn.Module | None = None,
        threads: int | None = None,
        tiles: int | str | Tiles | None = None,
    ) -> Detector:
        """Open a model file, the folder of a run, an exported file (.onnx, OpenVINO's .xml, ncnn's .param,
        TensorRT's .engine), a model on a hub ("hf://user/name"), or a packaged or fetched one by its name:
        "animals", "animals-int8" for OpenVINO, "ssd300-coco".

        device: "cpu", "cuda", ... or "auto" (None); 1 is "cuda:1". backbone: the module, for a model whose
        backbone was passed as a module. threads: of an exported file's runtime, one per core if None; for
        PyTorch use `torch.set_num_threads`. tiles: see `Detector`. Raises CheckpointError, ConfigError.
        """
        if threads is not None:
            check_number("threads", threads, Count)
        path = find_model(Path(path))
        runtime = runtime_of(path)
        if runtime is not None:
            runner = runtime.open(path, device_name(device), threads)
            return cls(runner, runner.header.classes, runner.header.facts, tiles=tiles)
        loaded = load_model(path, backbone, pick_device(device))
        return cls(loaded.network, loaded.classes, loaded.facts, tiles=tiles)

    @property
    def network(self) -> Network:
        """The PyTorch network. Raises ConfigError for an exported file, which has none."""
        if not isinstance(self.runner, NetworkRunner):
            raise ConfigError("an exported file has no PyTorch network; load the model it was exported from")
        return self.runner.network

    @property
    def class_scores(self) -> dict[str, float]:
        """What classes must exceed by default, from `fssd eval --keep-thresholds`; others 0.5.

        A file with NMS inside, which drops lower scores itself, has at least its own threshold for each.
        """
        kept = self.facts.get("class_scores", {})
        return {name: max(score, self.least_score) for name, score in kept.items() if name in self.classes}

    @property
    def least_score(self) -> float:
        """The lowest score that can be asked for: 0, or that of a file with NMS inside."""
        inside = self.runner.thresholds if isinstance(self.runner, FileRunner) else None
        return 0.0 if inside is None else inside.score

    @property
    def geometry(self) -> Geometry:
        """How an image becomes the model's input, and how boxes come back."""
        return self.runner.geometry

    @property
    def image_size(self) -> tuple[int, int]:
        """(width, height) of the model's input, pixels."""
        return self.geometry.size

    @overload
    def __call__(self, images: str | Path | np.ndarray | Tensor, **settings: Any) -> Any: ...

    @overload
    def __call__(self, images: Picture, **settings: Any) -> Detections: ...

    @overload
    def __call__(self, images: Iterable[Picture], **settings: Any) -> list[Detections]: ...

    def __call__(self, images: Any, **settings: Any) -> Detections | list[Detections] | Iterator[Detections]:
        """Detect objects in one image (`Detections`), several (a list) or a film (a generator of them).

        images: a path, a PIL image, an array (H, W, 3), also grey, RGBA, 16 bit or floats in 0..1, a tensor
        (3, H, W), the bytes of a file, or a file opened in binary mode. Several: a list of these, a folder, a
        pattern such as "shots/*.jpg", an array (N, H, W, 3) or a tensor (B, 3, H, W). A film: its path.
        settings: score (0.5, or `class_scores`), nms (0.45), top_k (400), keep (200), see `Thresholds`; score
        may map names of classes to numbers. classes: names to keep. agnostic: NMS over all classes together.
        soft: "linear" or "gaussian", which lower scores (soft-NMS) instead of dropping boxes. The others: see
        `stream`.
        Raises ImageError for anything that is not such an image, ConfigError for a setting out of range,
        TypeError for an unknown one.
        """
        kind = kind_of(images)
        if kind == "film":
            return self.stream(images, **settings)
        found = self._detect(single_images, images, **settings)
        return next(found) if kind == "one" else list(found)

    def stream(self, images: Any, **settings: Any) -> Iterator[Detections]:
        """Detections of one image after another; holds at most `batch_size` images at a time.

        images: what a call takes, or any iterable of that; of folders, patterns and films every image.
        settings: those of a call; batch_size (8); keep_image (True), which `Detections.draw` needs; scales
        (None), see `sized`; flip (False), whether the mirror image is looked at too; allow_url (False),
        whether http addresses are fetched. tiles (None), see `Detector`; overlap (0.2), whole_image (True)
        and most_tiles (400), see `Tiles`.
        """
        return self._detect(every_image, images, **settings)

    def require_settings(self, **settings: Any) -> None:
        """Raise ConfigError for settings that `stream` would refuse, before there is an image or a result."""
        next(self._detect(every_image, iter(()), **settings), None)

    def _detect(
        self,
        read: Callable[[Any, bool], Iterator[NamedImage]],
        images: Any,
        *,
        batch_size: int = 8,
        keep_image: bool = True,
        scales: Sequence[int] | None = None,
        flip: bool = False,
        allow_url: bool = False,
        **settings: Any,
    ) -> Iterator[Detections]:
        """`stream` of the images that `read` finds in what is given."""
        check_number("batch_size", batch_size, Count)
        windows, rules = self.windows(settings), self._rules(settings, 0.5)  # before an image is read
        detectors = self.sized(scales)
        for batch in batches(read(images, allow_url), batch_size):
            plans = [_plan(one, windows) for one in batch]
            crops = [
                crop for (image, _), plan in zip(batch, plans, strict=True) for crop in cut_tiles(image, plan)
            ]
            views: list[tuple[Detections, ...]] = []
            for start in range(0, len(crops), batch_size):
                some = crops[start : start + batch_size]
                sizes = [size_of(crop) for crop in some]
                found = [part for one in detectors for part in one._views(one.warp(some), sizes, rules, flip)]
                views += zip(*found, strict=True)
            tiles = iter(views)
            for (image, source), plan in zip(batch, plans, strict=True):
                one = rules.choose_tiles(plan, list(islice(tiles, len(plan))), size_of(image))
                yield replace(one, image=image if keep_image else None, source=source)

    def evaluate_on(
        self,
        dataset: DataSet,
        *,
        batch_size: int = 16,
        workers: int = 0,
        scales: Sequence[int] | None = None,
        flip: bool = False,
        **settings: Any,
    ) -> Iterator[Detections]:
        """Detections of every record of a data set, in order, at the thresholds of the model's paper.

        scales: see `sized`; each decodes the images in `workers` processes of its own. flip: see `stream`.
        """
        windows, rules = self.windows(settings), self._rules(settings, None)
        streams = [
            one._views_on(dataset, batch_size, workers, rules, flip, windows) for one in self.sized(scales)
        ]
        for rows in zip(*streams, strict=True):
            size = rows[0][0]
            tiles = [tuple(chain(*views)) for views in zip(*(views for _, views in rows), strict=True)]
            yield rules.choose_tiles(windows(size), tiles, size)

    def tiling(self, settings: Mapping[str, Any]) -> Tiles | None:
        """The tiles of a call with these settings; None for none. Raises ConfigError."""
        given = {name: settings[name] for name in TILE_SETTINGS if name in settings}
        return read_tiles(given, self.tiles, self.facts, self.image_size)

    def windows(self, settings: Mapping[str, Any]) -> Windows:
        """The parts that an image of (width, height) is looked at in: its tiles, or all of it.

        settings: of a call. Raises ConfigError, the returned function ImageError for too many tiles.
        """
        tiles = self.tiling(settings)
        return one_window if tiles is None else partial(tiles.windows, input_size=self.image_size)

    def _rules(self, settings: Mapping[str, Any], score: float | None) -> Rules:
        """The rules of the settings of a call. score: where none is given; None takes the model's paper's."""
        settings = {name: value for name, value in settings.items() if name not in TILE_SETTINGS}
        defaults = self.runner.defaults
        if score is not None:
            defaults = replace(defaults, score=max(score, self.least_score))
        if score is not None and not {"score", "class_scores"} & settings.keys():
            settings = {**settings, "class_scores": self.class_scores}
        inside = self.runner.thresholds if isinstance(self.runner, FileRunner) else None
        return read_rules(settings, self.classes, defaults, inside)

    def _views_on(
        self, dataset: DataSet, batch_size: int, workers: int, rules: Rules, flip: bool, windows: Windows
    ) -> Iterator[tuple[Size, list[tuple[Detections, ...]]]]:
        """The size of each image of a data set and the detections in each view of each of its tiles."""
        pictures = Pictures(dataset.records, self.geometry, windows)
        pin = isinstance(self.runner, NetworkRunner) and self.runner.network.device.type == "cuda"
        for inputs, sizes in picture_batches(pictures, batch_size, workers, pin):
            plans = [windows(size) for size in sizes]
            extents = [(x2 - x1, y2 - y1) for plan in plans for x1, y1, x2, y2 in plan]
            views: list[tuple[Detections, ...]] = []
            for start in range(0, len(inputs), batch_size):
                some = slice(start, start + batch_size)
                views += zip(*self._views(inputs[some], extents[some], rules, flip), strict=True)
            tiles = iter(views)
            for size, plan in zip(sizes, plans, strict=True):
                yield size, list(islice(tiles, len(plan)))

    def _views(
        self, images: Tensor, sizes: Sequence[tuple[int, int]], rules: Rules, flip: bool
    ) -> list[list[Detections]]:
        """The detections in a batch of inputs, and with `flip` also those in its mirror image."""
        if not isinstance(flip, (bool, np.bool_)):
            raise ConfigError(f"flip is {flip!r}; it must be True or False")
        views = [self._decoded(self.runner.predict(images), sizes, rules)]
        if flip:
            views.append(self._decoded(self.runner.predict(images.flip(-1)), sizes, rules, mirrored=True))
        return views

    def sized(self, scales: Sequence[int] | None) -> list[Detector]:
        """A detector for each size of an image pyramid, with this one's weights; itself for None.

        scales: the longer side of each input in pixels, 128 to 1,024; see `resized` for what changes. Raises
        ConfigError for sizes at which the network does not work, and for an exported file, which has one.
        """
        if scales is None:
            return [self]
        if isinstance(scales, (str, bytes)) or not isinstance(scales, Iterable):
            raise ConfigError(f"scales is {scales!r}; give a list of sizes, such as [300, 512]")
        scales = np.array(list(scales)).tolist()  # numbers of numpy as plain ones
        if not scales or len(set(scales)) < len(scales):
            raise ConfigError(f"scales are {scales}; give one or more sizes, each once")
        if not isinstance(self.runner, NetworkRunner):
            raise ConfigError(
                "an exported file has one input size; leave out scales, or load the model it is made from"
            )
        return [self._of_size(scaled_size(self.image_size, read_size(side)[0])) for side in scales]

    def _of_size(self, size: tuple[int, int]) -> Detector:
        if size == self.image_size:
            return self
        if size not in self._sized:
            self._sized[size] = Detector(resized(self.network, size), self.classes, self.facts, tiles="none")
        return self._sized[size]

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
        rules = self._rules(settings, None)
        return [rules.choose([one]) for one in self._decoded(predicted, sizes, rules)]

    def finish_tiles(
        self, predicted: Sequence[Any], windows: Sequence[Window], image_size: Size, **settings: Any
    ) -> Detections:
        """The results of `runner.predict` for each tile of one image as its detections; see `finish`.

        windows: the tiles, in pixels of the image of (width, height).
        """
        rules = self._rules(settings, None)
        sizes = [(x2 - x1, y2 - y1) for x1, y1, x2, y2 in windows]
        pairs = zip(predicted, sizes, strict=True)
        return rules.choose_tiles(
            windows, [self._decoded(one, [size], rules) for one, size in pairs], image_size
        )

    def _decoded(
        self, predicted: Any, sizes: Sequence[tuple[int, int]], rules: Rules, mirrored: bool = False
    ) -> list[Detections]:
        """The result of `runner.predict` as detections, before `Rules.choose`."""
        detections = []
        for found, size in zip(self.runner.finish(predicted, **rules.asked), sizes, strict=True):
            boxes, scores, labels = (part.cpu().numpy() for part in found)
            if mirrored:
                width = np.float32(self.image_size[0])
                boxes = np.stack((width - boxes[:, 2], boxes[:, 1], width - boxes[:, 0], boxes[:, 3]), axis=1)
            detections.append(Detections(self.geometry.undo(boxes, size), scores, labels, self.classes))
        return detections


def _plan(named: NamedImage, windows: Windows) -> Sequence[Window]:
    """The windows of an image. Raises ImageError, with its name."""
    try:
        return windows(size_of(named.image))
    except ImageError as error:
        raise ImageError(error.reason, file=named.source) from None


def size_of(image: Image) -> Size:
    """(width, height) of (H, W, 3)."""
    return image.shape[1], image.shape[0]


def device_name(device: Device) -> str:
    """The name of a device, which may also be a number (of a GPU), one of torch's, or None for "auto"."""
    if isinstance(device, int) and not isinstance(device, bool):
        return f"cuda:{device}"
    return "auto" if device is None else str(device)


def pick_device(device: Device) -> torch.device:
    """The device of a name; "auto" prefers a GPU. Raises ConfigError if PyTorch cannot use it here."""
    name = device_name(device)
    if name == "auto":
        return torch.device("cuda" if torch.cuda.is_available() else "cpu")
    known = ["cpu"]
    if torch.accelerator.is_available():
        kind = torch.accelerator.current_accelerator().type  # type: ignore[union-attr]
        known += [kind, *(f"{kind}:{index}" for index in range(torch.accelerator.device_count()))]
    if name not in known:
        raise ConfigError(f"device {name!r} cannot be used here; choose auto or one of {', '.join(known)}")
    return torch.device(name)

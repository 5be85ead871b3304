"""Batches for training: an endless, seeded order of images, identical for any number of workers."""

from __future__ import annotations

import gc
import os
import signal
from collections.abc import Callable, Generator, Iterable, Iterator, Sequence
from contextlib import closing
from dataclasses import dataclass, replace
from functools import lru_cache, partial
from itertools import chain
from typing import Any

import cv2
import numpy as np
import torch
from torch.utils.data import DataLoader, Dataset, Sampler

from fssd.data.augment import RECIPES, augment, resize, sample_rng
from fssd.data.augment_hook import AugmentHook
from fssd.data.batch import Batch, Example, MakeTargets, collate
from fssd.data.decode import read_image
from fssd.data.geometry import Geometry, Size
from fssd.data.mixing import Mixing
from fssd.data.repeats import Pass, Repeats
from fssd.data.sample import DataSet, Image, Record, Sample
from fssd.data.scales import Scales
from fssd.data.tile_crops import TileCrops
from fssd.data.tiles import Window, one_window
from fssd.errors import DataError, FssdError, ImageError, shown

TIME_TO_END = 30  # seconds that a worker has left after SIGTERM, as many as torchrun gives

Windows = Callable[[Size], Sequence[Window]]
"""The tiles of an image of (width, height)."""
Picture = tuple[torch.Tensor, tuple[int, int]]
PictureBatch = tuple[torch.Tensor, list[tuple[int, int]]]


@dataclass(frozen=True)
class Views(Dataset[Any]):
    """Augmented views of a data set, by position: p is view p % L of pass p // L. Each pass is shuffled.

    A pass has L = N views, one of each image, unless `repeats` shows some more often.

    A view depends on the seed, its position and the files alone, not on the process that makes it or on
    earlier views. That holds for broken images too: in place of one that cannot be read comes the image half
    a pass later, or the first one after it that can be read. In place of one that was drawn for a mosaic or
    mixup comes the next record.

    replaces: whether to do so; without it such an image is an error. absent: indices of records that are kept
    for the order alone and always replaced. scales: sizes of the views, where they differ. mixing: which
    views are made of several images. repeats: how often each image is shown. tiles: of which views are made
    instead of whole images, one of each image. hook: augmentation of the user's own, before the recipe's.
    """

    dataset: DataSet
    geometry: Geometry
    seed: int
    recipe: str
    difficult: bool
    jpeg: bool = False
    crowds: bool = False
    replaces: bool = False
    absent: frozenset[int] = frozenset()
    scales: Scales | None = None
    mixing: Mixing | None = None
    repeats: Repeats | None = None
    hook: AugmentHook | None = None
    tiles: TileCrops | None = None

    def __getitem__(self, position: int) -> Sample | DataError:
        """The view, or the error of an image that cannot be read."""
        try:
            return self.sample(position)
        except DataError as error:
            return error

    def sample(self, position: int) -> Sample:
        """The view at a position. Raises ImageError."""
        return self.sample_and_broken(position)[0]

    def sample_and_broken(self, position: int) -> tuple[Sample, dict[str, DataError]]:
        """The view, and the errors by image id of the images that it stands in for. Raises ImageError."""
        count = len(self.dataset if self.repeats is None else self.repeats)
        epoch, rank = divmod(position, count)
        order, turn = self._pass(epoch)
        broken: dict[str, DataError] = {}
        later = (order[(rank + count // 2 + step) % count] for step in range(count))
        loaded = self._first_readable(chain((order[rank],), later), broken)
        geometry, index = self.geometry_at(position), int(order[rank])
        key = (index, int(turn[rank])) if turn[rank] else (index,)
        own = sample_rng(self.seed, epoch, *key)
        if self.mixing is None or position >= self.mixing.until:
            return self._augmented(loaded, geometry, own), broken

        def draw(rng: np.random.Generator) -> Sample:
            first, images = int(rng.integers(count)), len(self.dataset)
            first = first if self.repeats is None else int(order[first])
            return self._first_readable(((first + step) % images for step in range(images)), broken)

        # The leading 3 keeps this stream apart from that of the order, and from those of `sample_rng` in all
        # runs but of seed 3; to change it would change the views of a seed.
        rng = np.random.default_rng((3, self.seed, epoch, *key))
        return self.mixing.view(loaded, geometry, own, rng, self._augmented, draw), broken

    def _pass(self, epoch: int) -> Pass:
        if self.repeats is not None:
            return self.repeats.of_pass(self.seed, epoch)
        return _plain_pass(self.seed, epoch, len(self.dataset))

    def _first_readable(self, indices: Iterable[int], broken: dict[str, DataError]) -> Sample:
        """The image of the first record that can be read. Adds the errors of those before it to `broken`."""
        for index in indices:
            record = self.dataset.records[index]
            if index in self.absent or record.image_id in broken:
                continue
            try:
                return load_sample(record, self.difficult, self.crowds)
            except DataError as error:
                broken[record.image_id] = error
                if not self.replaces:
                    raise
        raise next(iter(broken.values()), DataError("none of the images of the run is there any more"))

    def geometry_at(self, position: int) -> Geometry:
        """How the view at a position becomes the input."""
        if self.scales is None:
            return self.geometry
        side = self.scales.side(position)
        return replace(self.geometry, size=(side, side))

    def _augmented(self, sample: Sample, geometry: Geometry, rng: np.random.Generator) -> Sample:
        if self.tiles is not None:
            sample = self.tiles.crop(sample, rng)
        if self.hook is not None:
            sample = self.hook(sample, rng)
        if self.recipe == "none":
            return resize(sample, geometry)
        return augment(sample, geometry, rng, recipe=RECIPES[self.recipe], jpeg=self.jpeg)


def load_sample(record: Record, difficult: bool = True, crowds: bool = False) -> Sample:
    """Decode a record for training; difficult, crowds: keep objects with that flag. Raises ImageError."""
    keep = (~record.difficult | difficult) & (~record.crowd | crowds)
    image = read_fitting(record)
    return Sample(image, record.boxes[keep], record.labels[keep], record.difficult[keep], shown(record.path))


def read_fitting(record: Record) -> Image:
    """The decoded image of a record. Raises ImageError, also if its size is not what its labels state."""
    image = read_image(record.picture)
    height, width = image.shape[:2]
    if record.width is not None and (record.width, record.height) != (width, height):
        raise ImageError(
            f"is {width} x {height} pixels, but {record.source} says {record.width} x {record.height}:"
            " the boxes do not fit this image; correct the labels or the image",
            file=record.path,
        )
    return image


@lru_cache(maxsize=4)
def _order(seed: int, epoch: int, count: int) -> np.ndarray:
    # The leading 1 keeps this stream apart from those of `sample_rng` in all runs but of seed 1.
    return np.random.default_rng((1, seed, epoch)).permutation(count)


@lru_cache(maxsize=4)
def _plain_pass(seed: int, epoch: int, count: int) -> Pass:
    """Each image once."""
    return Pass(_order(seed, epoch, count), np.zeros(count, np.int64))


@dataclass(frozen=True)
class BatchPositions(Sampler[list[int]]):
    """The positions of each batch from `start` up to `stop` (batch numbers), for one of `world` processes."""

    start: int
    stop: int
    batch_size: int
    rank: int = 0
    world: int = 1

    def __iter__(self) -> Iterator[list[int]]:
        for number in range(self.start, self.stop):
            first = (number * self.world + self.rank) * self.batch_size
            yield list(range(first, first + self.batch_size))

    def __len__(self) -> int:
        return self.stop - self.start


@dataclass(frozen=True)
class Examples(Dataset[Any]):
    """Views with what a head is trained on.

    make_targets gets boxes in pixels of the network's own input, whatever the size of the view.
    """

    views: Views
    make_targets: MakeTargets

    def __getitem__(self, position: int) -> Example:
        sample, broken = self.views.sample_and_broken(position)
        image = torch.from_numpy(np.ascontiguousarray(sample.image)).permute(2, 0, 1)
        boxes, own = sample.boxes, self.views.geometry.size[0]
        if (side := sample.image.shape[1]) != own:
            boxes = (boxes * np.float32(own / side)).astype(np.float32)
        return Example(image, self.make_targets(boxes, sample.labels), sample.name, broken)


@dataclass(frozen=True)
class Pictures(Dataset[Any]):
    """Images of a data set for evaluation, in order: ((T, 3, H, W) uint8 RGB, stored (width, height)).

    windows: the T tiles of an image; None for the image as it is.
    """

    records: Sequence[Record]
    geometry: Geometry
    windows: Windows | None = None

    def __len__(self) -> int:
        return len(self.records)

    def __getitem__(self, index: int) -> Picture:
        image = read_fitting(self.records[index])
        size = (image.shape[1], image.shape[0])
        if self.windows is None:
            return torch.from_numpy(self.geometry.apply(image)).permute(2, 0, 1)[None], size
        try:
            windows = self.windows(size)
        except ImageError as error:
            raise ImageError(error.reason, file=self.records[index].path) from None
        tiles = [self.geometry.apply(tile) for tile in cut_tiles(image, windows)]
        return torch.from_numpy(np.stack(tiles)).permute(0, 3, 1, 2), size


def cut_tiles(image: Image, windows: Iterable[Window]) -> list[Image]:
    """The parts of (H, W, 3) in windows, which share its memory."""
    return [image[y1:y2, x1:x2] for x1, y1, x2, y2 in windows]


def training_batches(
    examples: Examples, positions: Sampler[list[int]], workers: int, pin: bool = False
) -> Generator[Batch, None, None]:
    """The batches at `positions`, made by `workers` processes (0: by this one). Raises ImageError."""
    ahead = 4 if workers else None
    return _load(examples, collate, workers, batch_sampler=positions, pin_memory=pin, prefetch_factor=ahead)


def picture_batches(
    pictures: Pictures, batch_size: int, workers: int, pin: bool = False
) -> Iterator[PictureBatch]:
    """Batches of evaluation images in order; the last one may be smaller. Raises ImageError.

    Of images in tiles as few as fill a batch, because one may have hundreds of them. pin: in memory that a
    GPU can copy from while the program goes on.
    """
    if pictures.windows in (None, one_window):
        yield from _load(pictures, _stack_pictures, workers, batch_size=batch_size, pin_memory=pin)
        return
    inputs: list[torch.Tensor] = []
    sizes: list[Size] = []
    with closing(_load(pictures, _stack_pictures, workers, batch_size=1)) as images:
        for tiles, size in images:
            inputs.append(tiles)
            sizes += size
            if sum(map(len, inputs)) >= batch_size:
                yield torch.cat(inputs), sizes
                inputs, sizes = [], []
    if inputs:
        yield torch.cat(inputs), sizes


def _stack_pictures(rows: list[Picture]) -> PictureBatch:
    return torch.cat([tiles for tiles, _ in rows]), [size for _, size in rows]


@dataclass(frozen=True)
class _Caught(Dataset[Any]):
    """Returns errors as items: torch would wrap an error of another process in the text of a traceback."""

    dataset: Any

    def __len__(self) -> int:
        return len(self.dataset)

    def __getitem__(self, index: int) -> Any:
        try:
            return self.dataset[index]
        except FssdError as error:
            return error


def _collate(stack: Callable[[list[Any]], Any], items: list[Any]) -> Any:
    """A batch of the items, or the first error among them."""
    error = next((item for item in items if isinstance(item, FssdError)), None)
    return stack(items) if error is None else error


def _load(
    dataset: Dataset[Any], stack: Callable[[list[Any]], Any], workers: int, **options: Any
) -> Generator[Any, None, None]:
    loader: DataLoader[Any] = DataLoader(
        _Caught(dataset),
        num_workers=workers,
        collate_fn=partial(_collate, stack),
        worker_init_fn=_start_worker,
        generator=torch.Generator(),  # else seeding the workers would advance the caller's generator
        **options,
    )
    batches = _started(loader)
    try:
        for batch in batches:
            if isinstance(batch, FssdError):
                raise batch
            yield batch
    finally:
        if workers:  # now: a reference cycle may keep them until the program ends and waits for them
            batches._shutdown_workers()


def _start_worker(_: int) -> None:
    # Startup objects live as long as the worker; to look at them again and again would copy their memory.
    gc.freeze()
    # The workers are processes already; threads in each would compete with the others for the cores.
    cv2.setNumThreads(1)
    torch.set_num_threads(1)
    # A terminal and a job manager signal all processes at once; what to do is the decision of the first.
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    if hasattr(signal, "SIGHUP"):
        signal.signal(signal.SIGHUP, signal.SIG_IGN)
    signal.signal(signal.SIGTERM, _end_later)


def _end_later(*_: Any) -> None:
    """Go on for the last update; but SIGTERM is also how a program ends a worker that it forgot."""
    signal.signal(signal.SIGTERM, signal.SIG_DFL)
    if hasattr(signal, "SIGALRM"):
        signal.signal(signal.SIGALRM, lambda *_: os._exit(0))
        signal.alarm(TIME_TO_END)


def _started(loader: DataLoader[Any]) -> Any:
    """The loader's iterator. OpenCV's threads are ended first, as a forked worker would wait for them."""
    threads = cv2.getNumThreads()
    cv2.setNumThreads(1)  # ends the pool
    try:
        return iter(loader)
    finally:
        cv2.setNumThreads(threads)

"""Batches for training: an endless, seeded order of images, identical for any number of workers."""

from __future__ import annotations

from collections.abc import Iterator
from functools import lru_cache
from typing import Any, cast

import cv2
import numpy as np
import torch
from torch import Tensor
from torch.utils.data import DataLoader, Dataset, Sampler

from fssd.data.augment import RECIPES, augment, resize, sample_rng
from fssd.data.batch import Batch, Example, MakeTargets, collate, make_example
from fssd.data.decode import read_image
from fssd.data.geometry import Geometry
from fssd.data.sample import DataSet, Image, Record, Sample
from fssd.errors import DataError, ImageError


class Views(Dataset[Any]):
    """Augmented views of a data set, by position: p is image p % N of pass p // N. Each pass is shuffled.

    A view depends on the seed and its position alone, not on the process that makes it or on earlier views.
    """

    def __init__(
        self,
        dataset: DataSet,
        geometry: Geometry,
        seed: int,
        recipe: str,
        difficult: bool,
        jpeg: bool = False,
        crowds: bool = False,
    ) -> None:
        self.dataset = dataset
        self.geometry = geometry
        self.seed = seed
        self.recipe = recipe
        self.difficult = difficult
        self.jpeg = jpeg
        self.crowds = crowds

    def __getitem__(self, position: int) -> Sample | DataError:
        try:
            return self._view(position)
        except DataError as error:
            return error  # `_raise_errors` raises it: torch would bury it in a traceback from another process

    def _view(self, position: int) -> Sample:
        epoch, rank = divmod(position, len(self.dataset))
        index = int(_order(self.seed, epoch, len(self.dataset))[rank])
        sample = load_sample(self.dataset.records[index], self.difficult, self.crowds)
        if self.recipe == "none":
            return resize(sample, self.geometry)
        return augment(
            sample,
            self.geometry,
            sample_rng(self.seed, epoch, index),
            recipe=RECIPES[self.recipe],
            jpeg=self.jpeg,
        )


def load_sample(record: Record, difficult: bool = True, crowds: bool = False) -> Sample:
    """Decode a record for training; difficult, crowds: keep objects with that flag. Raises ImageError."""
    keep = (~record.difficult | difficult) & (~record.crowd | crowds)
    image = read_fitting(record)
    return Sample(image, record.boxes[keep], record.labels[keep], record.difficult[keep], str(record.path))


def read_fitting(record: Record) -> Image:
    """The decoded image of a record. Raises ImageError, also if its size is not what its labels state."""
    image = read_image(record.path)
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
    # The leading 1 keeps this stream apart from those of `sample_rng`.
    return np.random.default_rng((1, seed, epoch)).permutation(count)


class BatchPositions(Sampler[list[int]]):
    """The positions of each batch from `start` up to `stop` (batch numbers), for one of `world` processes."""

    def __init__(self, start: int, stop: int, batch_size: int, rank: int = 0, world: int = 1) -> None:
        self.start, self.stop = start, stop
        self.batch_size, self.rank, self.world = batch_size, rank, world

    def __iter__(self) -> Iterator[list[int]]:
        for number in range(self.start, self.stop):
            first = (number * self.world + self.rank) * self.batch_size
            yield list(range(first, first + self.batch_size))

    def __len__(self) -> int:
        return self.stop - self.start


class Examples(Dataset[Any]):
    """Views with what a head is trained on; an error in place of one that cannot be made."""

    def __init__(self, views: Views, make_targets: MakeTargets) -> None:
        self.views = views
        self.make_targets = make_targets

    def __getitem__(self, position: int) -> Example | DataError:
        sample = self.views[position]
        return sample if isinstance(sample, DataError) else make_example(sample, self.make_targets)


def training_batches(
    examples: Examples, positions: BatchPositions, workers: int, pin: bool = False
) -> Iterator[Batch]:
    """The batches at `positions`; workers: processes that make them, 0 to make them in this one.

    Raises ImageError for an image that cannot be read.
    """
    loader: DataLoader[Any] = DataLoader(
        examples,
        batch_sampler=positions,
        num_workers=workers,
        collate_fn=collate,
        worker_init_fn=_start_worker,
        prefetch_factor=4 if workers else None,
        generator=torch.Generator(),  # else seeding the workers would advance the caller's generator
        pin_memory=pin,
    )
    yield from _raise_errors(loader)


def _start_worker(_: int) -> None:
    # The workers are processes already; threads in each would compete with the others for the cores.
    cv2.setNumThreads(1)
    torch.set_num_threads(1)


class Pictures(Dataset[Any]):
    """Images of a data set for evaluation, in order: ((3, H, W) uint8 RGB, stored (width, height))."""

    def __init__(self, records: tuple[Record, ...], geometry: Geometry) -> None:
        self.records = records
        self.geometry = geometry

    def __len__(self) -> int:
        return len(self.records)

    def __getitem__(self, index: int) -> Picture | DataError:
        try:
            image = read_fitting(self.records[index])
        except DataError as error:
            return error
        height, width = image.shape[:2]
        return torch.from_numpy(self.geometry.apply(image)).permute(2, 0, 1), (width, height)


Picture = tuple[Tensor, tuple[int, int]]
PictureBatch = tuple[Tensor, list[tuple[int, int]]]


def picture_batches(pictures: Pictures, batch_size: int, workers: int) -> Iterator[PictureBatch]:
    """Batches of evaluation images in order; the last one may be smaller. Raises ImageError."""
    loader: DataLoader[Any] = DataLoader(
        pictures,
        batch_size=batch_size,
        num_workers=workers,
        collate_fn=_stack_pictures,
        worker_init_fn=_start_worker,
        generator=torch.Generator(),
    )
    yield from _raise_errors(loader)


def _stack_pictures(rows: list[Picture | DataError]) -> PictureBatch | DataError:
    for row in rows:
        if isinstance(row, DataError):
            return row
    good = cast("list[Picture]", rows)
    return torch.stack([image for image, _ in good]), [size for _, size in good]


def _started(loader: DataLoader[Any]) -> Iterator[Any]:
    """The loader's iterator, its workers started while OpenCV's thread pool does not exist.

    A forked worker inherits the pool but not its threads, and hangs when it uses it.
    """
    threads = cv2.getNumThreads()
    cv2.setNumThreads(1)  # ends the pool
    try:
        return iter(loader)
    finally:
        cv2.setNumThreads(threads)


def _raise_errors(loader: DataLoader[Any]) -> Iterator[Any]:
    for batch in _started(loader):
        if isinstance(batch, DataError):
            raise batch
        yield batch

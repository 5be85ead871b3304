"""Batches for training: an endless, seeded order of images that any number of workers makes alike."""

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
    """Augmented views of a data set, by *place*: place s is image s % N of pass s // N, each shuffled anew.

    What a place holds depends on the seed alone, not on the process that makes it or on what came before.
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

    def __getitem__(self, place: int) -> Sample | DataError:
        try:
            return self._view(place)
        except DataError as error:
            return error  # raised by `batches`: torch would bury it in a traceback from another process

    def _view(self, place: int) -> Sample:
        epoch, position = divmod(place, len(self.dataset))
        index = int(_order(self.seed, epoch, len(self.dataset))[position])
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
    """The decoded image of a record. Raises ImageError, also if its size is not what its labels say."""
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


class BatchPlaces(Sampler[list[int]]):
    """The places of each batch from `start` up to `stop` (batch numbers), for one of `world` processes."""

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

    def __getitem__(self, place: int) -> Example | DataError:
        sample = self.views[place]
        return sample if isinstance(sample, DataError) else make_example(sample, self.make_targets)


def training_batches(
    examples: Examples, places: BatchPlaces, workers: int, pin: bool = False
) -> Iterator[Batch]:
    """The batches of `places`; workers: processes that make them, 0 for none beside this one.

    Raises ImageError for a picture that cannot be read.
    """
    loader: DataLoader[Any] = DataLoader(
        examples,
        batch_sampler=places,
        num_workers=workers,
        collate_fn=collate,
        worker_init_fn=_start_worker,
        prefetch_factor=4 if workers else None,
        generator=torch.Generator(),  # else the seeds of the workers are drawn from the caller's
        pin_memory=pin,
    )
    yield from _raise_errors(loader)


def _start_worker(_: int) -> None:
    # Each worker is one of several processes already; OpenCV's own threads would fight with them.
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
    """The loader's iterator, its workers started while OpenCV holds no threads.

    A worker is forked, and one that inherits OpenCV's pool without its threads hangs when it touches it.
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

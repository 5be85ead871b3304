"""Which images of an update each process computes, and in how many batches."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from itertools import pairwise

from torch.utils.data import Sampler

from fssd.config.train_config import TrainConfig
from fssd.data.loader import BatchPositions
from fssd.errors import ConfigError
from fssd.training.distributed import Process


@dataclass(frozen=True)
class GlobalPositions(Sampler[list[int]]):
    """The positions of the batches of one process, of updates `start` up to `stop` of `images` images each.

    Update u is positions u * images up to (u + 1) * images, whatever the number of processes. bounds: first
    and end index among these images, of each batch of this process.
    """

    start: int
    stop: int
    images: int
    bounds: tuple[tuple[int, int], ...]

    def __iter__(self) -> Iterator[list[int]]:
        for update in range(self.start, self.stop):
            for first, end in self.bounds:
                yield list(range(update * self.images + first, update * self.images + end))

    def __len__(self) -> int:
        return (self.stop - self.start) * len(self.bounds)


@dataclass(frozen=True)
class UpdateShare:
    """What one process computes of each update.

    images: of an update, in all processes. bounds: see `GlobalPositions`; () without `global_batch`.
    """

    config: TrainConfig
    process: Process
    images: int
    bounds: tuple[tuple[int, int], ...] = ()

    @property
    def passes(self) -> int:
        """Batches of one process in an update, as many in every process."""
        return len(self.bounds) or self.config.accumulate

    @property
    def own(self) -> int:
        """Images of this process in an update."""
        if self.bounds:
            return self.bounds[-1][1] - self.bounds[0][0]
        return self.config.batch_size * self.config.accumulate

    @property
    def least(self) -> int:
        """Images of the smallest batch of any process."""
        if self.bounds:
            return self.images // self.process.world // self.passes
        return self.config.batch_size

    def positions(self, start: int, stop: int) -> Sampler[list[int]]:
        """The positions of this process's batches, of the updates `start` up to `stop`."""
        if self.bounds:
            return GlobalPositions(start, stop, self.images, self.bounds)
        passes, config = self.config.accumulate, self.config
        rank, world = self.process.rank, self.process.world
        return BatchPositions(start * passes, stop * passes, config.batch_size, rank, world)

    def __str__(self) -> str:
        parts = f"{self.process.world} processes" if self.process.world > 1 else "1 process"
        batches = f"{self.passes} batches each" if self.passes > 1 else "a batch each"
        return f"an update has {self.images} images ({parts}, {batches})"


def share_of(config: TrainConfig, process: Process) -> UpdateShare:
    """The share of a process. Raises ConfigError if `global_batch` is too small to be shared."""
    images, world = config.images_per_update(process.world), process.world
    if config.global_batch is None:
        return UpdateShare(config, process, images)
    most = -(-images // world)
    passes = -(-most // config.batch_size)
    if images // world < passes:
        raise ConfigError(
            f"global_batch is {images}, too few images for {world} processes with batches of at most"
            f" {config.batch_size}; give a multiple of {world}, or start fewer processes"
        )
    first, end = (images * rank // world for rank in (process.rank, process.rank + 1))
    edges = [first + (end - first) * index // passes for index in range(passes + 1)]
    return UpdateShare(config, process, images, tuple(pairwise(edges)))

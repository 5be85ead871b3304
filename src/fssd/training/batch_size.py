"""`--batch-size auto`: the largest batch that a GPU's memory holds, or from which a CPU gains no more."""

from __future__ import annotations

import sys
import time
from collections.abc import Callable
from copy import deepcopy
from dataclasses import replace
from pathlib import Path

import numpy as np
import torch

from fssd.config.config_files import load_config
from fssd.config.train_config import AUTO, TrainConfig
from fssd.data.batch import Batch
from fssd.data.sample import DataSet
from fssd.errors import ConfigError
from fssd.model.network import Network, channels_last
from fssd.training.distributed import Process, each, highest, together
from fssd.training.freeze import freeze, training_mode
from fssd.training.start import fresh_network
from fssd.training.step import Updater

LEAST = 2  # images: batch norm of one image can leave nothing of it
MOST_ON_CPU, MOST = 64, 1024  # images
GAIN = 1.05  # of images a second by doubling a batch, below which a CPU has enough
MEMORY = 0.9  # of a GPU's memory that a batch may take; images of one size leave the rest for evaluation
STEPS = 3  # of each size on a CPU, the first of which prepares kernels


def agree_batch_size(
    config: TrainConfig,
    dataset: DataSet,
    device: torch.device,
    process: Process,
    backbone: torch.nn.Module | None,
    started: Path | None,
) -> TrainConfig:
    """The configuration with a number instead of "auto", the same in all processes; the number is printed.

    started: the configuration file of the run that is resumed, if any, whose number is kept. Raises
    ConfigError if not even the least batch fits.
    """
    if config.batch_size != AUTO:
        return config
    if started is not None and started.is_file():
        sizes = each(together(process, lambda: load_config(started).batch_size), process)
        return replace(config, batch_size=sizes[0])
    most = min(MOST_ON_CPU if device.type == "cpu" else MOST, len(dataset))
    if config.global_batch is not None:
        most = min(most, -(-config.global_batch // process.world))
    most = max(most, 1)
    size = together(process, lambda: measured_size(config, dataset, device, backbone, most))
    size = -highest([-size], process, device)[0]
    if process.is_first:
        kind = "as much as its memory holds" if device.type == "cuda" else "more is hardly faster"
        kind = "the most that is tried" if size == most else kind
        print(f"batch size auto: {size} ({device.type}, {kind}); --lr is not scaled with it", file=sys.stderr)
    return replace(config, batch_size=size)


def measured_size(
    config: TrainConfig, dataset: DataSet, device: torch.device, backbone: torch.nn.Module | None, most: int
) -> int:
    """The batch size for a device, by updates of a network that is thrown away. most: the largest."""
    trial = _Trial(config, dataset, device, backbone)
    if device.type == "cpu":
        return knee(trial.images_per_second, most)
    return largest(trial.fits, most)


def knee(speed: Callable[[int], float], most: int) -> int:
    """The size from which doubling gains less than `GAIN`. speed: images a second of a size."""
    size = min(LEAST, most)
    now = speed(size)
    while 2 * size <= most:
        then = speed(2 * size)
        if then < GAIN * now:
            break
        size, now = 2 * size, then
    return size


def largest(fits: Callable[[int], bool], most: int) -> int:
    """The largest size that fits, to a quarter of a power of two. Raises ConfigError if not the least."""
    size = min(LEAST, most)
    if not fits(size):
        raise ConfigError(
            f"batch_size auto: not even {size} images fit into the memory of the GPU; give a smaller --size"
        )
    while 2 * size <= most and fits(2 * size):
        size *= 2
    for quarters in (7, 6, 5):
        more = size * quarters // 4
        if size < more <= most and fits(more):
            return more
    return size


class _Trial:
    """Updates of the run's network with made batches."""

    def __init__(
        self,
        config: TrainConfig,
        dataset: DataSet,
        device: torch.device,
        backbone: torch.nn.Module | None,
    ) -> None:
        self.config = replace(config, global_batch=None, accumulate=1, sync_norm=False, batch_size=LEAST)
        self.device = device
        network = fresh_network(config, dataset, deepcopy(backbone), quiet=True)
        self.network: Network = channels_last(network.to(device))
        freeze(self.network, config)
        training_mode(self.network, config)
        self.updater = Updater(self.network, self.config, device, Process(0, 1, 0))

    def _update(self, size: int) -> None:
        batch = self._batch(size)
        terms = self.updater.backward(batch, 0, last=True)
        self.updater.clip(batch, terms, 0)
        self.updater.step(0.0)

    def _batch(self, size: int) -> Batch:
        """Noise with an object in each image, of the largest size that the run has."""
        width, height = self.network.image_size
        box = np.array([[0.2 * width, 0.2 * height, 0.8 * width, 0.8 * height]], np.float32)
        one = self.network.heads.targets(box, np.zeros(1, np.int64))
        if self.config.multi_scale:
            width = height = max(self.config.multi_scale)
        generator = torch.Generator().manual_seed(0)
        images = torch.randint(0, 256, (size, 3, height, width), generator=generator, dtype=torch.uint8)
        targets = {key: torch.stack([value] * size) for key, value in one.items()}
        return Batch(images.contiguous(memory_format=torch.channels_last), targets, ["made"] * size)

    def images_per_second(self, size: int) -> float:
        times = []
        for _ in range(STEPS):
            start = time.perf_counter()
            self._update(size)
            times.append(time.perf_counter() - start)
        return size / min(times[1:])

    def fits(self, size: int) -> bool:
        torch.cuda.reset_peak_memory_stats(self.device)
        try:
            for _ in range(2):  # in the second, the optimizer has its state
                self._update(size)
            torch.cuda.synchronize(self.device)
        except torch.cuda.OutOfMemoryError:
            return False
        finally:
            self.updater.optimizer.zero_grad(set_to_none=True)
            torch.cuda.empty_cache()
        whole = torch.cuda.get_device_properties(self.device).total_memory
        return torch.cuda.max_memory_reserved(self.device) <= MEMORY * whole

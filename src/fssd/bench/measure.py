"""A complete measurement."""

from __future__ import annotations

import statistics
from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal

import cv2
import torch

from fssd.bench.machine import describe_machine
from fssd.bench.peak import peak_meter
from fssd.bench.photographs import Photographs
from fssd.bench.stages import network_step, time_stages
from fssd.bench.subject import Subject
from fssd.bench.summary import BenchReport
from fssd.bench.timing import WARM_UP, take_turns
from fssd.errors import ConfigError
from fssd.runtimes.cores import usable_cores
from fssd.runtimes.header import size_value

PEAK_TURNS = 8  # before the stages, and as many after them
TRIAL_TURNS = 5  # for each batch size in the search for the best one
GAIN = 1.02  # doubling the batch has to give this; less is noise, and every image waits longer
LARGEST_BATCH = 1024


@dataclass(frozen=True)
class Setup:
    """How to measure.

    mode: "latency" for one image at a time, "throughput" for the batch size with the most images per second.
    batch: a fixed batch size instead. score: threshold, see `Detector.__call__`. repeats, warm_up: turns that
    count, and turns before them.
    """

    mode: Literal["latency", "throughput"] = "latency"
    batch: int | None = None
    score: float = 0.5
    repeats: int = 30
    warm_up: int = WARM_UP


def use_threads(threads: int | None) -> None:
    """Set the threads of PyTorch and OpenCV, unless None; exported files get theirs when they are opened."""
    if threads is None:
        return
    if threads < 1:
        raise ConfigError(f"threads is {threads}; it must be 1 or more")
    torch.set_num_threads(threads)
    cv2.setNumThreads(threads)


def measure(subject: Subject, pictures: Photographs, setup: Setup) -> BenchReport:
    """Time a detector, and the machine's peak before and after it. Raises ConfigError for values below 1."""
    for name, value in (("batch", setup.batch), ("repeats", setup.repeats)):
        if value is not None and value < 1:
            raise ConfigError(f"{name} is {value}; it must be 1 or more")
    threads = subject.threads or usable_cores()
    machine = describe_machine(subject.device, threads)  # first, because it holds the load before
    meter = peak_meter(subject.device, threads, subject.precision)
    batch, tried = _choose_batch(subject, pictures, setup)
    meter.measure(PEAK_TURNS)
    timed = time_stages(subject, pictures, batch, setup.score, setup.repeats, setup.warm_up)
    meter.measure(PEAK_TURNS)
    return BenchReport(
        model={
            "name": subject.name,
            "runtime": subject.runtime,
            "precision": subject.precision,
            "weights": "random" if subject.random else "trained",
            "image_size": size_value(subject.detector.image_size),
            "classes": len(subject.detector.classes),
        },
        machine=machine,
        setup={
            "mode": None if setup.batch else setup.mode,
            "batch": batch,
            "score": setup.score,
            "warm_up": setup.warm_up,
            "images": pictures.what,
        },
        multiply_adds=subject.multiply_adds,
        timed=timed,
        peak=meter.peak(),
        batches=tried,
    )


def _choose_batch(subject: Subject, pictures: Photographs, setup: Setup) -> tuple[int, dict[int, float]]:
    """The batch size to measure, and images per second for each that was tried."""
    if setup.batch is not None or setup.mode == "latency":
        return setup.batch or 1, {}

    def rate(batch: int) -> float:
        step = network_step(subject, pictures, batch)
        (times,) = take_turns({batch: step}, TRIAL_TURNS, warm_up=2).values()
        return batch / statistics.median(times)

    return best_batch(rate)


def best_batch(rate: Callable[[int], float], most: int = LARGEST_BATCH) -> tuple[int, dict[int, float]]:
    """Double the batch until images per second stop rising, or memory or `most` is reached.

    rate: images per second at a batch size. Returns the best size and the rate of each that was tried.
    """
    batch, rates = 1, {1: rate(1)}
    while 2 * batch <= most:
        try:
            rates[2 * batch] = rate(2 * batch)
        except torch.OutOfMemoryError:
            break
        if rates[2 * batch] < GAIN * rates[batch]:
            break
        batch *= 2
    return batch, rates

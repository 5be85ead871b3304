"""One measurement from beginning to end."""

from __future__ import annotations

import statistics
from dataclasses import dataclass
from typing import Literal

import cv2
import torch

from fssd.bench.batches import best_batch
from fssd.bench.machine import describe_machine
from fssd.bench.peak import peak_meter
from fssd.bench.photographs import Pictures
from fssd.bench.stages import network_step, time_stages
from fssd.bench.subject import Subject
from fssd.bench.summary import Report
from fssd.bench.timing import WARM_UP, take_turns
from fssd.errors import ConfigError
from fssd.runtimes.cores import usable_cores
from fssd.runtimes.header import size_value

Mode = Literal["latency", "throughput"]

PEAK_TURNS = 8  # before the stages, and as many after them
TRIAL_TURNS = 5  # of each batch size in search of the best


@dataclass(frozen=True)
class Setup:
    """How to measure.

    mode: "latency" one image at a time, "throughput" the batch size that gives most images a second.
    batch: this one instead. score: as in `Detector.__call__`. repeats, warm_up: turns that count, and turns
    before them.
    """

    mode: Mode = "latency"
    batch: int | None = None
    score: float = 0.5
    repeats: int = 30
    warm_up: int = WARM_UP


def use_threads(threads: int | None) -> None:
    """Let PyTorch and OpenCV use so many threads, if not None; exported files get theirs when opened."""
    if threads is None:
        return
    if threads < 1:
        raise ConfigError(f"threads is {threads}; it must be 1 or more")
    torch.set_num_threads(threads)
    cv2.setNumThreads(threads)


def measure(subject: Subject, pictures: Pictures, setup: Setup) -> Report:
    """Time a detector and the machine's peak around it. Raises ConfigError for a batch or repeats below 1."""
    for name, value in (("batch", setup.batch), ("repeats", setup.repeats)):
        if value is not None and value < 1:
            raise ConfigError(f"{name} is {value}; it must be 1 or more")
    threads = subject.threads or usable_cores()
    machine = describe_machine(subject.device, threads)
    meter = peak_meter(subject.device, threads, subject.precision)
    batch, tried = _choose_batch(subject, pictures, setup)
    meter.measure(PEAK_TURNS)
    timed = time_stages(subject, pictures, batch, setup.score, setup.repeats, setup.warm_up)
    meter.measure(PEAK_TURNS)
    return Report(
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


def _choose_batch(subject: Subject, pictures: Pictures, setup: Setup) -> tuple[int, dict[int, float]]:
    """The batch size to measure, and images a second of those that were tried."""
    if setup.batch is not None:
        return setup.batch, {}
    if setup.mode == "latency":
        return 1, {}

    def rate(batch: int) -> float:
        step = network_step(subject, pictures, batch)
        (times,) = take_turns({batch: step}, TRIAL_TURNS, warm_up=2).values()
        return batch / statistics.median(times)

    return best_batch(rate)

"""One training step on a GPU: its time, its share of the chip's peak, and how often it waits for the device.

    python benchmarks/gpu_step.py --model fssd300-vgg16 --batch 32 --amp bf16

The batch is in memory; once warm, a step that waits for the device is an error. The work of a step is three
times that of the forward pass: the gradients by the inputs and by the weights cost as much each. Prints a
JSON object as its last line.
"""

from __future__ import annotations

import argparse
import json
import statistics
import time
from collections.abc import Iterator
from contextlib import contextmanager, nullcontext
from typing import Any

import numpy as np
import torch
from torch.profiler import ProfilerActivity, profile

from fssd.bench.machine import describe_machine
from fssd.bench.peak import peak_meter
from fssd.config.train_config import CHOICES, TrainConfig
from fssd.data.batch import Batch
from fssd.model.build import build_model
from fssd.model.cost import multiply_adds
from fssd.model.network import Network, channels_last
from fssd.training.distributed import Process
from fssd.training.kernels import kernel_choice
from fssd.training.precision import choose_amp
from fssd.training.step import Updater

# What the CUDA runtime calls its waits. A step should have none; the look at the losses is outside it.
WAITS = ("cudaStreamSynchronize", "cudaDeviceSynchronize", "cudaEventSynchronize")
WARM_UP, STEPS, PROFILED = 5, 20, 4
BOXES = [[20.0, 30, 120, 140], [200, 50, 240, 90]]


def main() -> None:
    args = _arguments()
    device = torch.device(args.device)
    with kernel_choice(args.kernels, device):
        print(json.dumps(measure(args, device)))


def measure(args: argparse.Namespace, device: torch.device) -> dict[str, Any]:
    """The figures of one step."""
    config = TrainConfig(clip_norm=10.0, ema=0.998, amp=choose_amp(args.amp, device))
    network = channels_last(build_model(args.model, 20).to(device)).train()
    updater = Updater(network, config, device, Process(0, 1, 0))
    batch = make_batch(network, args.batch)
    steps = WARM_UP + (STEPS if device.type == "cuda" else 2)
    seconds = [_timed(updater, batch, index, device) for index in range(steps)][WARM_UP:]
    meter = peak_meter(device, torch.get_num_threads(), "bf16" if config.amp == "bf16" else "fp32")
    meter.measure(8)
    peak = meter.peak()
    step = statistics.median(seconds)
    flop = 3 * 2 * multiply_adds(network.eval()) * args.batch
    network.train()
    return {
        "model": args.model,
        "kernels": args.kernels,
        "batch": args.batch,
        "amp": config.amp,
        "machine": describe_machine(device, torch.get_num_threads()),
        "step_milliseconds": [1000 * one for one in sorted(seconds)],
        "images_per_second": args.batch / step,
        "gflops": flop / step / 1e9,
        "peak_gflops": peak.gflops,
        "share_of_peak": flop / step / 1e9 / peak.gflops,
        **waits(updater, batch, device),
    }


def make_batch(network: Network, count: int) -> Batch:
    """Noise with two objects in each image."""
    width, height = network.image_size
    images = torch.from_numpy(
        np.random.default_rng(0).integers(0, 256, (count, 3, height, width), dtype=np.uint8)
    )
    if network.device.type == "cuda":
        images = images.pin_memory()
    boxes, labels = np.array(BOXES, np.float32), np.array([0, 1], np.int64)
    one = network.heads.targets(boxes, labels)
    return Batch(images, {key: torch.stack([value] * count) for key, value in one.items()}, ["noise"] * count)


@contextmanager
def no_waits(device: torch.device) -> Iterator[None]:
    """Raise RuntimeError for anything in a with block that waits for a GPU."""
    if device.type == "cuda":
        torch.cuda.set_sync_debug_mode("error")
    try:
        yield
    finally:
        if device.type == "cuda":
            torch.cuda.set_sync_debug_mode("default")


def _update(updater: Updater, batch: Batch, index: int) -> None:
    terms = updater.backward(batch, index, last=True)
    updater.clip(batch, terms, index)
    updater.step(1e-5)


def _timed(updater: Updater, batch: Batch, index: int, device: torch.device) -> float:
    _wait(device)
    start = time.perf_counter()
    with no_waits(device) if index >= WARM_UP else nullcontext():  # counters are read back once, at first
        _update(updater, batch, index)
    _wait(device)
    updater.watch.look()
    return time.perf_counter() - start


def _wait(device: torch.device) -> None:
    if device.type == "cuda":
        torch.cuda.synchronize(device)


def waits(updater: Updater, batch: Batch, device: torch.device) -> dict[str, Any]:
    """How often a step waits for the device, and the kernels that take the longest."""
    activities = [ProfilerActivity.CPU] + [ProfilerActivity.CUDA] * (device.type == "cuda")
    with profile(activities=activities) as profiler:
        for index in range(PROFILED):
            _update(updater, batch, index)
    events = profiler.key_averages()
    counts = {event.key: event.count for event in events if event.key in WAITS}
    if counts.get("cudaDeviceSynchronize"):
        counts["cudaDeviceSynchronize"] -= 1  # the profiler's, at its end
    spent = sorted(events, key=_device_time, reverse=True)
    return {
        "waits_per_step": {name: count / PROFILED for name, count in counts.items() if count},
        "longest": {event.key: _device_time(event) / PROFILED / 1000 for event in spent[:12]},
    }


def _device_time(event: Any) -> float:
    """Microseconds on the device, or on the CPU where that is the device."""
    return float(getattr(event, "self_device_time_total", 0) or event.self_cpu_time_total)


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--model", default="fssd300-vgg16")
    parser.add_argument("--batch", type=int, default=32)
    parser.add_argument("--amp", default="bf16", choices=("off", "bf16", "fp16"))
    parser.add_argument("--kernels", default="default", choices=CHOICES["kernels"])
    parser.add_argument("--device", default="cuda")
    return parser.parse_args()


if __name__ == "__main__":
    main()

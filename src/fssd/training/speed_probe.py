"""Which precision trains faster on this processor, by a short measurement."""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable

import torch
from torch import nn

from fssd.layers.depthwise import DepthwiseConv2d

TURNS = 7
CHANNELS, SIDE, IMAGES = 128, 24, 4


def bf16_ratio(clock: Callable[[], float] = time.perf_counter) -> float:
    """Time of a training step of one block in bf16 over that in float32: the median of turns, about 0.2 s.

    The block has what the networks have: a 3x3 convolution, a depthwise one, batch norm, ReLU6. Both
    precisions take turns on one thread, so that other work on the machine slows them equally: several threads
    would measure their waits for each other. clock: seconds.
    """
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        return _ratio(clock)
    finally:
        torch.set_num_threads(threads)


def _ratio(clock: Callable[[], float]) -> float:
    with torch.random.fork_rng(devices=[]):
        torch.default_generator.manual_seed(0)
        block = _block()
        images = torch.rand(IMAGES, CHANNELS, SIDE, SIDE).contiguous(memory_format=torch.channels_last)
    ratios = []
    for turn in range(TURNS + 1):
        plain, mixed = (_time_step(block, images, amp, clock) for amp in (False, True))
        if turn:  # the first one prepares kernels
            ratios.append(mixed / plain)
    return statistics.median(ratios)


def _block() -> nn.Module:
    block = nn.Sequential(
        nn.Conv2d(CHANNELS, CHANNELS, 3, padding=1, bias=False),
        nn.BatchNorm2d(CHANNELS),
        nn.ReLU6(),
        DepthwiseConv2d(CHANNELS, 3, padding=1),
        nn.BatchNorm2d(CHANNELS),
        nn.ReLU6(),
    )
    block.to(memory_format=torch.channels_last)  # type: ignore[call-overload]
    return block


def _time_step(block: nn.Module, images: torch.Tensor, amp: bool, clock: Callable[[], float]) -> float:
    start = clock()
    with torch.autocast("cpu", torch.bfloat16, enabled=amp):
        result = block(images)
    result.float().mean().backward()
    block.zero_grad(set_to_none=True)
    return clock() - start

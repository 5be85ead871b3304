"""The fastest matrix products on this machine, with which a network's speed is compared.

No library is the fastest everywhere (MKL, for example, is slow on AMD), so several are timed, and the peak is
the highest of their medians. A 1x1 convolution is a matrix product as well.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial
from importlib.util import find_spec
from typing import Any, NamedTuple

import numpy as np
import torch
import torch.nn.functional as F

from fssd.bench.timing import Spread, Step, rates, take_turns
from fssd.runtimes.cores import usable_cores
from fssd.runtimes.packages import openvino_core, require_openvino

CPU_SIDES = (512, 1024, 2048)
CUDA_SIDES = (4096, 8192)
MAP = (1024, 48)  # channels, and rows and columns, of the map that the 1x1 convolution reads
CUDA_CALLS = 8  # products in one step, because starting a step costs as much as a small product


class Way(NamedTuple):
    """One way to multiply matrices. flop: operations of a step, two for a multiply-add."""

    name: str
    flop: float
    step: Step


@dataclass(frozen=True)
class Peak:
    """GFLOP/s (10^9 operations per second) of each way. precision: of the multiplied numbers."""

    precision: str
    ways: dict[str, Spread]

    @property
    def best(self) -> str:
        """The way with the highest median."""
        return max(self.ways, key=lambda name: self.ways[name].median)

    @property
    def gflops(self) -> float:
        """The highest median."""
        return self.ways[self.best].median


class PeakMeter:
    """Measures in several parts, so that it covers the machine before and after another measurement.

    precision: of the numbers that `ways` multiply, for the record; "tf32" also lets PyTorch use it.
    """

    def __init__(self, ways: Sequence[Way], precision: str) -> None:
        self.precision = precision
        self.ways = {way.name: way for way in ways}
        self.times: dict[str, list[float]] = {way.name: [] for way in ways}

    def measure(self, repeats: int) -> None:
        """Time each way another `repeats` times."""
        before = torch.get_float32_matmul_precision()
        torch.set_float32_matmul_precision("high" if self.precision == "tf32" else before)
        try:
            with torch.inference_mode():
                taken = take_turns({name: way.step for name, way in self.ways.items()}, repeats, warm_up=1)
        finally:
            torch.set_float32_matmul_precision(before)
        for name, times in taken.items():
            self.times[name] += times

    def peak(self) -> Peak:
        """The result of all parts together."""
        speeds = {name: rates(times, self.ways[name].flop / 1e9) for name, times in self.times.items()}
        return Peak(self.precision, speeds)


def peak_meter(device: torch.device, threads: int, precision: str) -> PeakMeter:
    """A meter for the device of a network.

    precision: of the network. On the CPU the products are always fp32. On CUDA they are bf16 for a bf16
    network and TF32 for all others, which PyTorch's convolutions use there.
    """
    if device.type != "cuda":
        return PeakMeter(cpu_ways(threads), "fp32")
    if precision == "bf16":
        return PeakMeter(cuda_ways(device, torch.bfloat16), "bf16")
    return PeakMeter(cuda_ways(device, torch.float32), "tf32")


def cpu_ways(threads: int, sides: Sequence[int] = CPU_SIDES, cells: tuple[int, int] = MAP) -> list[Way]:
    """Float32 products of square matrices with `threads` threads, and a 1x1 convolution.

    PyTorch uses the threads it is set to. numpy cannot be limited here, so it takes part only if `threads`
    is one per core. OpenVINO takes part if it is installed.
    """
    ways = []
    for side in sides:
        a, b = torch.rand(side, side), torch.rand(side, side)
        flop = 2.0 * side**3
        ways.append(Way(f"torch.mm {side}", flop, partial(torch.mm, a, b)))
        if threads == usable_cores():
            ways.append(Way(f"numpy {side}", flop, partial(np.matmul, a.numpy(), b.numpy())))
        if find_spec("openvino") is not None:
            ways.append(Way(f"OpenVINO MatMul {side}", flop, _openvino_step(a.numpy(), b.numpy(), threads)))
    return [*ways, _convolution(*cells)]


def cuda_ways(device: torch.device, dtype: torch.dtype) -> list[Way]:
    """Products of square matrices on a GPU."""
    ways = []
    for side in CUDA_SIDES:
        a, b = (torch.rand(side, side, device=device, dtype=dtype) for _ in range(2))
        ways.append(Way(f"torch.mm {side}", CUDA_CALLS * 2.0 * side**3, partial(_cuda_step, a, b)))
    return ways


def _cuda_step(a: torch.Tensor, b: torch.Tensor) -> None:
    for _ in range(CUDA_CALLS):
        torch.mm(a, b)
    torch.cuda.synchronize(a.device)


def _convolution(channels: int, cells: int) -> Way:
    maps = torch.rand(1, channels, cells, cells).contiguous(memory_format=torch.channels_last)
    weights = torch.rand(channels, channels, 1, 1).contiguous(memory_format=torch.channels_last)
    flop = 2.0 * channels * channels * cells * cells
    return Way(f"torch 1x1 convolution {channels} x {cells}²", flop, partial(F.conv2d, maps, weights))


def _openvino_step(a: np.ndarray, b: np.ndarray, threads: int) -> Step:
    openvino = require_openvino()
    ops: Any = openvino.opset13
    rows = ops.parameter(list(a.shape), np.float32)
    model = openvino.Model([ops.matmul(rows, ops.constant(b), False, False)], [rows])
    settings = {"INFERENCE_NUM_THREADS": threads, "INFERENCE_PRECISION_HINT": "f32"}
    compiled = openvino_core().compile_model(model, "CPU", {"PERFORMANCE_HINT": "LATENCY", **settings})
    return partial(compiled.create_infer_request().infer, {0: a}, share_inputs=True)

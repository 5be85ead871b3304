"""Which kernels a GPU trains with: those of cuDNN's heuristics, repeatable ones, or the fastest measured."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager

import torch

from fssd.config.train_config import Kernels
from fssd.errors import ConfigError

WORKSPACE = "CUBLAS_WORKSPACE_CONFIG"  # cuBLAS reads it once, when it is first used


@contextmanager
def kernel_choice(kernels: Kernels, device: torch.device) -> Iterator[None]:
    """Train with such kernels for the length of a with block.

    "deterministic": equal runs have equal bytes; an operation that has no such form warns and names itself.
    "benchmark": cuDNN times its kernels for every shape of input and takes the fastest, which may be another
    one in the next run. Raises ConfigError where it has no effect: a CPU is always deterministic.
    """
    if kernels == "default":
        yield
        return
    if device.type != "cuda":
        raise ConfigError(
            f"--kernels {kernels} is for a GPU, this run is on {device}; leave it out (on a CPU equal runs"
            " have equal bytes)"
        )
    deterministic = kernels == "deterministic"
    before = (
        torch.are_deterministic_algorithms_enabled(),
        torch.is_deterministic_algorithms_warn_only_enabled(),
    )
    if deterministic:
        os.environ.setdefault(WORKSPACE, ":4096:8")
        torch.use_deterministic_algorithms(True, warn_only=True)
    tf32 = torch.backends.cudnn.allow_tf32
    try:
        with torch.backends.cudnn.flags(
            enabled=True, benchmark=not deterministic, deterministic=deterministic, allow_tf32=tf32
        ):
            yield
    finally:
        torch.use_deterministic_algorithms(before[0], warn_only=before[1])

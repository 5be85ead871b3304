"""Training by several processes under torchrun."""

from __future__ import annotations

import os
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from datetime import timedelta
from typing import Any, NamedTuple

import torch
import torch.distributed as dist

from fssd.errors import ConfigError


class Process(NamedTuple):
    """rank: number of this process. world: how many there are. local: its number on this machine."""

    rank: int
    world: int
    local: int

    @property
    def is_first(self) -> bool:
        """Whether this process writes files and evaluates."""
        return self.rank == 0


@contextmanager
def process_group(use_cuda: bool) -> Iterator[Process]:
    """Join the group that torchrun describes in the environment, or be alone where there is none."""
    if "WORLD_SIZE" not in os.environ or int(os.environ["WORLD_SIZE"]) == 1:
        yield Process(0, 1, 0)
        return
    local = int(os.environ.get("LOCAL_RANK", "0"))
    if use_cuda and local >= torch.cuda.device_count():
        raise ConfigError(f"process {local} has no GPU of its own; start at most {torch.cuda.device_count()}")
    if use_cuda:
        torch.cuda.set_device(local)
    # The first process evaluates alone; the others wait for it longer than the ten minutes NCCL allows.
    dist.init_process_group("nccl" if use_cuda else "gloo", timeout=timedelta(hours=2))
    try:
        yield Process(dist.get_rank(), dist.get_world_size(), local)
    finally:
        dist.destroy_process_group()


def wait_for_all(process: Process) -> None:
    """Wait until every process is here."""
    if process.world > 1:
        dist.barrier()


def any_process(flag: bool, process: Process, device: torch.device) -> bool:
    """Whether `flag` is set in any process, so that all of them stop together."""
    return bool(highest([flag], process, device)[0])


def highest(values: Sequence[int], process: Process, device: torch.device) -> list[int]:
    """The highest of each value over the processes, in one exchange. Values: whole numbers up to 2^24."""
    if process.world == 1:
        return list(values)
    tensor = torch.tensor([float(value) for value in values], device=device)
    dist.all_reduce(tensor, op=dist.ReduceOp.MAX)
    return [int(value) for value in tensor.tolist()]


def of_all(value: dict[str, Any], process: Process) -> dict[str, Any]:
    """The dictionaries of all processes as one; of equal keys the first process's counts."""
    if process.world == 1:
        return value
    values: list[dict[str, Any]] = [{}] * process.world
    dist.all_gather_object(values, value)
    return {key: one[key] for one in reversed(values) for key in one}

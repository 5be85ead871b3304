"""The processes of a run: who they are, their group, and what they exchange."""

from __future__ import annotations

import os
import socket
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from datetime import timedelta
from typing import Any, NamedTuple, TypeVar

import torch
import torch.distributed as dist

from fssd.errors import ConfigError, FssdError, TrainingError
from fssd.inference.detector import pick_device

TIMEOUT = 10.0  # minutes; as long as NCCL waits by default
SLURM_PORT = 29500  # of the first process, where MASTER_PORT is not given; torchrun's default too
_LAST_PORT = 65535
# What mpirun tells each of its processes: how many there are.
MPI_SIZES = ("OMPI_COMM_WORLD_SIZE", "PMI_SIZE")
Key = TypeVar("Key")
Result = TypeVar("Result")


class Process(NamedTuple):
    """rank: number of this process. world: how many there are. local: its number on this machine."""

    rank: int
    world: int
    local: int

    @property
    def is_first(self) -> bool:
        """Whether this process writes files and prints."""
        return self.rank == 0


def this_process() -> Process:
    """This process, by the group that exists, by torchrun's variables or by Slurm's; else it is alone.

    Raises ConfigError for one of several processes that have no way to find each other: each would train a
    model of its own and write it to the same folder.
    """
    local = _number("LOCAL_RANK", _number("SLURM_LOCALID", 0))
    if dist.is_available() and dist.is_initialized():
        return Process(dist.get_rank(), dist.get_world_size(), local)
    if "WORLD_SIZE" in os.environ:
        world = _number("WORLD_SIZE", 1)
        if world > 1 and "RANK" not in os.environ:
            raise ConfigError(f"WORLD_SIZE is {world}, but RANK is not set; start with torchrun, or set both")
        return _numbered("RANK", "WORLD_SIZE", world, local)
    tasks = _number("SLURM_STEP_NUM_TASKS", _number("SLURM_NTASKS", 1))
    if tasks > 1 and "SLURM_PROCID" in os.environ:
        if "MASTER_ADDR" not in os.environ:
            raise ConfigError(
                f"this is one of {tasks} Slurm tasks, but MASTER_ADDR, the host of task 0, is not set; export"
                " it before srun, or set WORLD_SIZE=1 for tasks that train alone, each with its own --out"
            )
        return _numbered("SLURM_PROCID", "SLURM_NTASKS", tasks, local)
    for name in MPI_SIZES:
        if (size := _number(name, 1)) > 1:
            raise ConfigError(
                f"this is one of {size} processes ({name}) without a group; start them with torchrun, or set"
                " RANK, WORLD_SIZE, LOCAL_RANK, MASTER_ADDR and MASTER_PORT for each"
            )
    return Process(0, 1, 0)


def _numbered(variable: str, of: str, world: int, local: int) -> Process:
    """The process of the number in a variable; `of` is that of their number. Raises ConfigError."""
    if world < 1:
        raise ConfigError(f"the environment variable {of} is {world}; it must be 1 or more")
    rank = _number(variable, 0)
    if rank >= world:
        raise ConfigError(f"{variable} is {rank} of {world} processes ({of}); they are numbered from 0")
    return Process(rank, world, local)


def is_launched() -> bool:
    """Whether something that starts several processes has started this one, be it as the only one."""
    started = dist.is_available() and dist.is_initialized()
    return started or "WORLD_SIZE" in os.environ or this_process().world > 1


def _number(variable: str, default: int) -> int:
    text = os.environ.get(variable, "").strip()
    if text and not text.isdecimal():
        raise ConfigError(f"the environment variable {variable} is {text!r}; it must be a whole number")
    return int(text) if text else default


def own_device(name: str, process: Process) -> torch.device:
    """The device of a process: of several, each has the GPU of its number on its machine.

    That GPU is made the current one before anything uses it: else every process would also take half a
    gigabyte of GPU 0. Raises ConfigError.
    """
    device = pick_device(name)
    if device.type != "cuda" or process.world == 1:
        return device
    if ":" in name:
        raise ConfigError(
            f"device {name} is one GPU, but each of {process.world} processes takes its own; give cuda"
        )
    count, index = torch.cuda.device_count(), process.local
    if count == 1 and "SLURM_LOCALID" in os.environ:
        index = 0  # Slurm can show each task its own GPU alone
    if index >= count:
        raise ConfigError(f"process {index} has no GPU of its own; start at most {count} on a machine")
    torch.cuda.set_device(index)
    return torch.device("cuda", index)


@contextmanager
def process_group(process: Process, device: torch.device, timeout: float = TIMEOUT) -> Iterator[None]:
    """Be in the group of all processes for the length of a with block; a group that exists is used and kept.

    timeout: minutes after which a process that waits for another one fails. Raises ConfigError.
    """
    if process.world == 1 or dist.is_initialized():
        yield
        return
    _refuse_shared_store()
    _join(process, device, timeout)
    try:
        yield
    finally:
        dist.destroy_process_group()


def _join(process: Process, device: torch.device, timeout: float) -> None:
    place = _first_place(process)
    where: dict[str, Any] = {}
    if "WORLD_SIZE" not in os.environ:
        where = {"init_method": f"tcp://{place}", "rank": process.rank, "world_size": process.world}
    if device.type == "cuda":
        where["device_id"] = device  # else NCCL guesses it at the first barrier
    backend = "nccl" if device.type == "cuda" else "gloo"
    try:
        dist.init_process_group(backend, timeout=timedelta(minutes=timeout), **where)
    except (ValueError, RuntimeError) as error:
        reason = " ".join(str(error).split())[:200]
        raise ConfigError(
            f"process {process.rank} of {process.world} cannot join the others at {place} ({reason}); check"
            " MASTER_ADDR and MASTER_PORT, and that all processes were started and see each other"
        ) from error


def _first_place(process: Process) -> str:
    """HOST:PORT of the first process. Raises ConfigError."""
    host = os.environ.get("MASTER_ADDR", "").strip()
    if not host:
        raise ConfigError(
            f"this is one of {process.world} processes, but MASTER_ADDR, the host of the first, is not set;"
            " start with torchrun, or set MASTER_ADDR and MASTER_PORT for each"
        )
    port = _number("MASTER_PORT", 0 if "WORLD_SIZE" in os.environ else SLURM_PORT)
    if not 1 <= port <= _LAST_PORT:
        stated = os.environ.get("MASTER_PORT", "not set")
        raise ConfigError(
            f"the environment variable MASTER_PORT is {stated}; it must be a port that is free on the host of"
            f" the first process, 1 to {_LAST_PORT}"
        )
    return f"{host}:{port}"


def _refuse_shared_store() -> None:
    """Workers of several agents that share the agents' store find the addresses of the dead after a restart.

    They hang then: the address is cached over rounds (torch 2.13, dynamic_rendezvous.py).
    """
    restarts, agents = _number("TORCHELASTIC_MAX_RESTARTS", 0), _number("GROUP_WORLD_SIZE", 1)
    shared = os.environ.get("TORCHELASTIC_USE_AGENT_STORE", "").strip().lower() == "true"
    if shared and restarts and agents > 1:
        raise ConfigError(
            "after a restart the workers of several torchrun agents would hang, because they share the"
            " agents' store; export TORCH_DISABLE_SHARE_RDZV_TCP_STORE=1 before torchrun, on every machine"
        )


def own_batches(count: int, size: int, process: Process) -> list[list[int]]:
    """The batches of this process, as numbers of the images from 0 to count - 1.

    Whole batches go to the processes in turn, so that every image is in the batch that it is in with one
    process, which decides the last bits of its scores.
    """
    starts = range(0, count, size)[process.rank :: process.world]
    return [list(range(start, min(start + size, count))) for start in starts]


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


def each(value: Result, process: Process) -> list[Result]:
    """The values of all processes, by rank; any that pickle takes."""
    if process.world == 1:
        return [value]
    values: list[Any] = [None] * process.world
    dist.all_gather_object(values, value)
    return values


def of_first(tensors: Mapping[str, torch.Tensor], process: Process) -> dict[str, torch.Tensor]:
    """The first process's tensors, in copies; all processes have tensors of the same names and shapes."""
    copies = {name: tensor.detach().clone() for name, tensor in tensors.items()}
    for tensor in copies.values() if process.world > 1 else ():
        dist.broadcast(tensor, src=0)
    return copies


def of_all(value: dict[Key, Result], process: Process) -> dict[Key, Result]:
    """The dictionaries of all processes as one; of equal keys the first process's counts."""
    return {key: one[key] for one in reversed(each(value, process)) for key in one}


def together(process: Process, work: Callable[[], Result]) -> Result:
    """The result of `work`, which every process does; if it fails in one of them, all raise.

    Without this the others would wait for the one that failed until the time is out. `work` must not wait
    for other processes. Raises its own FssdError, or TrainingError for that of another process.
    """
    if process.world == 1:
        return work()
    error: FssdError | None = None
    try:
        result = work()
    except FssdError as caught:
        error = caught
    failures = each(error and f"process {process.rank} on {socket.gethostname()}: {error}", process)
    if error is not None:
        raise error
    for failure in failures:
        if failure is not None:
            raise TrainingError(failure)
    return result

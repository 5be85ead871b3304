"""Training by Ray Train: a group of processes that starts again by itself when a machine is lost."""

from __future__ import annotations

import math
import os
import secrets
import shutil
import signal
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from importlib import import_module
from pathlib import Path
from typing import Any

from fssd.atomic import make_folder, remove_leftovers, temporary_prefix
from fssd.config.train_config import TrainConfig
from fssd.engines.ray_session import connect, own_signals
from fssd.errors import ConfigError, FssdError, Stopped, TrainingError
from fssd.training.distributed import TIMEOUT, this_process
from fssd.training.loop import Result, train
from fssd.training.start import check_start, complete

RESTARTS = 5  # of the group, in a run
STORAGE = "ray"  # Ray's own notes, in the folder of the run while it goes on
# Seconds until a group that is being started is given up: new machines may be on their way.
_START = {"RAY_TRAIN_WORKER_GROUP_START_TIMEOUT_S": "300", "RAY_TRAIN_ENABLE_PRINT_PATCH": "0"}


@dataclass(frozen=True)
class Job:
    """What each process does. folder: that relative paths start from. until: seconds of `time.time`."""

    config: TrainConfig
    folder: str
    until: float

    def run(self) -> Result | FssdError:
        """Train in the group that Ray has made. An error of the package is not one to start again for."""
        minutes = None if math.isinf(self.until) else max((self.until - time.time()) / 60, 1e-3)
        try:
            os.chdir(self.folder)
        except OSError as error:
            host = os.uname().nodename
            return ConfigError(
                f"{host} has no folder {self.folder} ({error.strerror}); all machines must see it and --out"
            )
        try:
            return train(self.config, resume=True, minutes=minutes)
        except FssdError as error:
            return error


def train_on_ray(
    config: TrainConfig,
    processes: int,
    *,
    resume: bool = False,
    minutes: float | None = None,
    timeout: float | None = None,
) -> Result:
    """`train` by as many processes of a Ray cluster, each with a GPU where there are any.

    When a process or machine is lost, all start again from the last saved state as soon as the cluster has
    room for them, and end in the same bytes. The folder `out` must be on a disk that all machines share. See
    `train` for the rest, and what is raised; on Ctrl-C updates since the last saved state are lost.
    """
    config = complete(config)
    assert config.out is not None
    if this_process().world > 1:
        raise ConfigError("--engine ray starts the processes itself; start it without torchrun or srun")
    check_start(config, resume)
    for name, value in _START.items():
        os.environ.setdefault(name, value)
    until = math.inf if minutes is None else time.time() + 60 * minutes
    with connect(processes) as ray:
        use_gpu = _use_gpu(ray, config, processes)
        job = Job(config, str(Path.cwd()), until)
        with _storage(config.out.absolute()) as storage:
            print(f"{processes} processes train; see {config.out}/log.jsonl", file=sys.stderr)
            return _fit(job, processes, storage, use_gpu, (timeout or TIMEOUT) * 60)


@contextmanager
def _storage(out: Path) -> Iterator[Path]:
    """A fresh folder in the folder of the run for Ray's notes, which goes when the run has ended.

    It lies a level deeper than what a run on another machine takes for the leftovers of a killed one.
    """
    place = out / STORAGE
    make_folder(place)
    remove_leftovers(place)
    storage = place / f"{temporary_prefix()}{secrets.token_hex(6)}"
    try:
        yield storage
    finally:
        shutil.rmtree(storage, ignore_errors=True)
        with suppress(OSError):  # the user's own files lie there too
            place.rmdir()


def _use_gpu(ray: Any, config: TrainConfig, processes: int) -> bool:
    """Whether each process gets a GPU. Raises ConfigError if the cluster has too little for the processes."""
    have = ray.cluster_resources()
    use_gpu = config.device.startswith("cuda") or (config.device == "auto" and have.get("GPU", 0) > 0)
    kind = "GPU" if use_gpu else "CPU"
    if have.get(kind, 0) < processes:
        raise ConfigError(
            f"the cluster has {have.get(kind, 0):g} {kind}s, too few for {processes} processes; give a"
            " smaller --processes"
        )
    return use_gpu


def _fit(job: Job, processes: int, storage: Path, use_gpu: bool, timeout: float) -> Result:
    # By name: Ray's types are those of an older interface, which its variables choose between.
    api: Any = import_module("ray.train")
    torch_api: Any = import_module("ray.train.torch")
    exceptions: Any = import_module("ray.exceptions")
    resources = {"CPU": 1, **({"GPU": 1} if use_gpu else {})}
    backend = "nccl" if use_gpu else "gloo"
    trainer = torch_api.TorchTrainer(
        job.run,
        torch_config=torch_api.TorchConfig(backend=backend, timeout_s=math.ceil(timeout)),
        scaling_config=api.ScalingConfig(
            num_workers=processes, use_gpu=use_gpu, resources_per_worker=resources
        ),
        run_config=api.RunConfig(
            name="train",
            storage_path=str(storage),
            failure_config=api.FailureConfig(max_failures=RESTARTS),
            logging_config=api.LoggingConfig(log_level="ERROR"),
        ),
    )
    try:
        with own_signals():
            ended = trainer.fit().return_value
    except KeyboardInterrupt as error:
        raise Stopped(signal.SIGINT, "stopped", "the same command with --resume continues") from error
    except api.TrainingFailedError as error:
        reason = str(error).strip().splitlines()[-1]
        raise TrainingError(f"the processes failed {RESTARTS + 1} times, at last with: {reason}") from error
    except exceptions.RayError as error:  # what starts the group again was lost itself
        reason = (str(error).strip().splitlines() or [type(error).__name__])[0]
        raise TrainingError(f"Ray lost what leads the processes ({reason}); go on with --resume") from error
    if isinstance(ended, FssdError):
        raise ended
    if not isinstance(ended, Result):
        raise TrainingError("Ray Train ended without a result; go on with --resume")
    return ended

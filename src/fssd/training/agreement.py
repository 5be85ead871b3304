"""Whether all processes of a run see the same state, settings, data and folder, before the first update.

Processes that start from different states train on together, exchange gradients, and end as different models.
"""

from __future__ import annotations

import json
import socket
import time
import uuid
from collections.abc import Sequence
from hashlib import blake2b
from pathlib import Path
from typing import NamedTuple

import torch

from fssd.config.train_config import RESUME_MAY_CHANGE, to_values
from fssd.errors import ConfigError, FssdError
from fssd.training.distributed import Process, each, wait_for_all
from fssd.training.folder import RunFolder, Saved, read_saved
from fssd.training.same_data import content_of
from fssd.training.splits import TrainingSplits

# A network file system may show a file that another machine has written some seconds later.
LOOKS, PAUSE = 8, 2.0  # times, seconds


class StateSeen(NamedTuple):
    """The state that a process reads in the folder of the run; iteration None: there is none."""

    host: str
    iteration: int | None = None
    digest: str = ""
    error: str = ""

    def __str__(self) -> str:
        seen = "no state" if self.iteration is None else f"a state of update {self.iteration}"
        return f"{self.error or seen} on {self.host}"


def agreed_state(out: Path, process: Process) -> Saved | None:
    """The state to resume from, the same in all processes, or None for a new run.

    Raises CheckpointError for a state that cannot be read, and in every process ConfigError if one of them
    sees another state than the first.
    """
    for look in range(LOOKS):
        saved, error = None, None
        try:
            saved = read_saved(out)
        except FssdError as caught:
            error = caught
        if process.world == 1:
            break
        seen = each(_state_seen(saved, error), process)
        if all(one[1:] == seen[0][1:] for one in seen):
            break
        if look < LOOKS - 1:
            time.sleep(PAUSE)
    else:
        raise _differ(out, seen)
    if error is not None:
        raise error
    return saved


def _state_seen(saved: Saved | None, error: FssdError | None) -> StateSeen:
    host = socket.gethostname()
    if error is not None:
        return StateSeen(host, error=str(error))
    if saved is None:
        return StateSeen(host)
    digest = blake2b(json.dumps(saved.document, sort_keys=True).encode(), digest_size=16)
    for name, tensor in sorted(saved.tensors.items()):
        digest.update(f"{name} {tuple(tensor.shape)} {tensor.dtype}".encode())
        digest.update(tensor.contiguous().flatten().view(torch.uint8).numpy().data)
    return StateSeen(host, int(saved.document["iteration"]), digest.hexdigest())


def _differ(out: Path, seen: Sequence[StateSeen]) -> ConfigError:
    other = next(rank for rank, one in enumerate(seen) if one[1:] != seen[0][1:])
    return ConfigError(
        f"{out}: process 0 sees {seen[0]}, process {other} {seen[other]}; --out must be one folder that all"
        " processes share"
    )


def require_same_inputs(splits: TrainingSplits, process: Process) -> None:
    """Raise ConfigError, in every process, if one has other settings, images or labels than the first."""
    if process.world == 1:
        return
    config = splits.config
    settings = {key: value for key, value in to_values(config).items() if key not in RESUME_MAY_CHANGE}
    data = [content_of(split).digest() for split in (splits.train, splits.val) if split is not None]
    views = each((socket.gethostname(), settings, splits.train.classes, data), process)
    host, first, classes, images = views[0]
    for rank, (other_host, other, other_classes, other_images) in enumerate(views):
        where = f"process {rank} on {other_host}"
        for key in first:
            if first[key] != other[key]:
                raise ConfigError(
                    f"process 0 on {host} was started with {key} {first[key]!r}, {where} with {other[key]!r};"
                    " give all processes the same settings"
                )
        if (classes, images) != (other_classes, other_images):
            raise ConfigError(
                f"{config.data}: {where} sees other images or labels than process 0 on {host}; give all"
                " processes the same data"
            )


def require_shared(folder: RunFolder, process: Process) -> None:
    """Raise ConfigError, in every process, if one does not see what the first writes into the folder."""
    if process.world == 1:
        return
    name = each(f".tmp-shared-{uuid.uuid4().hex}", process)[0]
    if process.is_first:
        (folder.path / name).touch()
    wait_for_all(process)
    sees = False
    for _ in range(LOOKS):
        # Listing a folder makes a network file system ask for what is new in it.
        sees = folder.path.is_dir() and any(file.name == name for file in folder.path.iterdir())
        if sees:
            break
        time.sleep(PAUSE)
    blind = [host for host in each("" if sees else socket.gethostname(), process) if host]
    if process.is_first:
        (folder.path / name).unlink(missing_ok=True)
    if blind:
        raise ConfigError(
            f"{folder.path}: {blind[0]} does not see what process 0 writes there; --out must be one folder"
            " that all processes share"
        )

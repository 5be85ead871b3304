"""`fssd eval` under torchrun or srun: all processes detect, the first one measures, prints and writes."""

from __future__ import annotations

import contextlib
import io
import socket
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import replace
from typing import TYPE_CHECKING, Any

from fssd.cli.options import detect_all
from fssd.cli.result import leave_result_out
from fssd.data.columns import take
from fssd.errors import ConfigError
from fssd.training.distributed import (
    Process,
    each,
    of_all,
    own_batches,
    own_device,
    process_group,
    this_process,
    together,
)
from fssd.training.same_data import content_of

if TYPE_CHECKING:
    from rich.console import Console

    from fssd.data.sample import DataSet
    from fssd.inference.detections import Detections
    from fssd.inference.detector import Detector


@contextmanager
def evaluation_group() -> Iterator[Process]:
    """The processes that evaluate together, for the length of a with block; all but the first are silent.

    Errors are still printed by the process that raises them. Raises ConfigError.
    """
    import torch

    process = this_process()
    if not process.is_first:
        leave_result_out()
    with contextlib.ExitStack() as stack:
        # Only detections are exchanged, which are not on a GPU.
        stack.enter_context(process_group(process, torch.device("cpu")))
        if not process.is_first:
            stack.enter_context(contextlib.redirect_stdout(io.StringIO()))
            stack.enter_context(contextlib.redirect_stderr(io.StringIO()))
        yield process


def device_of(name: str, process: Process) -> str:
    """`--device` for this process. Raises ConfigError."""
    return name if process.world == 1 else str(own_device(name, process))


def detect_in_group(
    detector: Detector, dataset: DataSet, console: Console, process: Process, **settings: Any
) -> list[Detections]:
    """The detections in each image, the same in all processes as one alone would find.

    settings: of `Detector.evaluate_on`. Raises, in every process, what one of them raises.
    """
    if process.world == 1:
        return detect_all(detector, dataset, console, **settings)
    _require_same(detector, dataset, settings, process)
    batches = own_batches(len(dataset), settings["batch_size"], process)
    indices = [index for batch in batches for index in batch]
    own = replace(dataset, records=take(dataset.records, indices))
    found = together(process, lambda: detect_all(detector, own, console, **settings))
    by_index = of_all(dict(zip(indices, found, strict=True)), process)
    return [by_index[index] for index in range(len(dataset))]


def _require_same(
    detector: Detector, dataset: DataSet, settings: Mapping[str, Any], process: Process
) -> None:
    """Raise ConfigError, in every process, if one has other settings, classes, images or labels."""
    views = each((settings, detector.classes, content_of(dataset).digest(), socket.gethostname()), process)
    names = ("other settings", "a model with other classes", "other images or labels")
    for rank, view in enumerate(views):
        for name, value, first in zip(names, view, views[0], strict=False):
            if value != first:
                raise ConfigError(
                    f"process {rank} on {view[-1]} has {name} than process 0 on {views[0][-1]}; give all"
                    " processes the same command, model and data"
                )

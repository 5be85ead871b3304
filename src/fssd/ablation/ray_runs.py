"""The runs of an ablation as tasks of Ray: side by side, each again on another machine if its own is lost."""

from __future__ import annotations

import math
import os
import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from fssd.ablation.run import OWN_FAULTS, Run, finished_folders, is_finished
from fssd.engines.ray_session import connect
from fssd.errors import ConfigError, FssdError, Stopped
from fssd.training.stop import StopRequest, stop_requests

RETRIES = 5  # of a run whose process or machine is lost
POLL = 1.0  # seconds between two looks for a request to stop
PATIENCE = 300.0  # seconds in which runs that are asked to stop save their state


class RunOutcome(NamedTuple):
    """What became of a run. failed: why it has no model and gets none, or "". host: that it ended on."""

    finished: bool
    failed: str
    host: str


def train_run(run: Run, folder: str, until: float, before: RunOutcome | None) -> RunOutcome:
    """Train one run, from its saved state if there is one, in a process of Ray's.

    folder: that relative paths start from. until: when to save and stop, seconds of `time.time`. before: of
    the run whose model this one starts from.
    """
    from fssd.training.loop import train

    host = os.uname().nodename
    if before is not None and not before.finished:
        reason = f"not started: {run.row.after} failed" if before.failed else ""
        return RunOutcome(False, reason, host)
    minutes = None if math.isinf(until) else (until - time.time()) / 60
    if minutes is not None and minutes <= 0:
        return RunOutcome(False, "", host)
    try:
        os.chdir(folder)
    except OSError as error:
        raise ConfigError(
            f"{host} has no folder {folder} ({error.strerror}); all machines must see it and --out"
        ) from error
    try:
        result = train(run.config, resume=True, minutes=minutes)
    except OWN_FAULTS as error:
        return RunOutcome(False, f"failed: {error}", host)
    except Stopped:  # its state is saved; Ray stops a task that is cancelled, or a machine that it gives up
        return RunOutcome(False, "", host)
    return RunOutcome(result.finished, "", host)


def train_runs_on_ray(runs: Sequence[Run], minutes: float | None, cpus: int | None) -> Iterator[Run]:
    """Train the runs that are not finished, as many at a time as there are CPUs, and yield each finished one.

    A run that comes after another waits for it. cpus: that a run takes, 1 if None; it computes in as many
    threads unless its `threads` says otherwise. The out folder must be on a disk that all machines share.
    See `train_runs` for what fails and what is raised.
    """
    with connect() as ray, stop_requests() as stop:
        until = math.inf if minutes is None else time.time() + 60 * minutes
        pending: dict[Any, Run] = {}
        refs: dict[Path, Any] = {}
        finished = finished_folders(runs)
        for run in runs:
            if run.folder in finished:
                run.say("already finished")
                yield run
                continue
            before = refs.get(run.config.weights.parent) if run.row.after and run.config.weights else None
            task = ray.remote(**_needs(ray, run, cpus), max_retries=RETRIES)(train_run)
            ref = refs[run.folder] = task.remote(run, str(Path.cwd()), until, before)
            pending[ref] = run
        try:
            yield from _collect(ray, pending, stop)
        finally:
            _cancel(ray, list(pending))
        if stop.number:
            raise Stopped(
                stop.number, "stopped, with the state of every run saved", "the same command continues"
            )


def _needs(ray: Any, run: Run, cpus: int | None) -> dict[str, int]:
    """What a run takes of a machine. Raises ConfigError if no machine has it."""
    nodes = [node["Resources"] for node in ray.nodes() if node["Alive"]]
    gpus = max((int(node.get("GPU", 0)) for node in nodes), default=0)
    wants = cpus or 1
    if all(node.get("CPU", 0) < wants for node in nodes):
        most = int(max((node.get("CPU", 0) for node in nodes), default=0))
        raise ConfigError(f"no machine of the cluster has {wants} CPUs; give --cpus {most} or less")
    return {"num_cpus": wants, "num_gpus": int(run.config.device != "cpu" and gpus > 0)}


def _collect(ray: Any, pending: dict[Any, Run], stop: StopRequest) -> Iterator[Run]:
    """The finished runs as they end; takes every run that has ended out of `pending`."""
    while pending and not stop.number:
        ended, _ = ray.wait(list(pending), timeout=POLL)
        for ref in ended:
            run = pending.pop(ref)
            outcome = _outcome(ray, ref)
            if outcome.finished:
                _require_shared(run, outcome.host)
                run.say(f"finished on {outcome.host}")
                yield run
            else:
                run.say(outcome.failed or "stopped: the time is over")


def _outcome(ray: Any, ref: Any) -> RunOutcome:
    """Raises the package's errors of the run."""
    try:
        outcome: RunOutcome = ray.get(ref)
        return outcome
    except ray.exceptions.RayTaskError as error:
        if isinstance(error.cause, FssdError):
            raise error.cause from None
        raise
    except ray.exceptions.RayError as error:
        # Not the time, nor the run itself: its process or machine died again and again.
        reason = str(error).splitlines()[0]
        return RunOutcome(False, f"failed: its process died {RETRIES + 1} times ({reason})", "")


def _require_shared(run: Run, host: str) -> None:
    if not is_finished(run):
        raise ConfigError(
            f"{run.folder}: {host} has finished this run, but its files are not here; --out must be a folder"
            " that all machines of the cluster share"
        )


def _cancel(ray: Any, refs: list[Any]) -> None:
    """Ask the runs to save and stop, and wait for them."""
    for ref in refs:
        ray.cancel(ref)
    if refs:
        ray.wait(refs, num_returns=len(refs), timeout=PATIENCE)

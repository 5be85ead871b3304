"""Parts by Ray Data: a number of actors, on one machine or many, each with the model in memory.

What passes through Ray are numbers of parts. An actor reads its rows from the plan and writes the part, whole
or not at all, under a name that follows from the number. So a part that is computed twice, because a process
or a machine died, is there once, and Ray needs no memory of what is done.
"""

from __future__ import annotations

import os
import traceback
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any

from fssd.engines.ray_session import connect
from fssd.errors import FssdError
from fssd.parts.local_engine import Report
from fssd.parts.part_detector import PartDetector, PartJob
from fssd.parts.part_rows import FoundRow, finished_parts, write_part
from fssd.parts.plan_rows import PlanRow

ATTEMPTS = 3  # of a part, and then of an image, before it is taken to kill the process that reads it
# What leads to a store; credentials are the machines' own.
_STORE = ("AWS_ENDPOINT_URL", "AWS_ENDPOINT_URL_S3", "AWS_REGION", "AWS_DEFAULT_REGION")


class PartActor:
    """Runs in a process of Ray's. Errors are results; only a process that dies is one to Ray."""

    def __init__(self, job: PartJob, environment: Mapping[str, str]) -> None:
        os.environ.update(environment)
        self._job = job
        self._parts: PartDetector | None = None

    def __call__(self, batch: Any) -> dict[str, list[Any]]:
        """Compute one part. batch: `part` with its number."""
        index = int(batch["part"][0])
        errors, fault = 0, ""
        try:
            errors = self._open().write(index)
        except FssdError as error:
            fault = str(error)
        except Exception:
            fault = traceback.format_exc()
        return {"part": [index], "errors": [errors], "fault": [fault]}

    def row(self, planned: PlanRow) -> FoundRow:
        """Compute one row."""
        return self._open().rows([planned])[0]

    def _open(self) -> PartDetector:
        if self._parts is None:
            self._parts = PartDetector(self._job)
        return self._parts


class PartError(RuntimeError):
    """An exception in a process of Ray's that is no error of the package; its traceback is the text."""


def run_on_ray(job: PartJob, missing: Sequence[int], report: Report, actors: int | None) -> None:
    """Compute and write the missing parts. actors: the most at a time, as many as there are CPUs if None.

    A part whose processes died `ATTEMPTS` times is computed image by image; an image that kills its process
    becomes a row with that error. Raises the errors of `PartDetector`.
    """
    with connect(actors) as ray:
        resources = ray.cluster_resources()
        count = max(1, min(actors or int(resources.get("CPU", 1)), len(missing)))
        needs = {"num_cpus": 1, "num_gpus": int(job.device != "cpu" and resources.get("GPU", 0) >= 1)}
        _map_parts(ray, job, missing, report, count, needs)
        for index in sorted(set(missing) - finished_parts(job.plan.folder)):
            rows = _one_by_one(ray, job, job.plan.part(index), needs)
            write_part(job.plan.folder, index, rows)
            report(index, sum(row.error is not None for row in rows))


def _map_parts(
    ray: Any, job: PartJob, missing: Sequence[int], report: Report, count: int, needs: Mapping[str, int]
) -> None:
    import pyarrow as pa
    from ray.data import ActorPoolStrategy

    with _lenient(ray):
        # One block for each part, or Ray would join them: nothing is finished before a block is.
        parts = ray.data.from_arrow([pa.table({"part": [index]}) for index in missing])
        done = parts.map_batches(
            PartActor,
            fn_constructor_args=(job, _environment()),
            batch_size=1,
            compute=ActorPoolStrategy(min_size=1, max_size=count, max_tasks_in_flight_per_actor=1),
            max_restarts=-1,
            max_task_retries=ATTEMPTS - 1,  # -1, Ray's default, is for ever
            **needs,
        )
        for row in done.iter_rows():
            if row["fault"]:
                raise _fault(row["fault"])
            report(row["part"], row["errors"])


def _fault(text: str) -> Exception:
    return PartError(text) if text.startswith("Traceback") else FssdError(text)


def _one_by_one(
    ray: Any, job: PartJob, planned: Sequence[PlanRow], needs: Mapping[str, int]
) -> list[FoundRow]:
    """The rows of a part, each by itself, so that the one that kills its process is known."""
    actor_class = ray.remote(**needs, max_restarts=-1)(PartActor)
    actor = actor_class.remote(job, _environment())
    rows = []
    for row in planned:
        for attempt in range(1, ATTEMPTS + 1):
            try:
                rows.append(ray.get(actor.row.remote(row)))
                break
            except ray.exceptions.RayTaskError as error:
                raise error.cause from None
            except ray.exceptions.RayActorError:
                if attempt == ATTEMPTS:
                    rows.append(FoundRow(row.image, error=_killed(row)))
    ray.kill(actor)
    return rows


def _killed(row: PlanRow) -> str:
    return (
        f"{row.image}: the process that read it died {ATTEMPTS} times, for lack of memory or by a fault in a"
        " library; convert the file or leave it out"
    )


@contextmanager
def _lenient(ray: Any) -> Iterator[None]:
    """Let Ray Data go on with the other blocks after one whose processes died too often."""
    context = ray.data.DataContext.get_current()
    before = context.max_errored_blocks, context.log_internal_stack_trace_to_stdout
    context.max_errored_blocks = -1
    try:
        yield
    finally:
        context.max_errored_blocks = before[0]


def _environment() -> dict[str, str]:
    return {name: os.environ[name] for name in _STORE if name in os.environ}

"""Parts by Ray Data: a number of actors, on one machine or many, each with the model in memory.

What passes through Ray are numbers of parts. An actor reads its rows from the plan and writes the part, whole
or not at all, under a name that follows from the number. So a part that is computed twice, because a process
or a machine died, is there once, and Ray needs no memory of what is done.
"""

from __future__ import annotations

import os
import traceback
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from fssd.engines.ray_session import connect, require_ray
from fssd.errors import FssdError
from fssd.parts.local_engine import Report
from fssd.parts.part_detector import PartDetector, PartJob
from fssd.parts.part_rows import FoundRow, write_part
from fssd.parts.plan_rows import PlanRow

ATTEMPTS = 3  # of a part, and then of an image, before it is taken to kill the process that reads it
# What leads to a store; credentials are the machines' own.
_STORE = ("AWS_ENDPOINT_URL", "AWS_ENDPOINT_URL_S3", "AWS_REGION", "AWS_DEFAULT_REGION")


class PartActor:
    """Runs in a process of Ray's. Errors are results; only a process that dies is one to Ray.

    environment: variables to set first. attempts: see `_attempts`; `row` does not need them.
    """

    def __init__(self, job: PartJob, environment: Mapping[str, str], attempts: Any = None) -> None:
        os.environ.update(environment)
        self._job, self._attempts = job, attempts
        self._parts: PartDetector | None = None

    def __call__(self, batch: Any) -> dict[str, list[Any]]:
        """Compute one part. batch: `part` with its number. Gives up one that was begun too often."""
        index = int(batch["part"][0])
        errors, fault = 0, ""
        given_up = not require_ray().get(self._attempts.begin.remote(index))
        try:
            errors = 0 if given_up else self._open().write(index)
        except FssdError as error:
            fault = str(error)
        except Exception:
            fault = traceback.format_exc()
        return {"part": [index], "errors": [errors], "given_up": [given_up], "fault": [fault]}

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

    A part that was begun `ATTEMPTS` times in vain is computed image by image; an image whose process dies as
    often becomes a row with that error. Raises the errors of `PartDetector`.
    """
    with connect(actors) as ray:
        resources = ray.cluster_resources()
        count = max(1, min(actors or int(resources.get("CPU", 1)), len(missing)))
        needs = {"num_cpus": 1, "num_gpus": int(job.device != "cpu" and resources.get("GPU", 0) >= 1)}
        given_up = []
        for row in _map_parts(ray, job, missing, count, needs):
            if row["fault"]:
                raise _fault(row["fault"])
            if row["given_up"]:
                given_up.append(row["part"])
            else:
                report(row["part"], row["errors"])
        for index in given_up:
            rows = one_by_one(ray, job, job.plan.part(index), needs)
            write_part(job.plan.folder, index, rows)
            report(index, sum(row.error is not None for row in rows))


def _map_parts(
    ray: Any, job: PartJob, missing: Sequence[int], count: int, needs: Mapping[str, int]
) -> Iterator[Mapping[str, Any]]:
    """The results of `PartActor`, as they come."""
    import pyarrow as pa
    from ray.data import ActorPoolStrategy

    # One block for each part, or Ray would join them, and nothing is finished before its block is.
    parts = ray.data.from_arrow([pa.table({"part": [index]}) for index in missing])
    done = parts.map_batches(
        PartActor,
        fn_constructor_args=(job, _environment(), _attempts(ray)),
        batch_size=1,
        compute=ActorPoolStrategy(size=count),
        **needs,
    )
    yield from done.iter_rows()


def _attempts(ray: Any) -> Any:
    """An actor that counts how often a part was begun; Ray Data begins one whose process dies for ever.

    It runs on the driver's machine: one less to lose. Ray sends a class that lies in a function as it is, so
    that its process need not import this package, and with it PyTorch.
    """
    from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy

    class Attempts:
        def __init__(self, most: int) -> None:
            self.begun: dict[int, int] = {}
            self.most = most

        def begin(self, part: int) -> bool:
            """Whether the part may be begun once more."""
            self.begun[part] = self.begun.get(part, 0) + 1
            return self.begun[part] <= self.most

    node = NodeAffinitySchedulingStrategy(ray.get_runtime_context().get_node_id(), soft=True)
    lasting = {"num_cpus": 0, "max_restarts": -1, "max_task_retries": -1, "scheduling_strategy": node}
    return ray.remote(**lasting)(Attempts).remote(ATTEMPTS)


def _fault(text: str) -> Exception:
    return PartError(text) if text.startswith("Traceback") else FssdError(text)


def one_by_one(
    ray: Any, job: PartJob, planned: Sequence[PlanRow], needs: Mapping[str, int]
) -> list[FoundRow]:
    """The rows of a part, each by itself, so that the one that kills its process is known.

    A process that died is replaced rather than restarted: calls to one that restarts fail without being run.
    """
    actor_class = ray.remote(**needs, max_restarts=0)(PartActor)
    actor = actor_class.remote(job, _environment())
    rows = []
    for row in planned:
        for attempt in range(1, ATTEMPTS + 1):
            try:
                rows.append(ray.get(actor.row.remote(row)))
                break
            except ray.exceptions.RayTaskError as error:
                raise error.cause from None
            except (ray.exceptions.RayActorError, ray.exceptions.OutOfMemoryError):  # Ray's own watch ends it
                actor = actor_class.remote(job, _environment())
                if attempt == ATTEMPTS:
                    rows.append(FoundRow(row.image, error=_killed(row)))
    ray.kill(actor)
    return rows


def _killed(row: PlanRow) -> str:
    return (
        f"{row.image}: the process that read it died {ATTEMPTS} times, for lack of memory or by a fault in a"
        " library; convert the file or leave it out"
    )


def _environment() -> dict[str, str]:
    return {name: os.environ[name] for name in _STORE if name in os.environ}

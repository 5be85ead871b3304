"""Detection by parts from its start or from wherever it was ended: plan, missing parts, count."""

from __future__ import annotations

import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from fssd.engines import Engine
from fssd.errors import DataError
from fssd.inference.detector import Detector
from fssd.inference.inputs import counts_by_suffix
from fssd.parts.fingerprint import Fingerprint, absolute_source, installed_version, model_digest
from fssd.parts.local_engine import run_here
from fssd.parts.part_detector import PartJob
from fssd.parts.part_plan import PartPlan, check_same, read_plan_of, require_free, write_plan
from fssd.parts.part_rows import SUCCESS, Counts, finished_parts, read_success, write_success
from fssd.parts.ray_engine import run_on_ray
from fssd.parts.sources import Sources
from fssd.parts.unique_names import unique_rows
from fssd.storage.folders import Folder
from fssd.storage.open_folder import open_folder
from fssd.storage.s3_folder import require_arrow


def detect_parts(
    model: Path,
    sources: Sequence[str],
    out: str,
    engine: Engine,
    *,
    settings: Mapping[str, Any],
    part: int = 1000,
    actors: int | None = None,
    batch_size: int = 8,
    device: str = "auto",
) -> Counts:
    """Detect in everything the sources name and write DEST/plan.*, parts/*.parquet and _SUCCESS.

    settings: of `Detector.stream`. A DEST with a plan is gone on with. Prints a line for each part. Raises
    ConfigError if the plan was made with another model, source or setting.
    """
    require_arrow()
    folder = open_folder(out)
    fingerprint = _fingerprint(model, sources, settings, part)
    require_free(folder, sources)
    plan = read_plan_of(folder)
    if plan is not None:
        check_same(plan, fingerprint)
        if (counts := read_success(folder)) is not None and not _missing(plan):
            return counts
        folder.remove(SUCCESS)  # a part was lost since
    detector = Detector.load(model, device=device if engine == "local" else "cpu")
    detector.require_settings(**settings)
    if plan is None:
        plan = _new_plan(folder, fingerprint, sources)
    missing = _missing(plan)
    if len(missing) < plan.parts:
        print(f"going on: {plan.parts - len(missing):,} of {plan.parts:,} parts are done")
    job = PartJob(plan, model.absolute() if model.exists() else model, batch_size, device)
    report = _Progress(plan, len(missing))
    if engine == "local":
        run_here(job, missing, report, detector)
    elif missing:
        run_on_ray(job, missing, report, actors)
    return write_success(plan)


def _missing(plan: PartPlan) -> list[int]:
    return sorted(set(range(plan.parts)) - finished_parts(plan.folder))


class _Progress:
    """Prints a line for each part."""

    def __init__(self, plan: PartPlan, missing: int) -> None:
        self._plan, self._done = plan, plan.parts - missing

    def __call__(self, part: int, errors: int) -> None:
        self._done += 1
        rows = self._plan.part_rows(part)
        faulty = f", {errors:,} with an error" if errors else ""
        done = f"{self._done:,} of {self._plan.parts:,} parts"
        print(f"part {part}: {rows:,} rows{faulty} ({done})", flush=True)


def _fingerprint(model: Path, sources: Sequence[str], settings: Mapping[str, Any], part: int) -> Fingerprint:
    plain = {name: list(value) if isinstance(value, tuple) else value for name, value in settings.items()}
    absolute = tuple(map(absolute_source, sources))
    return Fingerprint(model_digest(model), plain, installed_version(), absolute, part)


def _new_plan(folder: Folder, fingerprint: Fingerprint, given: Sequence[str]) -> PartPlan:
    if finished_parts(folder):
        reason = "holds parts but no plan, so nobody knows what they were made with; remove them or choose"
        raise DataError(f"{reason} another --out", file=folder.location)
    folder.require_writable()
    sources = Sources()
    plan = write_plan(folder, fingerprint, unique_rows(given, sources), Path.cwd())
    if sources.passed_over:
        print(f"passed over: {counts_by_suffix(sources.passed_over)}", file=sys.stderr)
    print(f"planned: {plan.rows:,} rows in {plan.parts:,} parts, {folder.path('plan.parquet')}")
    return plan

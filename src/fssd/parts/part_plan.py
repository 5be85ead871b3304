"""The plan of a detection: DEST/plan.parquet, a row for each image or stretch of a film, and DEST/plan.json.

The plan is made once and then frozen: whatever happens to the sources later, the same command goes on with
the same rows. A row group of plan.parquet is a part, the least that is computed and written at a time.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import asdict, dataclass
from functools import lru_cache
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

from fssd.atomic import temporary_prefix
from fssd.errors import ConfigError, DataError, ImageError
from fssd.inference.inputs import is_video
from fssd.inference.video import Film
from fssd.parts.fingerprint import Fingerprint
from fssd.parts.plan_rows import PlanRow, from_columns, plan_schema, to_columns
from fssd.parts.ranged_file import open_parquet, reading_parquet
from fssd.storage.folders import Folder, is_remote

PLAN, SETTINGS = "plan.parquet", "plan.json"
Weighed = tuple[PlanRow, int]  # a row, and how many images or frames it has
STRETCH = 3000  # frames of a film in one row: two minutes at 25 a second


@dataclass(frozen=True)
class PartPlan:
    """What is to be computed, and where its results go.

    folder: DEST. fingerprint: what the results depend on. base: the folder that relative names begin at.
    rows, parts: how many there are.
    """

    folder: Folder
    fingerprint: Fingerprint
    base: str
    rows: int
    parts: int

    def part(self, index: int) -> list[PlanRow]:
        """The rows of a part. Raises DataError if the plan is damaged."""
        with reading_parquet(self.folder.path(PLAN)):
            return from_columns(_opened(self.folder).read_row_group(index))

    def part_rows(self, index: int) -> int:
        """The number of rows of a part. Raises DataError if the plan is damaged."""
        with reading_parquet(self.folder.path(PLAN)):
            return int(_opened(self.folder).metadata.row_group(index).num_rows)


@lru_cache(maxsize=1)
def _opened(folder: Folder) -> Any:
    """plan.parquet, opened once in a process."""
    return open_parquet(folder, PLAN)


def require_free(folder: Folder, sources: Sequence[str]) -> None:
    """Raise ConfigError if a source is the file that the plan will be."""
    plan = folder.path(PLAN)
    same = [source for source in sources if source == plan or Path(source).resolve() == Path(plan).resolve()]
    if same:
        raise ConfigError(f"{same[0]}: is a source and would become the plan; choose another --out")


def read_plan_of(folder: Folder) -> PartPlan | None:
    """The plan that lies in DEST, None if there is none. Raises DataError if plan.json is damaged."""
    _opened.cache_clear()  # another plan may have been in the same place
    if not folder.exists(SETTINGS):
        return None
    try:
        content = json.loads(folder.read(SETTINGS))
        fingerprint = Fingerprint.read(content["made with"])
        return PartPlan(folder, fingerprint, content["base"], int(content["rows"]), int(content["parts"]))
    except (ValueError, KeyError, TypeError) as error:
        reason = "is no plan of `fssd detect`; remove it and the parts beside it, or choose another --out"
        raise DataError(reason, file=folder.path(SETTINGS)) from error


def write_plan(folder: Folder, fingerprint: Fingerprint, rows: Iterable[PlanRow], base: Path) -> PartPlan:
    """Write the plan of these images and films and return it. Films are opened, to divide them."""
    _opened.cache_clear()
    with _temporary(folder) as file:
        count, parts = _write_rows(file, _weighed(rows, base, fingerprint.part), fingerprint.part)
        folder.upload(file, PLAN)
    plan = PartPlan(folder, fingerprint, str(base), count, parts)
    content = {"made with": asdict(fingerprint), "base": str(base), "rows": count, "parts": parts}
    folder.write(SETTINGS, json.dumps(content, indent=1).encode("utf-8", "backslashreplace") + b"\n")
    return plan


@contextmanager
def _temporary(folder: Folder) -> Iterator[Path]:
    """A file to write to, on the disk of the folder if it has one."""
    beside = None if is_remote(folder.location) else folder.location
    with TemporaryDirectory(prefix=temporary_prefix(), dir=beside) as place:
        yield Path(place, PLAN)


def _write_rows(file: Path, rows: Iterable[Weighed], part: int) -> tuple[int, int]:
    """Write the rows, at most `part` images and frames to a row group, or one stretch.

    Returns the numbers of rows and of groups.
    """
    import pyarrow as pa
    from pyarrow.parquet import ParquetWriter

    total = parts = weight = 0
    group: list[PlanRow] = []
    schema = plan_schema()

    with ParquetWriter(file, schema) as writer:

        def close_group() -> None:
            writer.write_table(pa.table(to_columns(group), schema=schema), row_group_size=len(group))
            group.clear()

        for row, own in rows:
            if group and weight + own > part:
                close_group()
                parts, weight = parts + 1, 0
            group.append(row)
            weight, total = weight + own, total + 1
        if group:
            close_group()
            parts += 1
    return total, parts


def _weighed(rows: Iterable[PlanRow], base: Path, part: int) -> Iterator[Weighed]:
    for row in rows:
        if row.kind == "image" and is_video(row.image):
            yield from _stretches(row.image, base, part)
        else:
            yield row, 1


def _stretches(name: str, base: Path, part: int) -> Iterator[Weighed]:
    """The rows of a film: stretches of equal length, the last one open, for a file may say too few frames.

    A film in a store, or one that cannot be opened, is one row, and a part by itself.
    """
    frames = 0
    if not is_remote(name):
        with suppress(ImageError):  # it will be the error of its row
            frames = Film(base / name).declared
    starts = range(0, max(frames, 1), STRETCH)
    for start in starts:
        stop = None if start == starts[-1] else start + STRETCH
        end = "" if stop is None else stop - 1
        weight = min(frames - start, STRETCH) if frames else part
        yield PlanRow(f"{name}#{start}-{end}", "film", name, start, stop), weight


def check_same(plan: PartPlan, fingerprint: Fingerprint) -> None:
    """Raise ConfigError if results of this plan would not be results of the fingerprint."""
    differing = plan.fingerprint.differences(fingerprint)
    if differing:
        raise ConfigError(
            f"{plan.folder.path(SETTINGS)}: these parts were made with {'; '.join(differing)}; choose another"
            " --out, or the same again to go on"
        )

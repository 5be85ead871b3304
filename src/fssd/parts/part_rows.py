"""The results: DEST/parts/part-NUMBER.parquet with a row for each row of the plan, and DEST/_SUCCESS."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from fssd.atomic import remove_leftovers
from fssd.errors import DataError
from fssd.inference.detections import Detections
from fssd.parts.part_plan import PartPlan
from fssd.parts.plan_rows import readable_name
from fssd.parts.ranged_file import read_columns
from fssd.storage.folders import Folder, is_remote

PARTS, SUCCESS = "parts", "_SUCCESS"
_PART = re.compile(r"parts/part-(\d{6,})\.parquet")


@dataclass
class FoundRow:
    """What was found in one row of the plan.

    image: its name. width, height: pixels; None if it could not be read. found: the detections of the image,
    or of each frame of a film with its number. error: why it could not be read, or not whole.
    """

    image: str
    width: int | None = None
    height: int | None = None
    found: list[tuple[int | None, Detections]] = field(default_factory=list)
    error: str | None = None


def part_schema() -> Any:
    """The columns of a part. Boxes are x1, y1, x2, y2 in pixels; `frame` is null in images."""
    import pyarrow as pa

    detected = pa.struct([
        ("frame", pa.int64()),
        ("class", pa.string()),
        ("label", pa.int32()),
        ("score", pa.float32()),
        ("box", pa.list_(pa.float32())),
    ])  # fmt: skip
    text, whole = pa.string(), pa.int32()
    sides = [("width", whole), ("height", whole)]
    return pa.schema([("image", text), *sides, ("objects", pa.list_(detected)), ("error", text)])


def part_name(index: int) -> str:
    """The name of a part in DEST."""
    return f"{PARTS}/part-{index:06d}.parquet"


def finished_parts(folder: Folder) -> set[int]:
    """The parts that lie in DEST. Each is there whole or not at all."""
    return {int(match[1]) for entry in folder.list(PARTS) if (match := _PART.fullmatch(entry.name))}


def write_part(folder: Folder, index: int, rows: Sequence[FoundRow]) -> None:
    """Write a part, whole or not at all. Who writes it again writes the same file."""
    import pyarrow as pa
    from pyarrow.parquet import write_table

    columns = {
        "image": [readable_name(row.image) for row in rows],
        "width": [row.width for row in rows],
        "height": [row.height for row in rows],
        "objects": [list(_objects(row)) for row in rows],
        "error": [None if row.error is None else readable_name(row.error) for row in rows],
    }
    sink = pa.BufferOutputStream()
    write_table(pa.table(columns, schema=part_schema()), sink)
    folder.write(part_name(index), sink.getvalue().to_pybytes())


def _objects(row: FoundRow) -> Iterator[dict[str, Any]]:
    for frame, found in row.found:
        names, scores, labels = found.names, found.scores.tolist(), found.labels.tolist()
        for name, label, score, box in zip(names, labels, scores, found.boxes.tolist(), strict=True):
            yield {"frame": frame, "class": name, "label": label, "score": score, "box": box}


@dataclass(frozen=True)
class Counts:
    """How far a detection is: rows that are there, and those with an error."""

    rows: int
    errors: int


def count_part(folder: Folder, index: int) -> Counts:
    """What a part holds. Raises DataError if it is damaged."""
    errors = read_columns(folder, part_name(index), ["error"]).column("error")
    return Counts(len(errors), len(errors) - errors.null_count)


def read_success(folder: Folder) -> Counts | None:
    """The counts of a detection that is finished, else None. Raises DataError for another program's file."""
    if not folder.exists(SUCCESS):
        return None
    try:
        content = json.loads(folder.read(SUCCESS))
        return Counts(int(content["rows"]), int(content["errors"]))
    except (ValueError, KeyError, TypeError) as error:  # Spark writes an empty file of this name
        reason = "holds no counts of `fssd detect`; remove it and run again, or choose another --out"
        raise DataError(reason, file=folder.path(SUCCESS)) from error


def write_success(plan: PartPlan) -> Counts:
    """Count the rows of all parts, check them against the plan, and write DEST/_SUCCESS.

    Raises DataError for a part that has not the rows of the plan.
    """
    rows = errors = 0
    for index in range(plan.parts):
        counts, wanted = count_part(plan.folder, index), plan.part_rows(index)
        if counts.rows != wanted:
            reason = f"has {counts.rows:,} rows where the plan has {wanted:,}; remove it and run again"
            raise DataError(reason, file=plan.folder.path(part_name(index)))
        rows, errors = rows + counts.rows, errors + counts.errors
    _remove_left_over(plan.folder)
    content = {"rows": rows, "errors": errors, "parts": plan.parts}
    plan.folder.write(SUCCESS, json.dumps(content).encode() + b"\n")
    return Counts(rows, errors)


def _remove_left_over(folder: Folder) -> None:
    """Remove the temporary files of processes that were killed while they wrote."""
    if is_remote(folder.location):
        return
    remove_leftovers(Path(folder.location, PARTS))

"""A row of a plan: one image, or a stretch of a film."""

from __future__ import annotations

import os
from typing import Any, Literal, NamedTuple

Kind = Literal["image", "film", "packed"]


class PlanRow(NamedTuple):
    """What one row of the results is about.

    image: its name in the results, unlike all others. kind: "image" is a file; "packed" an image that lies
    in a larger file, at the bytes from `start` to before `stop`; "film" the frames from `start` to before
    `stop`, or to its end if that is None. file: where to read it, a path or an s3:// URL; "" if `image` says
    that.
    """

    image: str
    kind: Kind = "image"
    file: str = ""
    start: int | None = None
    stop: int | None = None

    @property
    def place(self) -> str:
        """Where to read it: a path or an s3:// URL."""
        return self.file or self.image


def plan_schema() -> Any:
    """The columns of plan.parquet. `file` holds bytes, because not every file name is UTF-8."""
    import pyarrow as pa

    text, whole = pa.string(), pa.int64()
    names = [("image", text), ("kind", text), ("file", pa.binary())]
    return pa.schema([*names, ("start", whole), ("stop", whole)])


def to_columns(rows: list[PlanRow]) -> dict[str, list[Any]]:
    """The columns of `plan_schema`. A name that is not UTF-8 is escaped, and kept as it is in `file`."""
    columns: dict[str, list[Any]] = {"image": [], "kind": [], "file": [], "start": [], "stop": []}
    for row in rows:
        name = readable_name(row.image)
        file = os.fsencode(row.place) if name != row.image or row.file else None
        for column, value in zip(columns.values(), (name, row.kind, file, row.start, row.stop), strict=True):
            column.append(value)
    return columns


def from_columns(table: Any) -> list[PlanRow]:
    """The rows of a table with the columns of `plan_schema`."""
    columns = [table.column(name).to_pylist() for name in ("image", "kind", "file", "start", "stop")]
    return [
        PlanRow(image, kind, os.fsdecode(file) if file else "", start, stop)
        for image, kind, file, start, stop in zip(*columns, strict=True)
    ]


def readable_name(name: str) -> str:
    r"""A name as UTF-8 can hold it: its other bytes become escapes such as `\udcdf`, as in our JSON."""
    return name.encode("utf-8", "backslashreplace").decode("utf-8")

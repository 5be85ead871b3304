"""fssd check DATA [--json FILE]; exit code 1 if anything is an error."""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

import tyro


@dataclass(frozen=True)
class Check:
    """Report every problem of a data set: file, place, reason. Exit code 1 if any is an error."""

    data: Annotated[Path, tyro.conf.Positional]
    """Data set, in any form that `fssd train` takes."""
    splits: tuple[str, ...] = ()
    """Splits to look at; all of them if none is named."""
    labels_only: Annotated[bool, tyro.conf.FlagCreatePairsOff] = False
    """Do not decode the images."""
    json: Path | None = None
    """Write the findings to this file; "-" prints them instead of the table."""


def run(arguments: list[str]) -> int:
    """Check, print, and say by the exit code whether training could use every image."""
    command = tyro.cli(Check, prog="fssd check", args=arguments)
    from rich.console import Console

    from fssd.atomic import atomic_write
    from fssd.data.check import check_data

    report = check_data(command.data, command.splits or None, decode=not command.labels_only)
    text = json.dumps(report.to_json(), indent=2, ensure_ascii=False)
    if command.json == Path("-"):
        print(text)
    else:
        console = Console()
        console.print(report.summary())
        console.print(report.table())
        if command.json is not None:
            atomic_write(command.json, text)
    return 1 if any(problem.severity == "error" for problem in report.problems) else 0

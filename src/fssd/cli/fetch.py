"""fssd fetch voc2007|voc2012|coco2017 [--to DIR] [--parts ...] [--table FILE]"""

from __future__ import annotations

import sys
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import tyro

from fssd.cli.options import Flag, parse

if TYPE_CHECKING:
    from fssd.fetch.archives import Archive


@dataclass(frozen=True)
class Fetch:
    """Download and unpack a data set; parts that are already there are not fetched again."""

    name: Annotated[str, tyro.conf.Positional]
    """voc2007, voc2012, coco2017, or a name of --table."""
    to: Path | None = None
    """Folder for it; by default the name without its year: voc, coco."""
    parts: tuple[str, ...] = ()
    """Parts of it, such as trainval; by default all but coco2017's test-info and test."""
    table: Path | None = None
    """YAML with addresses and checksums of your own (docs/data.md), used before the official ones."""
    keep_archives: Flag = False
    """Keep the archives after they are unpacked."""


def run(arguments: list[str]) -> int:
    command = parse(Fetch, arguments)
    from fssd.fetch.archives import OFFICIAL, choose, read_table
    from fssd.fetch.install import is_installed

    table = OFFICIAL if command.table is None else {**OFFICIAL, **read_table(command.table)}
    archives = choose(table, command.name, command.parts)
    folder = command.to or Path(command.name.rstrip("0123456789") or command.name)
    for archive in archives:
        if is_installed(archive, folder):
            print(f"{archive.part}: already there")
        else:
            _install(archive, folder, command.keep_archives)
    print(f"{command.name} is in {folder}; check it with: fssd check {folder}")
    return 0


def _install(archive: Archive, folder: Path, keep: bool) -> None:
    """Fetch one archive with a progress bar on stderr."""
    from rich import progress
    from rich.console import Console

    from fssd.fetch.install import install

    console = Console(stderr=True)
    bar, amount, speed = progress.BarColumn(), progress.DownloadColumn(), progress.TransferSpeedColumn()
    columns = ("{task.description}", bar, amount, speed, progress.TimeRemainingColumn())
    with progress.Progress(*columns, console=console, disable=not console.is_terminal) as shown:
        tasks: dict[str, progress.TaskID] = {}

        def report(stage: str, done: int, total: int | None) -> None:
            if stage not in tasks:
                tasks[stage] = shown.add_task(f"{archive.part}: {stage}")
            shown.update(tasks[stage], completed=done, total=total)

        checksum = install(archive, folder, keep=keep, report=report)
    print(f"{archive.part}: done")
    if archive.checksum is None:
        warning = f"the table has no checksum for it, so it was not compared; it is {checksum}"
        print(f"warning: {archive.url}: {warning}", file=sys.stderr)

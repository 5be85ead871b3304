"""fssd fetch voc2007|voc2012|coco2017 [--to DIR] [--parts ...] [--table FILE]; fssd fetch ssd300-coco"""

from __future__ import annotations

import sys
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import tyro

from fssd.cli.options import Flag, parse
from fssd.cli.result import add_result
from fssd.errors import ConfigError, nearest

if TYPE_CHECKING:
    from fssd.fetch.archives import Archive, Table
    from fssd.fetch.obtain import Stages


@dataclass(frozen=True)
class Fetch:
    """Download published weights by name, or download and unpack a data set; what is there is kept."""

    name: Annotated[str, tyro.conf.Positional] = ""
    """Weights such as ssd300-coco or vgg16-imagenet (see --list), hf://user/name, or a data set: voc2007,
    voc2012, coco2017, or a name of --table."""
    list: Flag = False
    """Print all names, with what they are, their addresses, digests and licences."""
    to: Path | None = None
    """Folder for a data set; by default the name without its year: voc, coco."""
    parts: tuple[str, ...] = ()
    """Parts of a data set, such as trainval; by default all but coco2017's test-info and test."""
    table: Path | None = None
    """YAML with addresses and checksums of your own (docs/data.md), used before the official ones."""
    keep_archives: Flag = False
    """Keep the archives after they are unpacked."""


def run(arguments: list[str]) -> int:
    command = parse(Fetch, arguments)
    from fssd.fetch.archives import OFFICIAL, choose, read_table
    from fssd.fetch.install import is_installed
    from fssd.zoo.hub import is_hub_address
    from fssd.zoo.published import PUBLISHED

    table = OFFICIAL if command.table is None else {**OFFICIAL, **read_table(command.table)}
    if command.list:
        _refuse_others(command, "--list prints all names")
        return _print_names(table)
    if not command.name:
        raise ConfigError("name what to fetch, such as ssd300-coco or voc2007; --list prints all names")
    if command.name not in table and (command.name in PUBLISHED or is_hub_address(command.name)):
        return _fetch_weights(command)
    if command.name not in table:
        known = nearest(command.name, [*PUBLISHED, *table])
        raise ConfigError(f"there is no data set {command.name!r} to fetch, nor weights of that name{known}")
    archives = choose(table, command.name, command.parts)
    folder = command.to or Path(command.name.rstrip("0123456789") or command.name)
    for archive in archives:
        if is_installed(archive, folder):
            print(f"{archive.part}: already there")
        else:
            _install(archive, folder, command.keep_archives)
    print(f"{command.name} is in {folder}; check it with: fssd check {folder}")
    add_result(name=command.name, folder=folder, parts=[archive.part for archive in archives])
    return 0


def _refuse_others(command: Fetch, reason: str) -> None:
    """Raise ConfigError for a flag that is of data sets alone, or a name beside --list."""
    given: dict[str, object] = {
        "--to": command.to,
        "--parts": command.parts,
        "--keep-archives": command.keep_archives,
    }
    if command.list:
        given["the name"] = command.name
    else:
        given["--table"] = command.table
    for flag, value in given.items():
        if value:
            raise ConfigError(f"{reason}; leave out {flag}")


def _fetch_weights(command: Fetch) -> int:
    from fssd.zoo.hub import hub_file, is_hub_address
    from fssd.zoo.published import FOLDER_VARIABLE, PUBLISHED, read_note

    name = command.name
    if is_hub_address(name):
        _refuse_others(command, "a model on a hub goes into the hub's cache (HF_HOME)")
        file = hub_file(name)
        print(f"{name} is {file}; try it with: fssd detect {name} photo.jpg")
        add_result(name=name, file=file)
        return 0
    _refuse_others(command, f"weights go into their own folder, which the variable {FOLDER_VARIABLE} names")
    published, there = PUBLISHED[name], read_note(name) is not None
    from fssd.importers.named_weights import fetch_weights

    with _bar(name) as report:
        file = fetch_weights(name, report=report)
    note = read_note(name)
    assert note is not None
    print(f"{name}: {'already there' if there else 'done'}, {file}")
    add_result(name=name, file=file, sha256=note["sha256"], licence=published.licence)
    whole = note["sha256"] == published.sha256
    checked = "as published" if whole else f"begins with {published.sha256}; no more digits are published"
    print(f"sha256: {note['sha256']}, {checked}")
    print(f"licence: {published.licence}; trained on {published.data}, whose terms may apply too")
    if published.detector:
        print(f"try it with: fssd detect {name} photo.jpg")
    else:
        print(f"train from it with: fssd train --model fssd300-{published.model} --weights {name} ...")
    return 0


def _print_names(table: Table) -> int:
    from fssd.zoo.models import MODELS
    from fssd.zoo.published import PUBLISHED, read_note, weights_folder

    print("packaged with fssd, nothing to fetch:")
    print(f"  {', '.join(MODELS)}")
    for detector, title in ((True, "detectors"), (False, "backbones, for --weights")):
        print(f"\n{title}:")
        for name, row in PUBLISHED.items():
            if row.detector == detector:
                state = "fetched" if read_note(name) is not None else "not fetched"
                print(f"  {name:<24} {row.model}, trained on {row.data}; {row.licence}; {state}")
                print(f"  {'':<24} {row.url}  {row.digest}")
    print("\ndata sets:")
    for name, archives in table.items():
        print(f"  {name:<24} {', '.join(archive.part for archive in archives)}")
    print(f"\nweights are kept in {weights_folder()}")
    weights = {name: {**vars(row), "fetched": read_note(name) is not None} for name, row in PUBLISHED.items()}
    data = {name: [archive.part for archive in archives] for name, archives in table.items()}
    add_result(models=list(MODELS), weights=weights, data=data, folder=weights_folder())
    return 0


@contextmanager
def _bar(what: str) -> Iterator[Stages]:
    """A progress bar on stderr, one line for each stage; what comes out reports to it."""
    from rich import progress
    from rich.console import Console

    console = Console(stderr=True)
    bar, amount, speed = progress.BarColumn(), progress.DownloadColumn(), progress.TransferSpeedColumn()
    columns = ("{task.description}", bar, amount, speed, progress.TimeRemainingColumn())
    with progress.Progress(*columns, console=console, disable=not console.is_terminal) as shown:
        tasks: dict[str, progress.TaskID] = {}

        def report(stage: str, done: int, total: int | None) -> None:
            if stage not in tasks:
                tasks[stage] = shown.add_task(f"{what}: {stage}")
            shown.update(tasks[stage], completed=done, total=total)

        yield report


def _install(archive: Archive, folder: Path, keep: bool) -> None:
    """Fetch one archive with a progress bar."""
    from fssd.fetch.install import install

    with _bar(archive.part) as report:
        checksum = install(archive, folder, keep=keep, report=report)
    print(f"{archive.part}: done")
    if archive.checksum is None:
        warning = f"the table has no checksum for it, so it was not compared; it is {checksum}"
        print(f"warning: {archive.url}: {warning}", file=sys.stderr)

"""fssd check DATA [--report DIR] [--json FILE]; exit code 1 if anything is an error."""

import json
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

import tyro

from fssd.cli.options import Flag, parse, spare_folder, spare_inputs, spare_records
from fssd.cli.result import add_result, wants_json


@dataclass(frozen=True)
class Check:
    """Report every problem of a data set: file, position, reason. Exit code 1 if any is an error."""

    data: Annotated[Path, tyro.conf.Positional]
    """Data set, in any form that `fssd train` takes."""
    images: Path | None = None
    """Folder of the pictures, where they do not lie beside their labels."""
    splits: tuple[str, ...] = ()
    """Splits to check; by default all."""
    labels_only: Flag = False
    """Do not decode the images."""
    report: Path | None = None
    """Write a page with counts, box sizes, samples and findings into this folder; needs the extra plot."""
    model: str = "fssd300-lite"
    """Model whose input and priors the boxes are compared with."""
    size: tuple[int, ...] = ()
    """Its input in pixels, as in `fssd train`."""
    json: Path | None = None
    """Write the findings to this file too; without a name print them as JSON instead of the table."""


def run(arguments: list[str]) -> int:
    """Check and print; 1 if training could not use every image, else 0."""
    command = parse(Check, arguments)
    import torch
    from rich.console import Console

    from fssd.atomic import atomic_write, require_writable
    from fssd.data.check import check_data
    from fssd.model.build import build_model
    from fssd.model.coverage import coverage_advice
    from fssd.plots import require_matplotlib
    from fssd.report.data_page import Survey, write_data_page
    from fssd.report.html import PAGE_FILE, require_own_page

    if command.report is not None:
        require_matplotlib()
        require_own_page(command.report)
    options = {"size": list(command.size)} if command.size else {}
    with torch.device("meta"):  # no weights are needed
        network = build_model(command.model, 1, **options)
    files = [] if command.json is None else [command.json]
    spare_folder(command.data, files)
    outputs = [*files, *([] if command.report is None else [command.report / PAGE_FILE])]
    spare_inputs([command.data], outputs)
    require_writable(*outputs)
    survey = Survey(thumbnails=command.report is not None)
    decode = not command.labels_only
    with _bar() as watch:
        report = check_data(command.data, command.splits or None, decode, survey.visit, watch, command.images)
    spare_records((seen.record for seen in survey.images), files)
    if command.report is not None:
        page, pairs = write_data_page(command.report, report, survey, network)
        print(f"report in {page}; near-duplicates across splits: {pairs}", file=sys.stderr)
    for line in coverage_advice(network, survey.input_boxes(network.geometry)):
        print(f"note: {line}", file=sys.stderr)  # stdout may be JSON
    add_result(**report.to_json())
    if not wants_json():
        console = Console()
        console.print(report.summary())
        console.print(report.table())
    if command.json is not None:
        atomic_write(command.json, json.dumps(report.to_json(), indent=2, ensure_ascii=False))
    return 1 if any(problem.severity == "error" for problem in report.problems) else 0


@contextmanager
def _bar() -> Iterator[Callable[[str, int, int], None] | None]:
    """Draws a progress bar for each split on stderr; None if that is no terminal."""
    from rich.console import Console
    from rich.markup import escape
    from rich.progress import Progress, TaskID

    console = Console(stderr=True)
    if not console.is_terminal:
        yield None
        return
    tasks: dict[str, TaskID] = {}
    with Progress(console=console, transient=True) as progress:

        def watch(split: str, done: int, total: int) -> None:
            if split not in tasks:
                tasks[split] = progress.add_task(escape(split), total=total)
            progress.update(tasks[split], completed=done)

        yield watch

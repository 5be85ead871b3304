"""fssd bench MODEL [--runtime torch|cuda|onnx|...] [--json FILE], or fssd bench --compare A B ..."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

import tyro

from fssd.cli.options import Device, Score, parse
from fssd.cli.result import add_document
from fssd.config.bounds import Count, Natural
from fssd.errors import ConfigError

if TYPE_CHECKING:
    from fssd.bench.contest import Contest
    from fssd.bench.measure import Setup
    from fssd.bench.photographs import Photographs


@dataclass(frozen=True)
class Bench:
    """Time a model stage by stage, and compare it with the machine's measured peak; or several in turns."""

    model: Annotated[str | None, tyro.conf.Positional] = None
    """Model file, the folder of a run, a packaged model, or a network such as fssd300-vgg16, which then gets
    random weights."""
    compare: tuple[str, ...] = ()
    """Two or more such models instead, timed in turns: parameters, multiply-adds, latency, images a second.
    Each may have its accuracy: fssd300-vgg16=78.8."""
    runtime: str | None = None
    """torch, cuda (PyTorch as one CUDA graph), onnx, openvino, ncnn or tensorrt; by default the file's own.
    For the last four a PyTorch model is exported, without checks."""
    precision: Literal["fp32", "bf16", "int8"] = "fp32"
    """bf16 for --runtime cuda; int8 for onnx and openvino, calibrated on generated images, for speed only."""
    mode: Literal["latency", "throughput"] = "latency"
    """One image at a time, or the batch size of the highest throughput."""
    batch: Count | None = None
    """Images per batch, instead of --mode."""
    images: tuple[str, ...] = ()
    """Images or folders to detect in; by default generated ones."""
    score: Score = 0.5
    repeats: Count = 30
    """Timed rounds; the median is shown."""
    warm_up: Natural = 3
    """Untimed rounds before those."""
    threads: Count | None = None
    """CPU threads; by default one per core."""
    device: Device = "auto"
    json: Path | None = None
    """Write all figures to this file; without a name print them as JSON, and all else to stderr."""
    markdown: Path | None = None
    """With --compare, write the table to this file."""
    plot: Path | None = None
    """With --compare, draw speed against accuracy, or multiply-adds where no accuracy is given: .png, .svg,
    .pdf."""


def run(arguments: list[str]) -> int:
    command = parse(Bench, arguments)
    _check(command)
    from tempfile import TemporaryDirectory

    from fssd.atomic import require_writable
    from fssd.bench.measure import Setup, use_threads
    from fssd.bench.photographs import made_pictures, user_pictures

    require_writable(*filter(None, (command.json, command.markdown, command.plot)))
    use_threads(command.threads)
    with TemporaryDirectory(prefix="fssd-bench-") as name:
        folder = Path(name)
        pictures = user_pictures(command.images) if command.images else made_pictures(folder)
        setup = Setup(command.mode, command.batch, command.score, command.repeats, command.warm_up)
        if command.model is None:
            _contest(command, folder, pictures, setup)
        else:
            _one(command, command.model, folder, pictures, setup)
    return 0


def _check(command: Bench) -> None:
    if (command.model is None) != bool(command.compare):
        raise ConfigError("name one model, or several with --compare")
    if command.batch is not None and command.mode == "throughput":
        raise ConfigError("--mode throughput looks for the batch size; leave --batch or --mode out")
    if command.compare and command.mode == "throughput":
        raise ConfigError("--compare times every model at one batch size; give --batch instead of --mode")
    for name in ("markdown", "plot"):
        if not command.compare and getattr(command, name) is not None:
            raise ConfigError(f"--{name} is for --compare; leave it out, or name several models")
    if command.plot is not None:
        from fssd.plots import check_suffix, require_matplotlib

        check_suffix(command.plot, flag="--plot")
        require_matplotlib()


def _one(command: Bench, model: str, folder: Path, pictures: Photographs, setup: Setup) -> None:
    from rich.console import Console

    from fssd.atomic import atomic_write
    from fssd.bench.measure import measure
    from fssd.bench.subject import open_subject

    subject = open_subject(
        model,
        folder,
        runtime=command.runtime,
        precision=command.precision,
        device=command.device,
        threads=command.threads,
    )
    report = measure(subject, pictures, setup)
    console = Console(highlight=False, soft_wrap=True)
    console.print(*report.head(), sep="\n", markup=False)
    console.print(report.table())
    console.print(*report.foot(), sep="\n", markup=False)
    add_document(report.to_json())
    if command.json is not None:
        atomic_write(command.json, report.to_json())


def _contest(command: Bench, folder: Path, pictures: Photographs, setup: Setup) -> None:
    from rich.console import Console

    from fssd.atomic import atomic_write
    from fssd.bench import contest_table
    from fssd.bench.contest import Choices, Entrant, compete
    from fssd.plots import split_number

    choices = Choices(command.runtime, command.precision, command.device, command.threads)
    entrants = [Entrant(*split_number(text)) for text in command.compare]
    contest = compete(entrants, folder, pictures, setup, choices)
    console = Console(highlight=False, soft_wrap=True)
    console.print(*contest_table.head(contest), sep="\n", markup=False)
    table = contest_table.table(contest)
    whole = console.measure(table, options=console.options.update(max_width=1000)).maximum
    console.width = max(console.width, whole)  # a cut number is of no use; a long line can be scrolled
    console.print(table)
    add_document(contest_table.to_json(contest))
    if command.json is not None:
        atomic_write(command.json, contest_table.to_json(contest))
    if command.markdown is not None:
        atomic_write(command.markdown, contest_table.markdown(contest))
    if command.plot is not None:
        _draw(command.plot, contest)


def _draw(file: Path, contest: Contest) -> None:
    from fssd.bench.contest_table import throughput
    from fssd.figures.speeds import SpeedPoint, draw_speeds
    from fssd.plots import distinct_names, save_plot

    names = [timing.facts["name"] for timing in contest.timings]
    files = all(Path(name).suffix or len(Path(name).parts) > 1 for name in names)
    labels = distinct_names([Path(name).with_suffix("") for name in names]) if files else names
    points = [
        SpeedPoint(label, throughput(timing, contest.setup["batch"]), timing.accuracy, timing.multiply_adds)
        for label, timing in zip(labels, contest.timings, strict=True)
    ]
    machine = contest.machine
    where = machine["gpu"] or f"{machine['processor']}, {machine['threads']} threads"
    runtimes = " and ".join(dict.fromkeys(timing.facts["runtime"] for timing in contest.timings))
    note = f"image array in, detections out, batch {contest.setup['batch']}, {runtimes}\n{where}"
    save_plot(file, draw_speeds(points, note))

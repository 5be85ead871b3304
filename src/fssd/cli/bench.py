"""fssd bench MODEL [--runtime torch|cuda|onnx|openvino] [--mode latency|throughput] [--json FILE]"""

from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Literal

import tyro

from fssd.cli.options import Device, Score, parse
from fssd.config import Count, Natural
from fssd.errors import ConfigError


@dataclass(frozen=True)
class Bench:
    """Time a model stage by stage, and compare it with the machine's measured peak."""

    model: Annotated[str, tyro.conf.Positional]
    """Model file, the folder of a run, a packaged model, or a network such as fssd300-vgg16, which then gets
    random weights."""
    runtime: str | None = None
    """torch, cuda (PyTorch as one CUDA graph), onnx or openvino; by default the file's own. For the last two
    a PyTorch model is exported, without checks."""
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
    """Write all figures to this file."""


def run(arguments: list[str]) -> int:
    command = parse(Bench, arguments)
    if command.batch is not None and command.mode == "throughput":
        raise ConfigError("--mode throughput looks for the batch size; leave --batch or --mode out")
    from tempfile import TemporaryDirectory

    from rich.console import Console

    from fssd.atomic import atomic_write, make_folder
    from fssd.bench.measure import Setup, measure, use_threads
    from fssd.bench.photographs import made_pictures, user_pictures
    from fssd.bench.subject import open_subject

    if command.json is not None:
        make_folder(command.json.parent)
    use_threads(command.threads)
    with TemporaryDirectory(prefix="fssd-bench-") as name:
        folder = Path(name)
        pictures = user_pictures(command.images) if command.images else made_pictures(folder)
        subject = open_subject(
            command.model,
            folder,
            runtime=command.runtime,
            precision=command.precision,
            device=command.device,
            threads=command.threads,
        )
        setup = Setup(command.mode, command.batch, command.score, command.repeats, command.warm_up)
        report = measure(subject, pictures, setup)
    console = Console(highlight=False, soft_wrap=True)
    console.print(*report.head(), sep="\n", markup=False)
    console.print(report.table())
    console.print(*report.foot(), sep="\n", markup=False)
    if command.json is not None:
        atomic_write(command.json, report.to_json())
    return 0

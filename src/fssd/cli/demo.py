"""fssd demo: a packaged model at work, then from nothing to a trained detector and pictures, in minutes."""

from dataclasses import dataclass
from pathlib import Path

from fssd.cli.options import parse
from fssd.cli.result import add_result
from fssd.config.bounds import Count
from fssd.errors import Stopped


@dataclass(frozen=True)
class Demo:
    """Find a cat and a person with the packaged model; then make digit scenes, train fssd300-lite on them for
    a few minutes, measure it, draw what it finds."""

    out: Path = Path("runs/demo")
    """Folder for pictures, scenes and run."""
    iterations: Count | None = None
    """Weight updates of 8 scenes; by default as many as this machine does in three minutes, 260 at most."""
    scenes: Count = 600
    """Scenes to train on; a quarter as many more are made to measure on."""


def run(arguments: list[str]) -> int:
    command = parse(Demo, arguments)
    from fssd.demo.tour import demo

    try:
        demo(command.out, iterations=command.iterations, scenes=command.scenes)
    except Stopped as stopped:
        raise Stopped(stopped.number, stopped.progress, "the same command continues") from None
    add_result(out=command.out)
    return 0

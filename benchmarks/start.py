"""How long the command takes to answer: help, and the first detection of a process.

    python benchmarks/start.py --model animals

Every figure is that of a whole process, from start to end, with its files in the system's cache. The first
detection is taken as a command (`fssd detect`, which also draws the picture) and as three lines of Python.
"""

from __future__ import annotations

import argparse
import subprocess
import sys
import tempfile
from functools import partial
from pathlib import Path

from fssd.bench.machine import write_figures
from fssd.bench.photographs import made_pictures
from fssd.bench.subject import open_subject
from fssd.bench.timing import line, spread, take_turns
from fssd.runtimes.cores import usable_cores
from fssd.weights.checkpoint import save_model

PROGRAM = "import fssd, sys; det = fssd.Detector.load(sys.argv[1]); found = det(sys.argv[2]); len(found)"


def main() -> None:
    args = _arguments()
    with tempfile.TemporaryDirectory() as folder:
        place = Path(folder)
        model = args.model or str(_fresh_model(place))
        picture = args.image or made_pictures(place, 1).files[0]
        commands = {
            "fssd --help": ["-m", "fssd", "--help"],
            "fssd detect": ["-m", "fssd", "detect", model, str(picture), "--out", str(place / "found")],
            "Detector.load and a call": ["-c", PROGRAM, model, str(picture)],
        }
        steps = {name: partial(_run, command) for name, command in commands.items()}
        times = take_turns(steps, args.repeats, warm_up=1)
    figures = {name: spread(taken) for name, taken in times.items()}
    for name, figure in figures.items():
        print(line(name, figure, "s"))
    write_figures(
        args.json, {"model": args.model or "fssd300-lite, random weights", "seconds": figures}, usable_cores()
    )


def _run(arguments: list[str]) -> None:
    subprocess.run([sys.executable, *arguments], check=True, stdout=subprocess.DEVNULL)


def _fresh_model(folder: Path) -> Path:
    """A model file of fssd300-lite with random weights."""
    subject = open_subject("fssd300-lite", folder, device="cpu")
    network = subject.detector.network
    file = folder / "fresh.safetensors"
    save_model(file, network.state_dict(), network, subject.detector.classes, {})
    return file


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--model", help="what `fssd detect` takes; fresh weights without it")
    parser.add_argument("--image", type=Path, help="picture to look at; a made one without it")
    parser.add_argument("--repeats", type=int, default=7, help="processes of each kind that count")
    parser.add_argument("--json", type=Path, help="write the figures to this file")
    return parser.parse_args()


if __name__ == "__main__":
    main()

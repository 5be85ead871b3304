"""What detection by parts costs beside the plain loop, in CPU seconds: per image, and once.

    python benchmarks/parts.py --model animals --images PHOTOGRAPHS --rounds 3

A round runs `fssd detect` plainly without pictures, with --engine local and with --engine ray, over a small
and a large number of images, one after the other; each process counts its own CPU seconds and those of its
children. The cost of an image is the difference between the two numbers, what is left is the fixed cost. Ray
runs on a cluster of its own with as many actors as given.
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import subprocess
import sys
import tempfile
from pathlib import Path

ENGINES = ("plain", "local", "ray")

# Counts what the command and all processes that it started have used. Those of Ray outlive their parents for a
# moment: they become children of this process (Linux's PR_SET_CHILD_SUBREAPER, 36), which waits for them.
COUNTED = """
import ctypes, os, sys
from fssd.cli.main import main
ctypes.CDLL(None).prctl(36, 1, 0, 0, 0)
code = main(sys.argv[2:])
try:
    while True:
        os.wait()
except ChildProcessError:
    pass
own = os.times()
open(sys.argv[1], "w").write(str(own.user + own.system + own.children_user + own.children_system))
sys.exit(code)
"""


def main() -> None:
    args = _arguments()
    with tempfile.TemporaryDirectory() as place:
        folder = Path(place)
        few, many = (_linked(args.images, folder / str(count), count) for count in (args.few, args.many))
        used: dict[str, list[tuple[float, float]]] = {engine: [] for engine in ENGINES}
        for turn in range(args.rounds):
            for engine in ENGINES:
                pair = tuple(
                    _run(args, engine, source, folder / f"{turn}{engine}{source.name}")
                    for source in (few, many)
                )
                used[engine].append((pair[0], pair[1]))
                print(f"round {turn + 1}, {engine}: {pair[0]:.1f} s, {pair[1]:.1f} s", flush=True)
    figures = {engine: _figures(pairs, args.few, args.many) for engine, pairs in used.items()}
    plain = figures["plain"]["milliseconds"]
    for engine, row in figures.items():
        more = 100 * (row["milliseconds"] / plain - 1)
        print(
            f"{engine:<6} {row['milliseconds']:7.1f} ms an image ({more:+.0f} %), {row['fixed']:5.1f} s once"
        )
    if args.json is not None:
        args.json.write_text(json.dumps(figures, indent=1) + "\n")


def _figures(pairs: list[tuple[float, float]], few: int, many: int) -> dict[str, float]:
    """The medians of the rounds: CPU milliseconds an image, and CPU seconds that no image costs."""
    each = [(large - small) / (many - few) for small, large in pairs]
    fixed = [small - few * cost for (small, _), cost in zip(pairs, each, strict=True)]
    return {"milliseconds": 1000 * statistics.median(each), "fixed": statistics.median(fixed)}


def _run(args: argparse.Namespace, engine: str, source: Path, out: Path) -> float:
    """CPU seconds of one command."""
    flags = ["--no-pictures"] if engine == "plain" else ["--engine", engine, "--part", str(args.part)]
    flags += ["--actors", str(args.actors)] if engine == "ray" else []
    counted = out.with_suffix(".seconds")
    command = [sys.executable, "-c", COUNTED, counted, "detect", args.model, source, "--out", out, *flags]
    environment = {**os.environ, "OMP_NUM_THREADS": "1", "RAY_ADDRESS": ""}
    subprocess.run(
        [*map(str, command), "--device", "cpu"], check=True, env=environment, stdout=subprocess.DEVNULL
    )
    return float(counted.read_text())


def _linked(images: Path, folder: Path, count: int) -> Path:
    """A folder with that many links to the images, again from the first one where they are too few."""
    files = sorted(file for file in images.rglob("*.jpg"))
    if not files:
        raise SystemExit(f"{images} has no .jpg")
    folder.mkdir()
    for number in range(count):
        (folder / f"{number:06}.jpg").symlink_to(files[number % len(files)].resolve())
    return folder


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--model", default="animals")
    parser.add_argument("--images", type=Path, required=True, help="folder of JPEG files")
    parser.add_argument("--few", type=int, default=64)
    parser.add_argument("--many", type=int, default=320)
    parser.add_argument("--part", type=int, default=32)
    parser.add_argument("--actors", type=int, default=1)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--json", type=Path)
    return parser.parse_args()


if __name__ == "__main__":
    main()

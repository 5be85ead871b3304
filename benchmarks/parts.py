"""What detection by parts costs beside the plain loop, in CPU seconds: per image, and once.

    python benchmarks/parts.py --model animals --images PHOTOGRAPHS --rounds 3

A round runs `fssd detect` plainly without pictures, with --engine local and with --engine ray, over a small
and a large number of images, one after the other. CPU seconds are those of all processes that a command has
started, read from /proc ten times a second, so Linux only. The cost of an image is the difference between the
two numbers of images; what is left is the fixed cost. Ray has a cluster of its own.
"""

from __future__ import annotations

import argparse
import json
import os
import secrets
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

ENGINES = ("plain", "local", "ray")

MARK = "FSSD_BENCHMARK_RUN"
TICKS = os.sysconf("SC_CLK_TCK")


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
    """CPU seconds of one command and all that it starts."""
    flags = ["--no-pictures"] if engine == "plain" else ["--engine", engine, "--part", str(args.part)]
    flags += ["--actors", str(args.actors)] if engine == "ray" else []
    command = [sys.executable, "-m", "fssd", "detect", args.model, source, "--out", out, *flags]
    mark = secrets.token_hex(8)
    environment = {**os.environ, "OMP_NUM_THREADS": "1", "RAY_ADDRESS": "", MARK: mark}
    used: dict[str, float] = {}
    with subprocess.Popen(
        [*map(str, command), "--device", "cpu"], env=environment, stdout=subprocess.DEVNULL
    ) as process:
        while process.poll() is None:
            _sample(f"{MARK}={mark}".encode(), used)
            time.sleep(0.1)
    if process.returncode:
        raise SystemExit(f"the command ended with {process.returncode}")
    while _sample(f"{MARK}={mark}".encode(), used):  # Ray's processes outlive the command for a moment
        time.sleep(0.1)
    return sum(used.values())


def _sample(mark: bytes, used: dict[str, float]) -> int:
    """Note the CPU seconds of each living process with the mark; returns their number."""
    alive = 0
    for place in Path("/proc").glob("[0-9]*"):
        try:
            if used.get(place.name) is None and mark not in (place / "environ").read_bytes():
                continue
            words = (place / "stat").read_text().rpartition(")")[2].split()
        except (OSError, ProcessLookupError):
            continue
        if words[0] != "Z":
            alive += 1
        used[place.name] = (int(words[11]) + int(words[12])) / TICKS
    return alive


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

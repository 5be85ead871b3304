"""Training images a second of two processes against one, each with one thread, as `torchrun` starts them.

    python benchmarks/processes.py --rounds 3
    python benchmarks/processes.py --model fssd300-lite --images 16 --set amp=bf16 freeze=4

The runs take turns and have the same `--global-batch`. A run's rate is the median over its updates but the
first ones; a ratio is taken round by round. It says something only where each process has a core of its own.
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

from fssd.bench.machine import write_figures
from fssd.bench.timing import line, spread
from fssd.data.scenes import make_scenes
from fssd.runtimes.cores import usable_cores

UNTIMED = 3  # updates, in which kernels are chosen and memory is taken


def main() -> None:
    args = _arguments()
    rates: dict[int, list[float]] = {1: [], args.processes: []}
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        data = args.data or make_scenes(folder / "scenes", train=64, val=1)
        for number in range(args.rounds):
            for world, found in rates.items():
                found.append(rate(world, data, folder / f"{number}-{world}", args))
    figures = {f"{world} processes, images a second": spread(found) for world, found in rates.items()}
    times = [many / one for many, one in zip(rates[args.processes], rates[1], strict=True)]
    for key, figure in figures.items():
        print(line(key, figure, "", 1))
    figures["ratio"] = spread(times)
    print(line(f"{args.processes} processes against one", figures["ratio"], "times"))
    write_figures(args.json, figures, usable_cores())


def rate(world: int, data: Path, out: Path, args: argparse.Namespace) -> float:
    """Images a second of a short run of `world` processes."""
    command = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node", str(world)]
    command += ["-m", "fssd", "train", "--data", str(data), "--out", str(out), "--model", args.model]
    command += ["--global-batch", str(args.images), "--val-split", "none", "--iterations", str(args.updates)]
    settings = ["threads=1", "workers=0", "log_every=1", "warmup=0", "save_every=1000", *args.set]
    for setting in settings:
        key, _, value = setting.partition("=")
        command += [f"--{key.replace('_', '-')}", value]
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    done = subprocess.run(command, capture_output=True, text=True, check=False, env=environment)
    if done.returncode:
        sys.exit(done.stderr[-2000:])
    lines = [json.loads(text) for text in (out / "log.jsonl").read_text(encoding="utf-8").splitlines()]
    return statistics.median([one["images_per_second"] for one in lines if "loss" in one][UNTIMED:])


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--model", default="fssd300-lite")
    parser.add_argument("--data", type=Path, help="a data set; made scenes without it")
    parser.add_argument("--images", type=int, default=16, help="of an update, in all processes")
    parser.add_argument("--processes", type=int, default=2)
    parser.add_argument("--updates", type=int, default=12)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--set", nargs="*", default=[], help="settings of the training, KEY=VALUE")
    parser.add_argument("--json", type=Path)
    return parser.parse_args()


if __name__ == "__main__":
    main()

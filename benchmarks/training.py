"""Images a second of training on the CPU: our loop beside a plain eager step, and what loading data costs it.

    python benchmarks/training.py --model fssd300-lite --batch 32
    python benchmarks/training.py --data DATA --set amp=bf16
    python benchmarks/training.py --against OTHER_CHECKOUT

Three sides take turns, some steps at a time. "plain" is what one would write down first: contiguous (NCHW)
float32 images, `torch.optim.SGD` parameter by parameter, forward, loss, backward, step, on one batch that
stays in memory. "cached" is `fssd.train`, all of it, on one such batch; "loaded" is `fssd.train` as it is. Of
the latter those steps count during which the loader is at work, so that each pays for one batch.

With --against, the step of `fssd.train` here and in another checkout are compared instead: two processes take
turns, a step each, on the same batches, which are in memory. The ratio is taken turn by turn.
"""

from __future__ import annotations

import argparse
import contextlib
import dataclasses
import io
import itertools
import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from unittest.mock import patch

import numpy as np
import torch

from fssd.bench.machine import write_figures
from fssd.bench.measure import use_threads
from fssd.bench.timing import Spread, line, milliseconds, ratio, spread
from fssd.cli.train import parse_options
from fssd.config.config_files import load_config
from fssd.config.settings import with_values
from fssd.config.train_config import TrainConfig, to_values
from fssd.data.batch import Batch
from fssd.data.loader import BatchPositions, Examples, Views, training_batches
from fssd.data.sample import DataSet
from fssd.data.scenes import make_scenes
from fssd.data.source import open_data
from fssd.model.network import Network
from fssd.runtimes.cores import usable_cores
from fssd.training import loop, run_setup
from fssd.training.start import fresh_network

SKIPPED = 3  # steps at the beginning of each side's turn
QUEUE = 4  # batches that a loader is ahead; as many steps at the end do not count, having none to load
REST = 0.05  # seconds before a step of another process; the threads of the last one wait busily for a while
SCENES = 64
SCENE_SIZE = 500  # pixels, as the longer side of a VOC photograph


def main() -> None:
    args = _arguments()
    use_threads(args.threads)
    if args.against is not None:
        compare_with(args.against, args)
        return
    with tempfile.TemporaryDirectory() as folder, contextlib.redirect_stdout(io.StringIO()):
        config = _config(args, Path(folder))
        sides = {
            "plain": PlainStep(config),
            "cached": FssdLoop(config, Path(folder), cached=True),
            "loaded": FssdLoop(config, Path(folder), cached=False),
        }
        seconds: dict[str, list[float]] = {name: [] for name in sides}
        for _ in range(args.rounds):
            for name, side in sides.items():
                seconds[name].append(statistics.median(side.run(args.steps)))
    _report(args, config, seconds)


class PlainStep:
    """The plain step, on one batch."""

    def __init__(self, config: TrainConfig) -> None:
        assert config.data is not None
        dataset = open_data(config.data, config.train_split)
        self.network = fresh_network(config, dataset, None, quiet=True)
        self.batch = first_batch(config, dataset, self.network)
        self.optimizer = torch.optim.SGD(
            self.network.parameters(),
            lr=1e-4,
            momentum=config.momentum,
            weight_decay=config.weight_decay,
            foreach=False,
        )

    def run(self, steps: int) -> list[float]:
        """Seconds of each of so many steps."""
        taken = []
        for _ in range(SKIPPED + steps):
            start = time.perf_counter()
            self.optimizer.zero_grad()
            raw = self.network(self.batch.images.contiguous().float())
            self.network.heads.loss(raw, self.batch.targets)["loss"].backward()
            self.optimizer.step()
            taken.append(time.perf_counter() - start)
        return taken[SKIPPED:]


class FssdLoop:
    """`fssd.train`, timed by its own log. cached: every batch is the first one."""

    def __init__(self, config: TrainConfig, folder: Path, cached: bool) -> None:
        self.config = config
        self.folder = folder / ("cached" if cached else "loaded")
        self.cached = cached
        self.turn = 0

    def run(self, steps: int) -> list[float]:
        """Seconds of each of so many steps."""
        out = self.folder / str(self.turn)
        self.turn += 1
        config = dataclasses.replace(
            self.config, out=out, iterations=SKIPPED + steps + (0 if self.cached else QUEUE)
        )
        with (
            patch.object(run_setup, "training_batches", _endless) if self.cached else contextlib.nullcontext()
        ):
            loop.train(config)
        lines = [json.loads(text) for text in (out / "log.jsonl").read_text(encoding="utf-8").splitlines()]
        rates = [one["images_per_second"] for one in lines if "images_per_second" in one]
        return [config.batch_size / rate for rate in rates[SKIPPED : SKIPPED + steps]]


def _endless(
    examples: Examples, positions: BatchPositions, workers: int, pin: bool = False
) -> Iterator[Batch]:
    """In place of `training_batches`: the first batch again and again."""
    del workers, pin
    return itertools.repeat(next(training_batches(examples, positions, workers=0)))


def first_batch(config: TrainConfig, dataset: DataSet, network: Network) -> Batch:
    """The first batch that `fssd.train` would load."""
    flags = (config.difficult, config.jpeg, config.crowds)
    views = Views(dataset, network.geometry, config.seed, config.augment, *flags)
    positions = BatchPositions(0, 1, config.batch_size)
    return next(training_batches(Examples(views, network.heads.targets), positions, workers=0))


def _config(args: argparse.Namespace, folder: Path) -> TrainConfig:
    """The training to measure: the user's settings, from fresh weights, without evaluation."""
    config = TrainConfig(amp="off") if args.config is None else load_config(args.config)
    config = with_values(config, {"model": args.model, "batch_size": args.batch, **parse_options(args.set)})
    data = args.data or config.data or make_scenes(folder / "scenes", train=SCENES, val=0, size=SCENE_SIZE)
    return dataclasses.replace(
        config,
        data=data,
        val_split=None,
        start="nothing",
        weights=None,
        epochs=None,
        steps=(),
        lr=1e-4,  # low, so that fresh weights do not run away
        log_every=1,
        save_every=1_000_000,
        threads=args.threads,
        device="cpu",
    )


# ---- another checkout


class Side:
    """`fssd.train` of a checkout, in a process of its own that takes a step when it is asked to."""

    def __init__(self, checkout: Path, config: TrainConfig, folder: Path) -> None:
        folder.mkdir()
        defaults = to_values(TrainConfig())
        values = {**to_values(config), "out": str(folder / "run")}
        settings = {key: value for key, value in values.items() if value != defaults[key]}
        (folder / "settings.json").write_text(json.dumps(settings), encoding="utf-8")
        self.process = subprocess.Popen(
            [
                sys.executable,
                str(Path(__file__).with_name("training_side.py")),
                str(folder / "settings.json"),
            ],
            env={**os.environ, "PYTHONPATH": str(checkout.resolve() / "src")},
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )
        self.checksum = self._answer()

    def step(self) -> None:
        """Take a step, and wait until it is done."""
        assert self.process.stdin is not None
        self.process.stdin.write("\n")
        self.process.stdin.flush()
        self._answer()

    def close(self) -> None:
        """End the process."""
        self.process.kill()
        self.process.communicate()

    def _answer(self) -> str:
        assert self.process.stdout is not None
        answer = self.process.stdout.readline().strip()
        if not answer:
            raise SystemExit("a training ended before it was asked to; its own message is above")
        return answer


def compare_with(checkout: Path, args: argparse.Namespace) -> None:
    """Time the step of `fssd.train` here and in another checkout, in turn."""
    if not (checkout / "src" / "fssd").is_dir():
        raise SystemExit(f"{checkout}: has no src/fssd; name the folder of a checkout")
    with tempfile.TemporaryDirectory() as place:
        folder = Path(place)
        with contextlib.redirect_stdout(io.StringIO()):
            config = _config(args, folder)
        # Versions may sample augmentation in different ways.
        config = dataclasses.replace(config, augment="none", iterations=1_000_000, log_every=1_000_000)
        roots = {"other": checkout, "this": Path(__file__).parents[1]}
        times: dict[str, list[float]] = {name: [] for name in roots}
        for number in range(args.rounds):
            # New processes each time, the other one first: of two equal ones the second is up to 4 % slower,
            # because of the memory that it gets.
            names = sorted(roots, reverse=number % 2 == 0)
            sides = {name: Side(roots[name], config, folder / f"{name}-{number}") for name in names}
            try:
                if sides["this"].checksum != sides["other"].checksum:
                    raise SystemExit("the two checkouts make different batches of the same images")
                for name, taken in alternate(sides, args.steps).items():
                    times[name] += taken
            finally:
                for side in sides.values():
                    side.close()
    own = {name: milliseconds(spread(taken)) for name, taken in times.items()}
    ratios = ratio(times["this"], times["other"])
    low, high = median_interval(np.divide(times["this"], times["other"]))
    print(f"{config.model}, batch {args.batch}, a step of fssd.train here and in {checkout}")
    for name, figure in own.items():
        print(line(f"  {name}", figure, "ms", digits=1))
    print(line("  this over other", ratios, "times", digits=3))
    print(f"  its median lies between {low:.3f} and {high:.3f} (95 %, bootstrap)")
    figures: dict[str, Any] = {
        "model": config.model,
        "batch": args.batch,
        "set": args.set,
        "milliseconds": own,
        "this_over_other": ratios,
        "median_interval": [low, high],
    }
    write_figures(args.json, figures, args.threads)


def alternate(sides: dict[str, Side], turns: int) -> dict[str, list[float]]:
    """Seconds of each step. Which side goes first changes from turn to turn."""
    times: dict[str, list[float]] = {name: [] for name in sides}
    for turn in range(SKIPPED + turns):
        for name in sorted(sides, reverse=turn % 2 == 0):
            time.sleep(REST)
            start = time.perf_counter()
            sides[name].step()
            times[name].append(time.perf_counter() - start)
    return {name: own[SKIPPED:] for name, own in times.items()}


def median_interval(values: np.ndarray) -> tuple[float, float]:
    """Where the median of (N,) values lies with 95 % confidence, by bootstrap."""
    samples = np.random.default_rng(0).choice(values, (10_000, len(values)))
    low, high = np.percentile(np.median(samples, axis=1), [2.5, 97.5])
    return float(low), float(high)


def _report(args: argparse.Namespace, config: TrainConfig, seconds: dict[str, list[float]]) -> None:
    rates = {name: spread([args.batch / taken for taken in own]) for name, own in seconds.items()}
    gain = ratio(seconds["plain"], seconds["loaded"])
    cost = ratio(seconds["loaded"], seconds["cached"])
    print(f"{config.model}, batch {args.batch}, {args.rounds} rounds of {args.steps} steps")
    for name, rate in rates.items():
        print(line(f"  {name}", rate, "images/s"))
    print(line("  loaded over plain", gain, "times"))
    loading = Spread(*(100 * (part - 1) for part in cost[:3]), cost.number)
    print(line("  loading over cached", loading, "% longer", digits=1))
    figures: dict[str, Any] = {
        "model": config.model,
        "batch": args.batch,
        "set": args.set,
        "images_per_second": rates,
        "loaded_over_plain": gain,
        "loaded_seconds_over_cached": cost,
    }
    write_figures(args.json, figures, args.threads)


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--model", default="fssd300-lite")
    parser.add_argument("--config", type=Path, help="settings of the training, as for `fssd train --config`")
    parser.add_argument("--set", nargs="*", default=[], help="settings over it, such as amp=bf16")
    parser.add_argument("--data", type=Path, help="data set with the split train; made scenes without it")
    parser.add_argument("--batch", type=int, default=32, help="images of a step")
    parser.add_argument("--steps", type=int, default=6, help="of each side in a round, that count")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--against", type=Path, help="compare the step with that of this checkout instead")
    parser.add_argument("--threads", type=int, default=usable_cores())
    parser.add_argument("--json", type=Path, help="write the figures to this file")
    return parser.parse_args()


if __name__ == "__main__":
    main()

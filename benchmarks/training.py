"""Images a second of training on the CPU: our loop beside a plain eager step, and what loading data costs it.

    python benchmarks/training.py --model fssd300-lite --batch 32
    python benchmarks/training.py --data DATA --set amp=bf16

Three sides take turns, some steps at a time. "plain" is what one would write down first: contiguous (NCHW)
float32 images, `torch.optim.SGD` parameter by parameter, forward, loss, backward, step, on one batch that
stays in memory. "cached" is `fssd.train`, all of it, on one such batch; "loaded" is `fssd.train` as it is. Of
the latter those steps count during which the loader is at work, so that each pays for one batch.
"""

from __future__ import annotations

import argparse
import contextlib
import dataclasses
import io
import itertools
import json
import statistics
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from unittest.mock import patch

import torch

from fssd.bench.machine import write_figures
from fssd.bench.measure import use_threads
from fssd.bench.timing import Spread, line, ratio, spread
from fssd.cli.train import parse_options
from fssd.config import TrainConfig, load_config, with_values
from fssd.data.geometry import Warp
from fssd.data.loader import Batch, BatchPositions, Views, training_batches
from fssd.data.scenes import make_scenes
from fssd.data.source import open_data
from fssd.heads.multibox.loss import multibox_loss
from fssd.model.build import build_model
from fssd.runtimes.cores import usable_cores
from fssd.training import loop

SKIPPED = 3  # steps at the beginning of each side's turn
QUEUE = 4  # batches that a loader is ahead; as many steps at the end do not count, having none to load
SCENES = 64
SCENE_SIZE = 500  # pixels, as the longer side of a VOC photograph


def main() -> None:
    args = _arguments()
    use_threads(args.threads)
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
        self.batch = first_batch(config)
        assert config.data is not None
        classes = len(open_data(config.data, config.train_split).classes)
        self.network = build_model(config.model, classes, **dict(config.options)).train()
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
            multibox_loss(raw, self.network.heads.priors, self.batch.targets).total.backward()
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
        with patch.object(loop, "training_batches", _endless) if self.cached else contextlib.nullcontext():
            loop.train(config)
        lines = [json.loads(text) for text in (out / "log.jsonl").read_text(encoding="utf-8").splitlines()]
        rates = [one["images_per_second"] for one in lines if "images_per_second" in one]
        return [config.batch_size / rate for rate in rates[SKIPPED : SKIPPED + steps]]


def _endless(views: Views, positions: BatchPositions, workers: int, pin: bool = False) -> Iterator[Batch]:
    """In place of `training_batches`: the first batch again and again."""
    del workers, pin
    return itertools.repeat(_load_first(views, positions.batch_size))


def _load_first(views: Views, size: int) -> Batch:
    return next(training_batches(views, BatchPositions(0, 1, size), workers=0))


def first_batch(config: TrainConfig) -> Batch:
    """The first batch that `fssd.train` would load."""
    assert config.data is not None
    dataset = open_data(config.data, config.train_split)
    size = 512 if "512" in config.model else 300
    warp = Warp((size, size))
    views = Views(dataset, warp, config.seed, config.augment, config.difficult, config.jpeg, config.crowds)
    return _load_first(views, config.batch_size)


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
    parser.add_argument("--threads", type=int, default=usable_cores())
    parser.add_argument("--json", type=Path, help="write the figures to this file")
    return parser.parse_args()


if __name__ == "__main__":
    main()

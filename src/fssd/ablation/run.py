"""Training the rows of an ablation, seed by seed, each run in a folder of its own: OUT/ROW/seed-N."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import yaml

from fssd.ablation.plan import Budget, Plan, Row, shorten
from fssd.config import TrainConfig, resolve, to_values, with_values
from fssd.data.source import open_data
from fssd.errors import ConfigError
from fssd.training.log import last_evaluation
from fssd.training.loop import CONFIG_FILE, FINAL_FILE, train
from fssd.training.state import require_same


@dataclass(frozen=True)
class Run:
    """One training: a row with a seed. `config` is complete."""

    row: Row
    seed: int
    config: TrainConfig

    @property
    def folder(self) -> Path:
        assert self.config.out is not None
        return self.config.out


def plan_runs(
    plan: Plan,
    out: Path,
    *,
    seeds: int,
    data: Path | None = None,
    budget: Budget | None = None,
    changes: dict[str, Any] | None = None,
) -> list[Run]:
    """The trainings of a plan: all rows with seed 0, then all with seed 1, so that a part is a fair table.

    data: instead of what the rows name. changes: settings of every row. Raises ConfigError.
    """
    runs = []
    images: dict[tuple[Path | None, str], int] = {}
    for seed in range(seeds):
        for row in plan.rows:
            config = with_values(row.config, changes or {})
            config = replace(config, data=data or config.data, out=_folder(out, row.name, seed), seed=seed)
            if row.after is not None:
                config = replace(config, weights=_folder(out, row.after, seed) / FINAL_FILE)
            config = resolve(config)
            if config.val_split is None:
                raise ConfigError(f"row {row.name}: an ablation measures on a split; give it a val_split")
            if budget is not None:
                key = (config.data, config.train_split)
                if key not in images:
                    assert config.data is not None
                    images[key] = len(open_data(config.data, config.train_split))
                config = shorten(config, budget, images[key])
            runs.append(Run(row, seed, config))
    return runs


def _folder(out: Path, row: str, seed: int) -> Path:
    return out / row / f"seed-{seed}"


def train_runs(
    runs: Sequence[Run], minutes: float | None, report: Callable[[Run, str], None]
) -> Iterator[Run]:
    """Train what is not finished, yielding each run that is; stops when the minutes are over.

    report: told of each run what becomes of it. Raises what `fssd.training.loop.train` does.
    """
    stop_at = None if minutes is None else time.monotonic() + 60 * minutes
    for run in runs:
        if is_finished(run):
            report(run, "finished before")
            yield run
            continue
        left = None if stop_at is None else (stop_at - time.monotonic()) / 60
        if left is not None and left <= 0:
            report(run, "not begun: the time is over")
            return
        report(run, "trains")
        if not train(run.config, resume=True, minutes=left).finished:
            report(run, "stopped: the time is over")
            return
        yield run


def is_finished(run: Run) -> bool:
    """Whether the run has its last model. Raises ConfigError if it was made with other settings."""
    file = run.folder / CONFIG_FILE
    if not (run.folder / FINAL_FILE).exists() or not file.exists():
        return False
    require_same(yaml.safe_load(file.read_text(encoding="utf-8")), to_values(run.config), run.folder)
    return last_evaluation(run.folder) is not None

"""Trains the rows of an ablation, seed by seed, each run in its own folder: OUT/ROW/seed-N."""

import math
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from fssd.ablation.plan import AblationPlan, AblationRow, Budget, refuse_flags, shorten
from fssd.config.run_files import CONFIG_FILE, FINAL_FILE, STATE_FILE
from fssd.config.settings import with_values
from fssd.config.train_config import AUTO, COMPARED, DIVIDED, RESUME_MAY_CHANGE, TrainConfig, to_values
from fssd.config.yaml_files import read_mapping
from fssd.data.repeats import Repeats
from fssd.errors import ConfigError, Stopped, TrainingError
from fssd.training.distributed import this_process
from fssd.training.log import LOG_FILE, last_evaluation
from fssd.training.loop import train
from fssd.training.splits import name_splits, open_splits
from fssd.training.start import complete, oversampling, require_weights
from fssd.training.state import require_same, require_same_form
from fssd.zoo.models import is_published

OWN_FAULTS = (ConfigError, TrainingError)  # of one run's settings, which say nothing about the others


@dataclass(frozen=True)
class Run:
    """One training: a row with a seed. `config` is complete."""

    row: AblationRow
    seed: int
    config: TrainConfig

    @property
    def folder(self) -> Path:
        assert self.config.out is not None
        return self.config.out

    def say(self, state: str) -> None:
        print(f"{self.row.name}, seed {self.seed}: {state}")


def plan_runs(
    plan: AblationPlan,
    out: Path,
    *,
    seeds: int,
    data: Path | None = None,
    budget: Budget | None = None,
    changes: dict[str, Any] | None = None,
) -> list[Run]:
    """The runs of a plan: all rows with seed 0, then all with seed 1, so that an unfinished table is fair.

    data: replaces the data of the rows. changes: settings for every row. Raises ConfigError.
    """
    refuse_flags(changes or {}, "--set")
    runs = []
    counted: dict[tuple[Any, ...], int] = {}
    for seed in range(seeds):
        for row in plan.rows:
            config = with_values(row.config, changes or {})
            config = replace(config, data=data or config.data, out=_folder(out, row.name, seed), seed=seed)
            if row.after is not None:
                config = replace(config, weights=_folder(out, row.after, seed) / FINAL_FILE)
            config = name_splits(_complete(config, row.name))
            if config.batch_size == AUTO:
                what = "rows are compared and need one batch_size, not auto"
                raise ConfigError(f"row {row.name}: {what}; give a number")
            if budget is not None:
                views = _training_views(config, counted)
                config = shorten(config, budget, views, this_process().world)
            runs.append(Run(row, seed, config))
    _check(runs, plan.server)
    return runs


def _complete(config: TrainConfig, row: str) -> TrainConfig:
    try:
        return complete(config)
    except ConfigError as error:
        raise ConfigError(f"row {row}: {error}") from error


def _training_views(config: TrainConfig, known: dict[tuple[Any, ...], int]) -> int:
    """The number of views in an epoch of a run; `known` holds those of the runs before."""
    names = (*COMPARED, *DIVIDED, "oversample", "difficult", "crowds")
    key = tuple(getattr(config, name) for name in names)
    if key not in known:
        train_set = open_splits(config, quiet=True).train
        factors = oversampling(config, train_set, quiet=True)
        known[key] = len(train_set if factors is None else Repeats(factors.numpy()))
    return known[key]


def _check(runs: Sequence[Run], server: str | None) -> None:
    """Raise ConfigError for what would fail, or make rows incomparable, only after hours of training."""
    first = runs[0]
    for run in runs:
        row, config = run.row, run.config
        where = f"row {row.name}:"
        if config.val_split is None and server is None:
            raise ConfigError(f"{where} an ablation needs a split to evaluate on; give it a val_split")
        if config.val_split is not None and server is not None:
            raise ConfigError(
                f"{where} the table is measured by the server of {server}; set its val_split to none"
            )
        if row.after is not None and config.start not in ("ssd", "model"):
            what = f"comes after {row.after} but starts from {config.start!r}"
            raise ConfigError(f"{where} {what}; set start to ssd or model")
        if row.after is None and config.weights is not None and not config.weights.exists():
            if not is_published(config.weights):
                raise ConfigError(
                    f"{where} there are no weights {config.weights}; train or import them first"
                )
            require_weights(config)
        for key in (*COMPARED, *(DIVIDED if config.val_split == "auto" else ())):
            one, other = getattr(first.config, key), getattr(config, key)
            if one != other:
                names = f"{first.row.name} and {row.name}"
                raise ConfigError(f"rows {names} cannot share a table: their {key} is {one} and {other}")


def _folder(out: Path, row: str, seed: int) -> Path:
    return out / row / f"seed-{seed}"


def train_runs(runs: Sequence[Run], minutes: float | None) -> Iterator[Run]:
    """Train the runs that are not finished, and yield each finished one; stops when the minutes are over.

    A run whose settings do not work, or whose loss is not finite, is abandoned, together with the runs that
    start from it; the others continue. Raises the other errors of `fssd.training.loop.train`, Stopped among
    them, and ConfigError for a run that was begun with other settings, before the first is trained.
    """
    finished, failed = finished_folders(runs), set[Path]()
    stop_at = None if minutes is None else time.monotonic() + 60 * minutes
    for run in runs:
        if run.folder in finished:
            run.say("already finished")
            yield run
            continue
        if run.config.weights is not None and run.config.weights.parent in failed:
            failed.add(run.folder)
            run.say(f"not started: {run.row.after} failed")
            continue
        left = None if stop_at is None else (stop_at - time.monotonic()) / 60
        if left is not None and left <= 0:
            run.say("not started: the time is over")
            continue
        run.say("training")
        try:
            result = train(run.config, resume=True, minutes=left)
        except OWN_FAULTS as error:
            failed.add(run.folder)
            run.say(f"failed: {error}")
            continue
        except Stopped as stopped:
            progress = stopped.progress and f"{run.row.name}, seed {run.seed}: {stopped.progress}"
            raise Stopped(stopped.number, progress, "the same command continues") from None
        if not result.finished:
            stop_at = -math.inf
            run.say("stopped: the time is over")
            continue
        yield run


def finished_folders(runs: Sequence[Run]) -> set[Path]:
    """The folders of the runs that need no training. Raises ConfigError as `is_finished`, and for a run that
    was begun from the model of a run that is to be trained again."""
    finished = {run.folder for run in runs if is_finished(run)}
    for run in runs:
        start = run.config.weights
        if run.row.after and start is not None and start.parent not in finished and _is_begun(run.folder):
            raise ConfigError(
                f"{run.folder}: was begun from a model of row {run.row.after} that is not in {start.parent}"
                " any more; remove both folders to train both again, or put that model back"
            )
    return finished


def _is_begun(folder: Path) -> bool:
    files = (folder / FINAL_FILE, folder / STATE_FILE)
    return (folder / CONFIG_FILE).exists() and any(file.exists() for file in files)


def is_finished(run: Run) -> bool:
    """Whether the run has its final model and was evaluated.

    Raises ConfigError if it was made with other settings or data, or its evaluation is lost.
    """
    if not _is_begun(run.folder):
        return False
    file, ended = run.folder / CONFIG_FILE, (run.folder / FINAL_FILE).exists()
    may_change = set(RESUME_MAY_CHANGE)
    if ended:
        # Other data or weights would give another result; but the weights of a row with `after` are always
        # its own.
        may_change -= {"data"} if run.row.after else {"data", "weights"}
    if run.config.amp == "auto":
        may_change |= {"amp"}  # resolved when the run was started
    require_same(read_mapping(file), to_values(run.config), run.folder, may_change)
    if not ended:
        return False
    require_same_form(run.folder / FINAL_FILE, run.config)
    if run.config.val_split is not None and last_evaluation(run.folder) is None:
        raise ConfigError(
            f"{run.folder}: has a {FINAL_FILE}, but {LOG_FILE} holds no evaluation; put that file back, or"
            " remove the folder to train the run again"
        )
    return True

"""Cross-validation: one run for each part of the training images, measured on that part."""

from __future__ import annotations

import json
import statistics
import time
from collections.abc import Iterator
from dataclasses import replace
from typing import NamedTuple

from fssd.atomic import atomic_write
from fssd.config.run_files import FINAL_FILE
from fssd.config.train_config import TrainConfig
from fssd.errors import ConfigError, Stopped
from fssd.training.log import last_evaluation
from fssd.training.loop import Result, train
from fssd.training.state import require_same_form

FOLDS_FILE = "folds.json"


class FoldScores(NamedTuple):
    """mAP (0..1) of each fold after its last update. spread: standard deviation over the folds."""

    metric: str
    folds: tuple[float, ...]
    mean: float
    spread: float


def train_folds(
    config: TrainConfig, *, resume: bool = False, minutes: float | None = None, timeout: float | None = None
) -> Iterator[Result]:
    """Train one run for each of `config.folds`, in OUT/fold-N; stops after a run that is not finished.

    resume, minutes, timeout: as for `train`; the minutes are of all runs together.
    Raises what `train` raises.
    """
    if config.folds < 2 or config.out is None:
        raise ConfigError("cross-validation needs --folds, 2 or more, and a folder --out")
    stop_at = None if minutes is None else time.monotonic() + 60 * minutes
    for fold in range(1, config.folds + 1):
        left = None if stop_at is None else max((stop_at - time.monotonic()) / 60, 1e-3)
        one = replace(config, fold=fold, out=config.out / f"fold-{fold}")
        final = config.out / f"fold-{fold}" / FINAL_FILE
        if resume and final.exists():
            require_same_form(final, config)
        try:
            result = train(one, resume=resume, minutes=left, timeout=timeout)
        except Stopped as stopped:
            progress = stopped.progress and f"fold {fold}: {stopped.progress}"
            raise Stopped(stopped.number, progress, "go on with the same command and --resume") from None
        yield result
        if not result.finished:
            return


def fold_scores(config: TrainConfig) -> FoldScores:
    """The scores of finished folds, also written to OUT/folds.json."""
    assert config.out is not None
    reports = [last_evaluation(config.out / f"fold-{fold}") for fold in range(1, config.folds + 1)]
    values = tuple(float(found.report["map"]) for found in reports if found is not None)
    scores = FoldScores(config.metric, values, statistics.fmean(values), statistics.stdev(values))
    atomic_write(config.out / FOLDS_FILE, json.dumps(scores._asdict(), indent=2))
    return scores

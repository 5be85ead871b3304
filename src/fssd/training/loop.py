"""The training loop: loads batches, updates the weights, evaluates, and saves models and state.

torchrun --nproc-per-node 2 -m fssd train ...    runs it in two processes
"""

from __future__ import annotations

import contextlib
import json
import math
import time
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import NamedTuple

import torch

from fssd.config import CONFIG_FILE, TrainConfig
from fssd.data.batch import Batch
from fssd.data.loader import BatchPositions, Examples, Views, training_batches
from fssd.data.sample import DataSet
from fssd.evaluation.evaluate import Report, check_measurable, evaluate_detections
from fssd.inference.detector import Detector, pick_device
from fssd.model.network import channels_last
from fssd.training.distributed import Process, any_process, process_group, wait_for_all
from fssd.training.drawings import draw_batches
from fssd.training.folder import RunFolder
from fssd.training.freeze import freeze_stages, training_mode
from fssd.training.log import Means, RunLog
from fssd.training.optim import learning_rate
from fssd.training.precision import agree_amp
from fssd.training.splits import TrainingSplits, open_splits
from fssd.training.start import check_batch, complete, fresh_network, start_weights
from fssd.training.state import Progress, load_state
from fssd.training.step import Updater

_ALL_THREADS = torch.get_num_threads()  # the default, read before a run changes it


class Result(NamedTuple):
    """The result of `train`.

    out: the run's folder. model: the file to use, the best one where there is one; None while there is none.
    best: its mAP. finished: whether the last iteration was reached.
    """

    out: Path
    model: Path | None
    best: float | None
    finished: bool


def train(
    config: TrainConfig,
    *,
    resume: bool = False,
    minutes: float | None = None,
    backbone: torch.nn.Module | None = None,
) -> Result:
    """Train a detector.

    config: see `TrainConfig`. resume: go on from the state in `config.out` (a run that is interrupted
    and resumed ends in the same bytes as one that is not). minutes: save and stop after so many of them,
    to be resumed; None runs to the end. backbone: a module of the user's own.

    Raises ConfigError, DataError (a fault in the data set), CheckpointError, TrainingError (a loss that
    is not finite, with the names of the images).
    """
    stop_at = math.inf if minutes is None else time.monotonic() + 60 * minutes
    config = complete(config)
    assert config.data is not None and config.out is not None
    torch.set_num_threads(config.threads or _ALL_THREADS)
    splits = open_splits(config, resume)
    config = splits.config
    assert config.out is not None
    if splits.val is not None:
        check_measurable(splits.val, splits.train.classes, config.metric)
    device = pick_device(config.device)
    with process_group(device.type == "cuda") as process:
        if device.type == "cuda" and process.world > 1:
            device = torch.device("cuda", process.local)
        started = config.out / CONFIG_FILE if resume else None
        config = replace(config, amp=agree_amp(config.amp, device, process, started))
        run = _Run(replace(splits, config=config), device, process)
        run.begin(resume, backbone)
        return run.train(stop_at)


class _Run:
    """One training run."""

    updater: Updater

    def __init__(self, splits: TrainingSplits, device: torch.device, process: Process) -> None:
        self.config = config = splits.config
        self.train_set, self.val_set = splits.train, splits.val
        self.device, self.process = device, process
        self.folder = RunFolder(splits, process)
        self.progress = Progress(0, None)
        self.images_per_update = config.batch_size * config.accumulate * process.world
        self.updates_per_epoch = len(self.train_set) / self.images_per_update
        if config.iterations is not None:
            self.total = config.iterations
        else:
            assert config.epochs is not None
            self.total = max(1, math.ceil(config.epochs * self.updates_per_epoch))
        self.eval_every = max(1, round(config.eval_every * self.updates_per_epoch))

    def begin(self, resume: bool, backbone: torch.nn.Module | None) -> None:
        """Create or resume the run's folder, and build the network."""
        config = self.config
        saved = self.folder.saved(resume)
        options = None if saved is None else saved.document["options"]
        network = fresh_network(config, self.train_set, backbone, options, quiet=not self.process.is_first)
        self.network = channels_last(network.to(self.device))
        check_batch(config, self.network)
        freeze_stages(self.network, config.freeze)
        self.updater = updater = Updater(self.network, config, self.device, self.process)
        if saved is None:
            start_weights(self.network, self.train_set.classes, config)
            if updater.average is not None:
                updater.average.restore(self.network.state_dict(), 0)
        else:
            self.progress = load_state(
                self.folder.state, *saved, self.network, updater.optimizer, updater.average
            )
            if saved.document["scaler"]:
                updater.scaler.load_state_dict(saved.document["scaler"])
        wait_for_all(self.process)  # a slower process must not find the folder that the first one makes
        if self.process.is_first:
            self.folder.make()
        wait_for_all(self.process)

    def train(self, stop_at: float = math.inf) -> Result:
        """stop_at: of the monotonic clock, seconds."""
        start = self.progress.iteration
        log = None
        if self.process.is_first:
            log = RunLog(self.folder.path, start, self.total, self.images_per_update)
        try:
            self._loop(start, stop_at, log)
        finally:
            if log is not None:
                log.close()
        finished = self.progress.iteration >= self.total or self._is_exhausted()
        if finished and self.process.is_first:
            self.folder.save_final(self.network, self.updater.weights(), self.progress.iteration)
        best = self.folder.best if self.folder.best.exists() else None
        model = best or (self.folder.final if finished else None)
        return Result(self.folder.path, model, self.progress.best, finished)

    def _loop(self, start: int, stop_at: float, log: RunLog | None) -> None:
        config, watch = self.config, self.updater.watch
        batches = self._batches(start)
        means = Means()
        self._training_mode()
        for iteration in range(start, start if self._is_exhausted() else self.total):
            rate = self._update(batches, iteration, means)
            done = iteration + 1
            if log is not None and (done % config.log_every == 0 or done == self.total):
                log.step(done, {**means.take(), "lr": rate, "epoch": round(done / self.updates_per_epoch, 3)})
            late = time.monotonic() >= stop_at
            asked = stop_at < math.inf and watch.is_due(iteration)
            stops = asked and any_process(late, self.process, self.device)
            evaluates = self.val_set is not None and (done % self.eval_every == 0 or done == self.total)
            saves = evaluates or stops or done % config.save_every == 0 or done == self.total
            if saves:
                self._require_finite()
            if evaluates:
                self._evaluate(done, log)
            self.progress = self.progress._replace(iteration=done)
            if saves:
                self._save()
            if stops or (evaluates and self._is_exhausted()):
                return

    def _is_exhausted(self) -> bool:
        """Whether none of the last `patience` evaluations was the best so far; equal in all processes."""
        patience = self.config.patience
        return patience > 0 and any_process(self.progress.waited >= patience, self.process, self.device)

    def _update(self, batches: Iterator[Batch], iteration: int, means: Means) -> float:
        """One update of the weights; returns its learning rate."""
        config, updater = self.config, self.updater
        rate = learning_rate(
            iteration,
            base=config.lr or 0.0,
            total=self.total,
            schedule=config.schedule or "constant",
            steps=config.steps,
            warmup=min(config.warmup or 0, self.total // 5),
        )
        for part in range(config.accumulate):
            batch = next(batches)
            terms = updater.backward(batch, iteration, last=part == config.accumulate - 1)
            means.add(terms)
        updater.clip(batch, terms, iteration)
        if updater.watch.is_due(iteration):
            self._require_finite()
        updater.step(rate)
        return rate

    def _require_finite(self) -> None:
        """Raise TrainingError, in all processes, if a loss or gradient was not finite; see `FiniteWatch`."""
        bad = self.updater.watch.look()
        if any_process(bad is not None, self.process, self.device):
            self.folder.stop_not_finite(bad)

    def _training_mode(self) -> None:
        training_mode(self.network, self.config.freeze, self.config.freeze_norm)

    def _batches(self, start: int) -> Iterator[Batch]:
        config = self.config
        views = Views(
            self.train_set,
            self.network.geometry,
            config.seed,
            config.augment,
            config.difficult,
            config.jpeg,
            config.crowds,
        )
        if self.process.is_first:
            draw_batches(self.folder.path, views)
        positions = BatchPositions(
            start * config.accumulate,
            self.total * config.accumulate,
            config.batch_size,
            self.process.rank,
            self.process.world,
        )
        examples = Examples(views, self.network.heads.targets)
        return training_batches(examples, positions, config.workers, pin=self.device.type == "cuda")

    def _evaluate(self, done: int, log: RunLog | None) -> None:
        """Measure on the validation split and keep the model if it is the best so far."""
        if self.process.is_first and self.val_set is not None:
            report = self._measure(self.val_set)
            better = not math.isnan(report.map) and (
                self.progress.best is None or report.map > self.progress.best
            )
            self.progress = self.progress._replace(waited=0 if better else self.progress.waited + 1)
            if better:
                self.progress = self.progress._replace(best=report.map)
                self.folder.save_best(self.network, self.updater.weights(), report, done)
            if log is not None:
                log.evaluation(done, json.loads(report.to_json()), better)
        wait_for_all(self.process)

    def _measure(self, dataset: DataSet) -> Report:
        config, average = self.config, self.updater.average
        with average.shown_by(self.network) if average is not None else contextlib.nullcontext():
            detector = Detector(self.network, self.train_set.classes)
            found = list(detector.evaluate_on(dataset, batch_size=config.batch_size, workers=config.workers))
        self._training_mode()
        return evaluate_detections(dataset, found, config.metric)

    def _save(self) -> None:
        if self.process.is_first:
            self.folder.save_state(self.updater, self.progress)
        wait_for_all(self.process)

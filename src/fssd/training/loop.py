"""The training loop: loads batches, updates the weights, evaluates, and saves models and state.

torchrun --nproc-per-node 2 -m fssd train ...    runs it in two processes
"""

from __future__ import annotations

import contextlib
import json
import math
import shlex
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from typing import NamedTuple

import torch

from fssd.config.bounds import NotNegative, Positive, check_number
from fssd.config.run_files import CONFIG_FILE
from fssd.config.train_config import TrainConfig
from fssd.data.batch import Batch
from fssd.data.sample import DataSet
from fssd.errors import ConfigError, DataError, Stopped, TrainingError
from fssd.evaluation.evaluate import Report, check_measurable, evaluate_detections
from fssd.inference.detections import Detections
from fssd.inference.detector import Detector
from fssd.training.agreement import agreed_state, require_same_inputs, require_shared
from fssd.training.batch_size import agree_batch_size
from fssd.training.distributed import (
    TIMEOUT,
    Process,
    any_process,
    highest,
    is_launched,
    of_all,
    own_device,
    process_group,
    this_process,
    together,
    wait_for_all,
)
from fssd.training.folder import Saved
from fssd.training.freeze import given_back, training_mode
from fssd.training.heap import keep_freed_memory
from fssd.training.kernels import kernel_choice
from fssd.training.log import Means, RunLog
from fssd.training.optim import learning_rate
from fssd.training.precision import agree_amp
from fssd.training.run_setup import RunSetup
from fssd.training.splits import TrainingSplits, open_splits
from fssd.training.start import (
    check_start,
    complete,
    require_objects,
)
from fssd.training.state import Progress, load_state
from fssd.training.step import Updater
from fssd.training.stop import READER_GONE, StopRequest, stop_requests
from fssd.training.trackers import Ending, Trackers
from fssd.training.validate import detect_readable, saved_weights

_ALL_THREADS = torch.get_num_threads()  # the default, read before a run changes it


Evaluated = Callable[[int, int, Report], None]
"""Called after every evaluation, in the first process: updates done, those of the run, the report."""


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
    timeout: float | None = None,
    backbone: torch.nn.Module | None = None,
    report: Evaluated | None = None,
) -> Result:
    """Train a detector.

    config: see `TrainConfig`. resume: go on from the state in `config.out` (a run that is interrupted
    and resumed ends in the same bytes as one that is not). minutes: save and stop after so many of them,
    to be resumed; None runs to the end. timeout: minutes that one of several processes waits for another
    before it fails; None is 10. backbone: a module of the user's own. report: see `Evaluated`.

    Several processes are those of a `torch.distributed` group that exists, or that torchrun or Slurm's srun
    have started (see `this_process`). All must see the same state, data and folder, or all raise.

    On SIGINT, SIGTERM or SIGHUP the run ends after the update, saves its state, and raises Stopped; on a
    second one it ends at once. An image that breaks meanwhile is left out within `config.bad_share`; beyond
    that, and when `config.augment_with` fails, the state is saved and the error raised. A run is resumed
    with the same images and labels, where those that it has left out may be missing.

    Raises ConfigError, DataError (a fault in the data set), CheckpointError, TrainingError (a loss that
    is not finite, with the names of the images), Stopped (a KeyboardInterrupt).
    """
    _check_limits(minutes, timeout)
    stop_at = math.inf if minutes is None else time.monotonic() + 60 * minutes
    config = complete(config)
    assert config.data is not None and config.out is not None
    torch.set_num_threads(config.threads or _ALL_THREADS)
    process = this_process()
    device = own_device(config.device, process)
    if device.type == "cpu":
        keep_freed_memory()
    choice = kernel_choice(config.kernels, device)
    with choice, process_group(process, device, timeout or TIMEOUT), given_back(backbone):
        together(process, lambda: check_start(config, resume))
        saved = agreed_state(config.out, process)
        splits = together(process, lambda: _measurable_splits(config, resume, process))
        started = config.out / CONFIG_FILE if resume else None
        splits = _agreed(splits, device, process, backbone, started)
        require_same_inputs(splits, process)
        run = together(process, lambda: _Run(splits, saved, device, process, backbone))
        run.report = report
        with run.closing:
            run.begin(saved)
            saved = None  # frees its tensors
            return run.train(stop_at)


def _agreed(
    splits: TrainingSplits,
    device: torch.device,
    process: Process,
    backbone: torch.nn.Module | None,
    started: Path | None,
) -> TrainingSplits:
    """With numbers and names for what is "auto", the same in all processes."""
    config = replace(splits.config, amp=agree_amp(splits.config.amp, device, process, started))
    config = agree_batch_size(config, splits.train, device, process, backbone, started)
    return replace(splits, config=config)


def _check_limits(minutes: float | None, timeout: float | None) -> None:
    check_number("minutes", minutes, NotNegative | None)
    check_number("timeout", timeout, Positive | None)
    if timeout is not None and not is_launched():
        raise ConfigError("--timeout is of several processes; start them with torchrun, or leave it out")


def _measurable_splits(config: TrainConfig, resume: bool, process: Process) -> TrainingSplits:
    splits = open_splits(config, resume, quiet=not process.is_first)
    require_objects(splits.config, splits.train)
    if splits.val is not None:
        check_measurable(splits.val, splits.train.classes, config.metric)
    return splits


class _Run(RunSetup):
    """One training run."""

    updater: Updater

    def __init__(
        self,
        splits: TrainingSplits,
        saved: Saved | None,
        device: torch.device,
        process: Process,
        backbone: torch.nn.Module | None,
    ) -> None:
        super().__init__(splits, saved, device, process, backbone)
        self.progress = Progress(0, None)
        self.stop = StopRequest()
        self.report: Evaluated | None = None
        self.trackers: Trackers | None = None
        self.closing = contextlib.ExitStack()  # what has to be let go before the group of processes ends
        # What the processes have agreed on, see `_exchange`; broken images wait there for the next time.
        self.asked, self.late = 0, False
        self.broken: dict[str, DataError] = {}

    def begin(self, saved: Saved | None) -> None:
        """Create or resume the run's folder, and the optimizer."""
        config = self.config
        if self.process.is_first and (self.process.world > 1 or config.global_batch is not None):
            print(f"{self.share}; the learning rate {config.lr:g} is not scaled with it", file=sys.stderr)
        self.updater = updater = Updater(self.network, config, self.device, self.process)
        self.closing.callback(updater.close)
        if saved is not None:
            self.progress = load_state(
                self.folder.state, *saved, self.network, updater.optimizer, updater.average
            )
            if saved.document["scaler"]:
                updater.scaler.load_state_dict(saved.document["scaler"])
        wait_for_all(self.process)  # a slower process must not find the folder that the first one makes
        if self.process.is_first:
            self.folder.make()
        require_shared(self.folder, self.process)
        together(self.process, self._open_trackers)

    def _open_trackers(self) -> None:
        if self.process.is_first and self.config.log_to:
            self.trackers = Trackers(self.config)

    def train(self, stop_at: float = math.inf) -> Result:
        """stop_at: of the monotonic clock, seconds. Raises Stopped."""
        self.stop_at, log = stop_at, None
        end: Ending = "failed"
        with stop_requests() as self.stop:
            if self.process.is_first:
                done, images = self.progress.iteration, self.share.images
                log = RunLog(self.folder.path, done, self.total, images, trackers=self.trackers)
            try:
                self._loop(log)
                ended = self.progress.iteration >= self.total or self._is_exhausted()
                finished = ended and not self.progress.due
                end = "finished" if finished else "stopped"
            except (ConfigError, DataError):  # an image that broke, the user's own augmentation
                self._save_before_error()
                raise
            finally:
                if log is not None:
                    log.close(end)
            if finished and self.process.is_first:
                self.folder.save_final(self.network, self.updater.weights(), self.progress.iteration)
            if self.asked or finished:
                # torchrun ends the others as soon as one has ended, and what follows may read the model.
                wait_for_all(self.process)
            if number := self.asked or self.stop.number:
                raise self._stopped(number, finished)
        best = self.folder.best if self.folder.best.exists() else None
        model = best or (self.folder.final if finished else None)
        return Result(self.folder.path, model, self.progress.best, finished)

    def _stopped(self, number: int, finished: bool) -> Stopped:
        rest = f"go on with: fssd train --out {shlex.quote(str(self.folder.path))} --resume"
        progress = f"stopped at update {self.progress.iteration}" if self.process.is_first else ""
        return Stopped(number, progress, "the run is finished" if finished else rest)

    def _loop(self, log: RunLog | None) -> None:
        start = self.progress.iteration
        if self.progress.due:
            self._measure(start, log)
        # Closed at once: workers that are left to the garbage collector can outlive the run.
        with contextlib.closing(self.batches(start)) as batches:
            self._updates(batches, log)

    def _updates(self, batches: Iterator[Batch], log: RunLog | None) -> None:
        config, start = self.config, self.progress.iteration
        means = Means()
        self._training_mode()
        ends = self.asked or self._is_exhausted()
        for iteration in range(start, start if ends else self.total):
            rate = self._update(batches, iteration, means)
            done = iteration + 1
            due = self.val_set is not None and (done % self.eval_every == 0 or done == self.total)
            self.progress = self.progress._replace(iteration=done, due=due)
            self.left_out.require_few()
            if log is not None:
                log.tick(done)
            if log is not None and (done % config.log_every == 0 or done == self.total):
                log.step(done, {**means.take(), "lr": rate, "epoch": round(done / self.updates_per_epoch, 3)})
                if not log.is_read:
                    self.stop.ask(READER_GONE)
            saves = due or done % config.save_every == 0 or done == self.total
            if saves or self.asked or self.late:
                self._exchange()
                if due and not self.asked:
                    self._measure(done, log)
                else:
                    self._save()
            if self.asked or self.late or (due and self._is_exhausted()):
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
            steps=config.steps_of(self.total),
            warmup=min(config.warmup or 0, self.total // 5),
            warmup_power=config.warmup_power,
        )
        # All are loaded first: an image that ends the run must find the state as the last update left it.
        parts = [next(batches) for _ in range(self.share.passes)]
        self._leave_out(parts)
        counts = updater.counts(parts)
        for number, batch in enumerate(parts, start=1):
            terms = updater.backward(batch, iteration, last=number == len(parts), counts=counts)
            means.add(terms)
        updater.clip(batch, terms, iteration)
        if updater.watch.is_due(iteration):
            self._exchange()
        updater.step(rate)
        return rate

    def _leave_out(self, batches: Sequence[Batch]) -> None:
        """Note the broken images of batches. Alone, raise DataError at once if they are too many."""
        for batch in batches:
            self.broken |= {key: e for key, e in batch.broken.items() if key not in self.left_out.errors}
        if self.process.world == 1:
            self.left_out.add(self.broken)
            self.left_out.require_few()

    def _exchange(self) -> None:
        """Agree with all processes on the request to stop, the end of the time and broken images.

        Raise TrainingError, in all of them, if a loss or gradient was not finite; see `FiniteWatch`.
        """
        bad = self.updater.watch.look()
        late = time.monotonic() >= self.stop_at
        values = [bad is not None, self.stop.number, late, bool(self.broken)]
        not_finite, self.asked, some_late, broken = highest(values, self.process, self.device)
        self.late = bool(some_late)
        if not_finite:
            self.folder.stop_not_finite(bad)
        if broken:
            self.left_out.add(of_all(self.broken, self.process), loud=self.process.is_first)
            self.broken = {}

    def _training_mode(self) -> None:
        training_mode(self.network, self.config)

    def _measure(self, done: int, log: RunLog | None) -> None:
        """Evaluate and save; then tell the user's function, which may raise to end the run."""
        report = self._evaluate(done, log)
        self._save()
        if report is not None and log is not None and self.report is not None:
            self.report(done, self.total, report)

    def _evaluate(self, done: int, log: RunLog | None) -> Report | None:
        """Measure on the validation split and keep the model if it is the best so far.

        A request to stop ends this early; it is then still due, and made when the run is resumed.
        """
        report, error = None, None
        assert self.val_set is not None
        measured = self._detect(self.val_set)
        if self.process.is_first and measured is not None:
            try:
                report = evaluate_detections(*measured, self.config.metric)
            except DataError as caught:
                error = caught
        left = self.process.is_first and report is None
        values = [error is not None, left, self.stop.number]
        failed, due, self.asked = highest(values, self.process, self.device)
        if failed:
            raise error or TrainingError("the evaluation failed in the first process; see its message")
        self.progress = self.progress._replace(due=bool(due))
        if report is None:
            return None
        better = not math.isnan(report.map) and (
            self.progress.best is None or report.map > self.progress.best
        )
        self.progress = self.progress._replace(waited=0 if better else self.progress.waited + 1)
        if better:
            self.progress = self.progress._replace(best=report.map)
            self.folder.save_best(self.network, self.updater.weights(), report, done)
        if log is not None:
            log.evaluation(done, json.loads(report.to_json()), better)
        return report

    def _detect(self, dataset: DataSet) -> tuple[DataSet, list[Detections]] | None:
        """See `detect_readable`."""
        config, process = self.config, self.process
        with saved_weights(self.network, self.updater.average, process):
            tiles = self.tiles.tiles or "none"
            detector = Detector(self.network, self.train_set.classes, tiles=tiles)
            loading = config.batch_size, config.workers
            found = detect_readable(detector, dataset, self.val_left_out, self.stop, *loading, process)
        self._training_mode()
        return found

    def _save(self) -> None:
        if self.process.is_first:
            self.folder.save_state(self.updater, self.progress, self.content, self.left_out)
        wait_for_all(self.process)
        if self.process.is_first:
            self.folder.draw()

    def _save_before_error(self) -> None:
        """Save the state of the last update, unless it is bad, without waiting for other processes."""
        if self.process.is_first and self.updater.watch.look() is None:
            self.folder.save_state(self.updater, self.progress, self.content, self.left_out)
            self.folder.draw()
            print(f"saved at update {self.progress.iteration}, to go on with --resume", file=sys.stderr)

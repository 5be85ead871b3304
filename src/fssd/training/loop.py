"""The training loop: data, network, loss, update, and what is kept of it.

torchrun --nproc-per-node 2 -m fssd train ...    runs it in two processes
"""

from __future__ import annotations

import contextlib
import json
import math
import os
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

import torch
import yaml
from torch import Tensor
from torch.nn.parallel import DistributedDataParallel

from fssd.atomic import atomic_write, make_folder
from fssd.config import TrainConfig, resolve, to_values
from fssd.data.geometry import Warp
from fssd.data.loader import Batch, BatchPositions, Views, training_batches
from fssd.data.sample import DataSet
from fssd.data.source import open_data, print_left_out, require_usable
from fssd.errors import ConfigError, TrainingError
from fssd.evaluation.evaluate import Report, check_measurable, evaluate_detections
from fssd.heads.multibox.loss import Losses, Target, multibox_loss
from fssd.inference.detector import Detector, pick_device
from fssd.model.network import channels_last
from fssd.training.distributed import Place, any_process, process_group, wait_for_all
from fssd.training.drawings import draw_batches, draw_progress
from fssd.training.ema import Average
from fssd.training.freeze import freeze_stages, training_mode
from fssd.training.log import Means, RunLog
from fssd.training.optim import learning_rate, make_optimizer, set_lr
from fssd.training.start import check_batch, fresh_network, start_weights
from fssd.training.state import (
    STATE_FILE,
    Progress,
    check_same_data,
    check_same_settings,
    load_state,
    read_state,
    save_state,
)
from fssd.weights.checkpoint import describe, save_model, write_tensors

_ALL_THREADS = torch.get_num_threads()  # before any run set its own
CONFIG_FILE = "config.yaml"
BEST_FILE = "best.safetensors"
FINAL_FILE = "final.safetensors"


class Result(NamedTuple):
    """What a call of `train` leaves.

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
    config = resolve(config)
    assert config.data is not None and config.out is not None
    torch.set_num_threads(config.threads or _ALL_THREADS)
    train_set = _open(config, config.train_split, None)
    val_set = _open(config, config.val_split, train_set.classes) if config.val_split else None
    if val_set is not None:
        check_measurable(val_set, train_set.classes, config.metric)
    device = pick_device(config.device)
    if config.amp == "fp16" and device.type == "cpu":
        raise ConfigError("amp fp16 needs a GPU; choose bf16, or off")
    with process_group(device.type == "cuda") as place:
        if device.type == "cuda" and place.world > 1:
            device = torch.device("cuda", place.local)
        run = _Run(config, train_set, val_set, device, place, backbone)
        run.begin(resume)
        return run.train(stop_at)


def _open(config: TrainConfig, split: str, classes: tuple[str, ...] | None) -> DataSet:
    assert config.data is not None
    dataset = open_data(config.data, split, classes)
    require_usable(dataset, config.bad_share)
    if os.environ.get("RANK", "0") == "0":
        print_left_out(dataset)
    return dataset


class _Run:
    """The moving parts of one training run."""

    def __init__(
        self,
        config: TrainConfig,
        train_set: DataSet,
        val_set: DataSet | None,
        device: torch.device,
        place: Place,
        backbone: torch.nn.Module | None,
    ) -> None:
        assert config.out is not None
        self.config = config
        self.out = config.out
        self.train_set, self.val_set = train_set, val_set
        self.device, self.place = device, place
        self.network = channels_last(fresh_network(config, len(train_set.classes), backbone).to(device))
        check_batch(config, self.network)
        freeze_stages(self.network, config.freeze)
        self.optimizer = make_optimizer(
            self.network,
            momentum=config.momentum,
            weight_decay=config.weight_decay,
            bias_lr=config.bias_lr,
            new_layers_lr=config.new_layers_lr,
            backbone_lr=config.backbone_lr,
        )
        self.average = Average(self.network, config.ema) if config.ema else None
        self.scaler = torch.amp.GradScaler(
            device.type, enabled=config.amp == "fp16" and device.type == "cuda"
        )
        self.progress = Progress(0, None)
        per_update = config.batch_size * config.accumulate * place.world
        self.images_per_update = per_update
        self.updates_per_epoch = len(train_set) / per_update
        if config.iterations is not None:
            self.total = config.iterations
        else:
            assert config.epochs is not None
            self.total = max(1, math.ceil(config.epochs * self.updates_per_epoch))
        self.eval_every = max(1, round(config.eval_every * self.updates_per_epoch))

    # ---- before the first iteration

    def begin(self, resume: bool) -> None:
        """Make or take up the run's folder."""
        state = self.out / STATE_FILE
        if resume and state.exists():
            tensors, document = read_state(state)
            # First of all: with other settings the tensors need not fit, and the setting is what to name.
            check_same_settings(document, to_values(self.config), self.place.world, state)
            check_same_data(document, self.train_set, state)
            self.progress = load_state(state, tensors, document, self.network, self.optimizer, self.average)
            if document["scaler"]:
                self.scaler.load_state_dict(document["scaler"])
        elif state.exists() or ((self.out / CONFIG_FILE).exists() and not resume):
            raise ConfigError(f"{self.out}: already holds a run; go on with --resume or choose another --out")
        elif (self.out / BEST_FILE).exists() or (self.out / FINAL_FILE).exists():
            raise ConfigError(
                f"{self.out}: holds a model but no {STATE_FILE} to go on from; choose another --out"
            )
        else:
            start_weights(self.network, self.train_set.classes, self.config)
            if self.average is not None:
                self.average.restore(self.network.state_dict(), 0)
        wait_for_all(self.place)  # a slower process must not find the folder that the first one makes
        if self.place.is_first:
            make_folder(self.out)
            for leftover in self.out.glob(".tmp-*"):
                leftover.unlink()  # of a process that was killed while it wrote
            atomic_write(self.out / CONFIG_FILE, yaml.safe_dump(to_values(self.config), sort_keys=False))
        wait_for_all(self.place)

    # ---- the loop

    def train(self, stop_at: float = math.inf) -> Result:
        """stop_at: of the monotonic clock, seconds."""
        start = self.progress.iteration
        log = RunLog(self.out, start, self.total, self.images_per_update) if self.place.is_first else None
        try:
            self._loop(start, stop_at, log)
        finally:
            if log is not None:
                log.close()
        best = self.out / BEST_FILE
        if self.progress.iteration < self.total:
            return Result(self.out, best if best.exists() else None, self.progress.best, finished=False)
        final = self.out / FINAL_FILE
        if self.place.is_first:
            save_model(final, self._weights(), self.network, self.train_set.classes, self._facts(None))
        return Result(self.out, best if best.exists() else final, self.progress.best, finished=True)

    def _loop(self, start: int, stop_at: float, log: RunLog | None) -> None:
        config = self.config
        batches = self._batches(start)
        model = self._parallel()
        sums = Means()
        self._training_mode()
        for iteration in range(start, self.total):
            rate = learning_rate(
                iteration,
                base=config.lr or 0.0,
                total=self.total,
                schedule=config.schedule or "constant",
                steps=config.steps,
                warmup=min(config.warmup or 0, self.total // 5),
            )
            set_lr(self.optimizer, rate)
            for part in range(config.accumulate):
                batch = next(batches)
                last = part == config.accumulate - 1
                losses = self._backward(model, batch, iteration, synchronise=last)
                sums.add(losses)
            if not self._update():
                self._stop_not_finite("gradient", True, batch, losses, iteration)
            done = iteration + 1
            if log is not None and (done % config.log_every == 0 or done == self.total):
                log.step(done, {**sums.take(), "lr": rate, "epoch": round(done / self.updates_per_epoch, 3)})
            evaluated = self._maybe_evaluate(done, log)
            self.progress = self.progress._replace(iteration=done)
            stops = stop_at < math.inf and any_process(time.monotonic() >= stop_at, self.place, self.device)
            if evaluated or stops or done % config.save_every == 0 or done == self.total:
                self._save()
            if stops:
                return

    def _training_mode(self) -> None:
        training_mode(self.network, self.config.freeze, self.config.freeze_norm)

    def _batches(self, start: int) -> Iterator[Batch]:
        config = self.config
        views = Views(
            self.train_set,
            Warp((self.network.image_size, self.network.image_size)),
            config.seed,
            config.augment,
            config.difficult,
            config.jpeg,
            config.crowds,
        )
        if self.place.is_first:
            draw_batches(self.out, views)
        positions = BatchPositions(
            start * config.accumulate,
            self.total * config.accumulate,
            config.batch_size,
            self.place.rank,
            self.place.world,
        )
        return training_batches(views, positions, config.workers, pin=self.device.type == "cuda")

    def _parallel(self) -> torch.nn.Module:
        if self.place.world == 1:
            return self.network
        ids = [self.device.index] if self.device.type == "cuda" else None
        # Statistics stay per process, as in Caffe; the first process's are the ones saved.
        parallel: torch.nn.Module = DistributedDataParallel(
            self.network,
            device_ids=ids,
            broadcast_buffers=False,
            # Layers behind the last map that is fused get no gradient, for which every process would wait.
            find_unused_parameters=self.network.spec.own_backbone or "sources" in self.network.spec.options,
        )
        return parallel

    def _backward(self, model: torch.nn.Module, batch: Batch, iteration: int, synchronise: bool) -> Losses:
        config = self.config
        images = batch.images.to(self.device, non_blocking=True).float()
        images = images.contiguous(memory_format=torch.channels_last)
        targets = [Target(t.boxes.to(self.device), t.labels.to(self.device)) for t in batch.targets]
        dtype = torch.float16 if config.amp == "fp16" else torch.bfloat16
        hold = (
            contextlib.nullcontext()
            if synchronise or not isinstance(model, DistributedDataParallel)
            else model.no_sync()
        )
        with hold:
            with torch.autocast(self.device.type, dtype, enabled=config.amp != "off"):
                raw = model(images)
            losses = multibox_loss(raw, self.network.priors, targets)
            bad = not bool(torch.isfinite(losses.total))
            if any_process(bad, self.place, self.device):
                self._stop_not_finite("loss", bad, batch, losses, iteration)
            self.scaler.scale(losses.total / config.accumulate).backward()  # type: ignore[no-untyped-call]
        return losses

    def _update(self) -> bool:
        """Take the step; False, and no step, if the gradient is not finite."""
        self.scaler.unscale_(self.optimizer)
        norm = torch.nn.utils.clip_grad_norm_(self.network.parameters(), self.config.clip_norm or math.inf)
        # Under fp16 overflow is expected: the scaler skips that step and lowers its scale.
        if not self.scaler.is_enabled() and not bool(torch.isfinite(norm)):
            return False
        self.scaler.step(self.optimizer)
        self.scaler.update()
        self.optimizer.zero_grad(set_to_none=True)
        if self.average is not None:
            self.average.update(self.network)
        return True

    def _stop_not_finite(self, what: str, here: bool, batch: Batch, losses: Losses, iteration: int) -> None:
        """Dump the batch and name its images; a process whose own batch was good only says so."""
        if not here:
            raise TrainingError(f"the {what} of another process is not finite at iteration {iteration}")
        dump = self.out / f"nonfinite-{self.place.rank}.safetensors"
        tensors = {"images": batch.images}
        for number, target in enumerate(batch.targets):
            tensors |= {f"boxes/{number}": target.boxes, f"labels/{number}": target.labels}
        write_tensors(
            dump, tensors, {"format": 1, "kind": "batch", "names": batch.names, "iteration": iteration}
        )
        raise TrainingError(
            f"the {what} is not finite at iteration {iteration} (localisation {losses.localisation.item()},"
            f" confidence {losses.confidence.item()}, {int(losses.positives)} positives);"
            f" the batch is in {dump}, its images are {', '.join(batch.names)};"
            " check them with `fssd check` or lower --lr"
        )

    # ---- evaluation and files

    def _maybe_evaluate(self, done: int, log: RunLog | None) -> bool:
        if self.val_set is None or (done % self.eval_every and done != self.total):
            return False
        if self.place.is_first:
            report = self._evaluate(self.val_set)
            better = not math.isnan(report.map) and (
                self.progress.best is None or report.map > self.progress.best
            )
            if better:
                self.progress = self.progress._replace(best=report.map)
                facts = self._facts(report) | {"iteration": done}
                path = self.out / BEST_FILE
                save_model(path, self._weights(), self.network, self.train_set.classes, facts)
            if log is not None:
                log.evaluation(done, json.loads(report.to_json()), better)
        wait_for_all(self.place)
        return True

    def _evaluate(self, dataset: DataSet) -> Report:
        config = self.config
        with self.average.shown_by(self.network) if self.average is not None else contextlib.nullcontext():
            detector = Detector(self.network, self.train_set.classes)
            found = list(detector.evaluate_on(dataset, batch_size=config.batch_size, workers=config.workers))
        self._training_mode()
        return evaluate_detections(dataset, found, config.metric)

    def _weights(self) -> dict[str, Tensor]:
        return self.average.tensors if self.average is not None else self.network.state_dict()

    def _facts(self, report: Report | None) -> dict[str, Any]:
        facts: dict[str, Any] = {"config": to_values(self.config), "iteration": self.total}
        if report is not None:
            facts["metrics"] = json.loads(report.to_json())
        return facts

    def _save(self) -> None:
        if self.place.is_first:
            document = describe(self.network, self.train_set.classes) | {
                "config": to_values(self.config),
                "world": self.place.world,
                "images": len(self.train_set),
            }
            save_state(
                self.out / STATE_FILE,
                self.network,
                self.optimizer,
                self.average,
                self.scaler.state_dict(),
                self.progress,
                document,
            )
            draw_progress(self.out)
        wait_for_all(self.place)

"""The files of a run's folder, which the first process writes."""

from __future__ import annotations

import json
from typing import Any, NamedTuple

import yaml
from torch import Tensor

from fssd.atomic import atomic_write, make_folder
from fssd.config import CONFIG_FILE, to_values
from fssd.errors import ConfigError, TrainingError
from fssd.evaluation.evaluate import Report
from fssd.model.network import Network
from fssd.training.distributed import Process
from fssd.training.drawings import draw_progress
from fssd.training.finite import Watched
from fssd.training.splits import TrainingSplits
from fssd.training.state import (
    STATE_FILE,
    Progress,
    check_same_data,
    check_same_settings,
    read_state,
    save_state,
)
from fssd.training.step import Updater
from fssd.weights.checkpoint import describe, save_model, write_tensors

BEST_FILE = "best.safetensors"
FINAL_FILE = "final.safetensors"


class Saved(NamedTuple):
    """A saved state to resume from, as read from its file."""

    tensors: dict[str, Tensor]
    document: dict[str, Any]


class RunFolder:
    """The folder `out` of a complete configuration."""

    def __init__(self, splits: TrainingSplits, process: Process) -> None:
        assert splits.config.out is not None
        self.path = splits.config.out
        self.config, self.train_set, self.process = splits.config, splits.train, process
        self.division = splits.division
        self.state, self.best, self.final = (self.path / name for name in (STATE_FILE, BEST_FILE, FINAL_FILE))

    def saved(self, resume: bool) -> Saved | None:
        """The state to resume from; None for a new run. Raises ConfigError if the folder is taken."""
        if resume and self.state.exists():
            tensors, document = read_state(self.state)
            # Checked first: with other settings the tensors may not fit, and the error must name the setting.
            check_same_settings(document, to_values(self.config), self.process.world, self.state)
            check_same_data(document, self.train_set, self.state)
            return Saved(tensors, document)
        if self.state.exists() or ((self.path / CONFIG_FILE).exists() and not resume):
            raise ConfigError(
                f"{self.path}: already holds a run; go on with --resume or choose another --out"
            )
        if self.best.exists() or self.final.exists():
            raise ConfigError(
                f"{self.path}: holds a model but no {STATE_FILE} to go on from; choose another --out"
            )
        return None

    def make(self) -> None:
        """Make the folder and note the settings in it. For the first process."""
        make_folder(self.path)
        for leftover in self.path.glob(".tmp-*"):
            leftover.unlink()  # of a process that was killed while it wrote
        if self.division is not None:
            self.division.save(self.path)
        atomic_write(self.path / CONFIG_FILE, yaml.safe_dump(to_values(self.config), sort_keys=False))

    def save_best(self, network: Network, weights: dict[str, Tensor], report: Report, done: int) -> None:
        """The model after `done` updates, the best so far."""
        facts = {**self._facts(), "metrics": json.loads(report.to_json()), "iteration": done}
        save_model(self.best, weights, network, self.train_set.classes, facts)

    def save_final(self, network: Network, weights: dict[str, Tensor], total: int) -> None:
        """The model after the last update."""
        facts = {**self._facts(), "iteration": total}
        save_model(self.final, weights, network, self.train_set.classes, facts)

    def save_state(self, updater: Updater, progress: Progress) -> None:
        """Everything that the next update depends on, and the plots of the log."""
        document = {
            **describe(updater.network, self.train_set.classes),
            **self._facts(),
            "world": self.process.world,
            "images": len(self.train_set),
        }
        save_state(
            self.state,
            updater.network,
            updater.optimizer,
            updater.average,
            updater.scaler.state_dict(),
            progress,
            document,
        )
        draw_progress(self.path)

    def stop_not_finite(self, bad: Watched | None) -> None:
        """Raise TrainingError, after writing the batch if it is one of this process."""
        if bad is None:
            raise TrainingError("a loss or gradient of another process is not finite; see its message")
        dump = self.path / f"nonfinite-{self.process.rank}.safetensors"
        tensors = {"images": bad.batch.images}
        tensors |= {f"targets/{key}": value for key, value in bad.batch.targets.items()}
        document = {"format": 1, "kind": "batch", "names": bad.batch.names, "iteration": bad.iteration}
        write_tensors(dump, tensors, document)
        terms = ", ".join(f"{name} {float(value.detach()):g}" for name, value in bad.terms.items())
        raise TrainingError(
            f"the {bad.what} is not finite at iteration {bad.iteration} ({terms}); the batch is in {dump},"
            f" its images are {', '.join(bad.batch.names)}; check them with `fssd check` or lower --lr"
        )

    def _facts(self) -> dict[str, Any]:
        return {"config": to_values(self.config)}

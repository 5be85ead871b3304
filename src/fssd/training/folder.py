"""The files of a run's folder, which the first process writes."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any, NamedTuple

import yaml
from torch import Tensor

from fssd.atomic import atomic_write, make_folder, remove_leftovers, require_writable_folder
from fssd.config.run_files import BEST_FILE, CONFIG_FILE, FINAL_FILE, STATE_FILE
from fssd.config.train_config import to_values
from fssd.errors import ConfigError, TrainingError
from fssd.evaluation.evaluate import Report
from fssd.model.network import Network
from fssd.training.data_facts import count_trained, data_facts
from fssd.training.distributed import Process
from fssd.training.drawings import draw_progress
from fssd.training.finite import Watched
from fssd.training.left_out import LeftOut
from fssd.training.same_data import Content
from fssd.training.splits import TrainingSplits
from fssd.training.state import (
    Progress,
    check_same_classes,
    check_same_settings,
    read_state,
    save_state,
)
from fssd.training.step import Updater
from fssd.weights.checkpoint import describe, save_model, write_tensors
from fssd.weights.model_card import CARD_FILE, card_address, write_card


class Saved(NamedTuple):
    """A saved state to resume from, as read from its file."""

    tensors: dict[str, Tensor]
    document: dict[str, Any]


def check_folder(path: Path, resume: bool) -> None:
    """Raise ConfigError if the folder holds a run that is not resumed, or cannot be written to."""
    state = (path / STATE_FILE).exists()
    if not resume and (state or (path / CONFIG_FILE).exists()):
        raise ConfigError(f"{path}: already holds a run; go on with --resume or choose another --out")
    if not state and ((path / BEST_FILE).exists() or (path / FINAL_FILE).exists()):
        raise ConfigError(f"{path}: holds a model but no {STATE_FILE} to go on from; choose another --out")
    require_writable_folder(path)


def read_saved(out: Path) -> Saved | None:
    """The state in the folder of a run; None where there is none. Raises CheckpointError."""
    state = out / STATE_FILE
    return Saved(*read_state(state)) if state.exists() else None


class RunFolder:
    """The folder `out` of a complete configuration."""

    def __init__(self, splits: TrainingSplits, process: Process) -> None:
        assert splits.config.out is not None
        self.path = splits.config.out
        self.config, self.classes, self.process = splits.config, splits.train.classes, process
        self.division = splits.division
        self.trained = count_trained(splits.config, splits.train)
        self.data = data_facts(splits, self.trained)
        self.tiles: dict[str, Any] = {}  # see `RunTiles.facts`
        self.parameters = 0  # of the network, frozen ones too
        self.state, self.best, self.final = (self.path / name for name in (STATE_FILE, BEST_FILE, FINAL_FILE))

    def check(self, saved: Saved) -> None:
        """Whether a state of this folder is one of this run. Raises ConfigError."""
        # Checked first: with other settings the tensors may not fit, and the error must name the setting.
        check_same_settings(saved.document, to_values(self.config), self.process.world, self.state)
        check_same_classes(saved.document, self.classes, self.state)
        self.data = saved.document.get("data", self.data)  # images may be missing now

    def make(self) -> None:
        """Make the folder and note the settings in it. For the first process."""
        make_folder(self.path)
        remove_leftovers(self.path)
        if self.division is not None:
            self.division.save(self.path)
        atomic_write(self.path / CONFIG_FILE, yaml.safe_dump(to_values(self.config), sort_keys=False))

    def save_best(self, network: Network, weights: dict[str, Tensor], report: Report, done: int) -> None:
        """The model after `done` updates, the best so far."""
        facts = {**self._facts(), "metrics": json.loads(report.to_json()), "iteration": done}
        save_model(self.best, weights, network, self.classes, facts)
        self._write_card(network, facts)

    def save_final(self, network: Network, weights: dict[str, Tensor], total: int) -> None:
        """The model after the last update."""
        facts = {**self._facts(), "iteration": total}
        save_model(self.final, weights, network, self.classes, facts)
        if not self.best.exists():
            self._write_card(network, facts)

    def save_state(self, updater: Updater, progress: Progress, content: Content, left_out: LeftOut) -> None:
        """Everything that the next update depends on."""
        document = {
            **describe(updater.network, self.classes),
            **self._facts(),
            "world": self.process.world,
            "images": len(content.ids),
            "unusable": left_out.unusable,
            **({"left_out": sorted(left_out.ids)} if left_out.ids else {}),
        }
        save_state(
            self.state,
            updater.network,
            updater.optimizer,
            updater.average,
            updater.scaler.state_dict(),
            progress,
            content,
            document,
        )

    def draw(self) -> None:
        """The plots of the log."""
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

    def _write_card(self, network: Network, facts: dict[str, Any]) -> None:
        card, own = self.path / CARD_FILE, {**describe(network, self.classes), **facts}
        address, thresholds = card_address(self.path), vars(network.heads.thresholds)
        size, weights = network.image_size, self.parameters
        write_card(card, own, size, weights, address, thresholds=thresholds, before=card)

    def _facts(self) -> dict[str, Any]:
        return {"config": to_values(self.config), "data": self.data, **self.tiles}

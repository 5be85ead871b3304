"""Experiment trackers beside the run's own log: Weights & Biases and MLflow.

Their own variables say where they write: WANDB_PROJECT, WANDB_MODE=offline, MLFLOW_TRACKING_URI,
MLFLOW_EXPERIMENT_NAME and so on; the project, or experiment, is "fssd" by default. A resumed run goes on in
the same tracked run, whose id lies in its folder.
"""

from __future__ import annotations

import json
import os
import re
import sys
import time
from collections.abc import Callable, Collection, Mapping
from importlib import import_module
from pathlib import Path
from typing import Any, Literal, Protocol

from fssd.atomic import atomic_write
from fssd.config.train_config import TrainConfig, to_values
from fssd.errors import ConfigError, lacking, nearest

IDS_FILE = "trackers.json"
PROJECT = "fssd"
Ending = Literal["finished", "stopped", "failed"]
WANDB_CODES: dict[Ending, int] = {"finished": 0, "stopped": 255, "failed": 1}  # 255: "killed", as on Ctrl-C
MLFLOW_STATES: dict[Ending, str] = {"finished": "FINISHED", "stopped": "KILLED", "failed": "FAILED"}
MOST_PARAMS, MOST_METRICS = 100, 1000  # of a request of MLflow


class Tracker(Protocol):
    """What a run tells a tracker. id: by which a resumed run finds it again."""

    id: str

    def log(self, iteration: int, values: Mapping[str, float]) -> None:
        """Note numbers after so many updates."""

    def close(self, end: Ending) -> None:
        """End the tracked run."""


class WandbRun:
    """A run of Weights & Biases. id: of the run that is resumed, None for a new one."""

    def __init__(self, folder: Path, settings: Mapping[str, Any], id: str | None) -> None:
        wandb = import_module("wandb")
        self.run = wandb.init(
            project=os.environ.get("WANDB_PROJECT", PROJECT),
            name=os.environ.get("WANDB_NAME", folder.name),
            dir=os.environ.get("WANDB_DIR", str(folder)),
            id=id,
            resume="allow",
            reinit="create_new",  # beside a run that the caller may have
            config=dict(settings),
            settings=wandb.Settings(console="off"),
        )
        self.id = str(self.run.id)

    def log(self, iteration: int, values: Mapping[str, float]) -> None:
        self.run.log(dict(values), step=iteration)

    def close(self, end: Ending) -> None:
        self.run.finish(exit_code=WANDB_CODES[end])


class MlflowRun:
    """A run of MLflow. It is never the active run, so that it lies beside one that the caller may have."""

    def __init__(self, folder: Path, settings: Mapping[str, Any], id: str | None) -> None:
        mlflow = import_module("mlflow")
        self.client, self.entities = mlflow.MlflowClient(), mlflow.entities
        if id is None:
            name = os.environ.get("MLFLOW_EXPERIMENT_NAME", PROJECT)
            found = self.client.get_experiment_by_name(name)
            experiment = self.client.create_experiment(name) if found is None else found.experiment_id
            run_name = os.environ.get("MLFLOW_RUN_NAME", folder.name)
            id = str(self.client.create_run(experiment, run_name=run_name).info.run_id)
            own = list(settings.items())
            for start in range(0, len(own), MOST_PARAMS):
                params = [self.entities.Param(key, str(v)) for key, v in own[start : start + MOST_PARAMS]]
                self.client.log_batch(id, params=params)
        else:
            self.client.update_run(id, status="RUNNING")
        self.id = id

    def log(self, iteration: int, values: Mapping[str, float]) -> None:
        now = int(1000 * time.time())
        # MLflow takes no other characters in names.
        names = {key: re.sub(r"[^\w\-. /]", "_", key) for key in values}
        rows = [self.entities.Metric(names[key], value, now, iteration) for key, value in values.items()]
        for start in range(0, len(rows), MOST_METRICS):
            self.client.log_batch(self.id, metrics=rows[start : start + MOST_METRICS])

    def close(self, end: Ending) -> None:
        self.client.set_terminated(self.id, MLFLOW_STATES[end])


TRACKERS: dict[str, Callable[[Path, Mapping[str, Any], str | None], Tracker]] = {
    "wandb": WandbRun,
    "mlflow": MlflowRun,
}
EXTRAS = {"wandb": "wandb", "mlflow": "mlflow"}
ADVICE = {
    "wandb": "log in with `wandb login`, or set WANDB_MODE=offline",
    "mlflow": "check MLFLOW_TRACKING_URI",
}


def check_trackers(names: Collection[str]) -> None:
    """Raise ConfigError for a name that is no tracker's, or that is there twice."""
    for name in names:
        if name not in TRACKERS:
            raise ConfigError(f"there is no log_to {name!r}{nearest(name, TRACKERS)}")
    if len(set(names)) < len(names):
        raise ConfigError("log_to names a tracker twice; name it once")


def require_trackers(names: Collection[str]) -> None:
    """Raise ConfigError if the package of a tracker is missing."""
    for name in names:
        try:
            import_module(name)
        except ImportError as error:
            extra = f'pip install "fssd[{EXTRAS[name]}]"'
            raise ConfigError(
                f"log_to {name} needs the package {name}{lacking(name, error)}; {extra}"
            ) from error


class Trackers:
    """All trackers of a run. One that fails while it runs is reported and left out: training goes on."""

    def __init__(self, config: TrainConfig) -> None:
        """Start them, or go on in those that the folder names. Raises ConfigError if one cannot start."""
        assert config.out is not None
        self._open: dict[str, Tracker] = {}
        file = config.out / IDS_FILE
        ids = _read_ids(file)
        try:
            for name in config.log_to:
                self._open[name] = TRACKERS[name](config.out, to_values(config), ids.get(name))
        except Exception as error:
            self.close("failed")
            what = next(iter(str(error).splitlines()), "") or type(error).__name__
            raise ConfigError(f"log_to {name}: cannot start ({what}); {ADVICE[name]}") from error
        ids |= {name: tracker.id for name, tracker in self._open.items()}
        if ids:
            atomic_write(file, json.dumps(ids))

    def log(self, line: Mapping[str, Any]) -> None:
        """A line of the run's log; of an evaluation mAP, AP by size and AP of each class."""
        values = {key: float(value) for key, value in _numbers(line).items()}
        for name in list(self._open):
            self._try(name, lambda one: one.log(int(line["iteration"]), values))

    def close(self, end: Ending = "finished") -> None:
        """end: "stopped" is a run that can be resumed."""
        for name in list(self._open):
            self._try(name, lambda one: one.close(end))
        self._open.clear()

    def _try(self, name: str, call: Callable[[Tracker], None]) -> None:
        try:
            call(self._open[name])
        except Exception as error:
            del self._open[name]
            print(f"note: {name} gets nothing more, training goes on: {error}", file=sys.stderr)


def _read_ids(file: Path) -> dict[str, str]:
    """The id of the run in each tracker; {} before the first one. Raises ConfigError."""
    try:
        return {str(name): str(id) for name, id in json.loads(file.read_bytes()).items()}
    except FileNotFoundError:
        return {}
    except (OSError, ValueError, AttributeError) as error:
        raise ConfigError(f"{file}: is damaged ({error}); remove it, and --log-to begins new runs") from error


def _numbers(line: Mapping[str, Any]) -> dict[str, float]:
    plain = {key: value for key, value in line.items() if key not in ("iteration", "evaluation")}
    if "evaluation" in line:
        report = line["evaluation"]
        plain["mAP"] = report.get("map")
        plain |= {f"AP of {size} objects": ap for size, ap in report.get("sizes", {}).items()}
        plain |= {f"AP/{name}": ap for name, ap in report.get("classes", {}).items()}
    return {key: value for key, value in plain.items() if isinstance(value, (int, float))}

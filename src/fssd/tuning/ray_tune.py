"""A search on Ray Tune: random trials, of which the worse are stopped early (ASHA, Li et al. 2020)."""

from __future__ import annotations

import math
import os
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

from fssd.ablation.run import OWN_FAULTS
from fssd.atomic import atomic_write
from fssd.config.run_files import FINAL_FILE
from fssd.config.train_config import TrainConfig
from fssd.engines.ray_session import connect, own_signals
from fssd.errors import ConfigError
from fssd.evaluation.evaluate import Report
from fssd.training.log import last_evaluation
from fssd.tuning.trials import FAILED_FILE

RETRIES = 5  # of a trial whose process or machine is lost, or whose data cannot be read now
STATE = "ray"  # folder of Ray Tune's own state
# Ray Tune reads these where it runs: no second set of logs, and no table of its own.
_SETTINGS = {
    "TUNE_DISABLE_AUTO_CALLBACK_LOGGERS": "1",
    "RAY_AIR_NEW_OUTPUT": "0",
    "TUNE_WARN_INSUFFICENT_RESOURCE_THRESHOLD_S": "0",
}


def run_trial(parameters: Mapping[str, Any]) -> None:
    """One trial, in a process of Ray's.

    parameters: "number", "configs" of all trials, and "folder", which paths are relative to.

    Settings that do not work, or a loss that is not finite, fail this trial and not the search. Any other
    error may be one that passes, and is raised: Tune tries the trial again, as does the next command.
    """
    from ray import tune

    from fssd.training.loop import train

    config: TrainConfig = parameters["configs"][parameters["number"]]
    os.chdir(parameters["folder"])
    assert config.out is not None

    (config.out / FAILED_FILE).unlink(missing_ok=True)  # of an earlier attempt
    reported = False

    def report(done: int, total: int, result: Report) -> None:
        nonlocal reported
        tune.report({"map": _number(result.map), "percent": math.floor(100 * done / total)})
        reported = True

    try:
        train(config, resume=True, report=report)
    except OWN_FAULTS as error:
        config.out.mkdir(parents=True, exist_ok=True)
        atomic_write(config.out / FAILED_FILE, f"{error}\n")
    if not reported:  # Tune needs a result: it failed at once, or had ended before its machine was lost
        last = last_evaluation(config.out)
        ended = (config.out / FINAL_FILE).exists()
        tune.report({"map": _number(last and last.report["map"]), "percent": 100 if ended else 0})


def _number(value: float | None) -> float:
    """A mAP that can be compared: 0 for one that cannot be measured."""
    return 0.0 if value is None or math.isnan(value) else value


def search_on_ray(
    configs: list[TrainConfig],
    out: Path,
    *,
    cpus: int | None,
    first: int,
    factor: int,
    say: Callable[[str], None],
) -> bool:
    """Train the trials, or go on with them; whether all have ended.

    configs: of each trial, with its folder in `out`, which all machines share. cpus: of a trial, 1 if None;
    it gets a GPU if there is one. first: percent of a trial after which the first are stopped. factor: of
    so many trials one goes on to the next stage, which is as many times longer. Raises ConfigError.
    """
    os.environ.update(_SETTINGS)
    with connect() as ray:
        from ray import tune

        wants = cpus or 1
        if all(node["Resources"].get("CPU", 0) < wants for node in ray.nodes() if node["Alive"]):
            raise ConfigError(f"no machine of the cluster has {wants} CPUs for a trial; give a lower --cpus")
        gpus = int(configs[0].device != "cpu" and ray.cluster_resources().get("GPU", 0) >= 1)
        trainable = tune.with_resources(run_trial, {"cpu": wants, "gpu": gpus})
        numbers = tune.grid_search(list(range(len(configs))))
        space = {"number": numbers, "configs": configs, "folder": str(Path.cwd())}
        state = str((out / STATE).resolve())
        if tune.Tuner.can_restore(state):
            say("going on with the trials of this folder")
            tuner = tune.Tuner.restore(state, trainable, param_space=space, resume_errored=True)
        else:
            tuner = _new_tuner(trainable, space, out, first, factor)
        with own_signals():
            results = tuner.fit()
        return have_ended(configs, [results[index] for index in range(len(results))], say)


def _new_tuner(trainable: Any, space: dict[str, Any], out: Path, first: int, factor: int) -> Any:
    from ray import tune

    return tune.Tuner(
        trainable,
        param_space=space,
        tune_config=tune.TuneConfig(
            trial_dirname_creator=_folder_name,
            scheduler=tune.schedulers.ASHAScheduler(
                time_attr="percent",
                metric="map",
                mode="max",
                max_t=101,  # a trial ends by itself at 100
                grace_period=first,
                reduction_factor=factor,
            ),
        ),
        run_config=tune.RunConfig(
            name=STATE,
            storage_path=str(out.resolve()),
            failure_config=tune.FailureConfig(max_failures=RETRIES),
            verbose=0,
        ),
    )


def _folder_name(trial: Any) -> str:
    """Of a trial's folder in Ray's state: its number, as Ray lists trials in another order once restored."""
    return f"{trial.config['number']:04}"


def have_ended(configs: Sequence[TrainConfig], results: Sequence[Any], say: Callable[[str], None]) -> bool:
    """Whether all trials have; says what ended those with an error. results: in any order."""
    found = {int(Path(result.path).name): result for result in results}
    for number, result in sorted(found.items()):
        if result.error is not None:
            say(f"trial {number:04}: {_reason(result.error)}")
    return all(number in found and _has_ended(config, found[number]) for number, config in enumerate(configs))


def _has_ended(config: TrainConfig, result: Any) -> bool:
    assert config.out is not None
    if (config.out / FAILED_FILE).exists() or (config.out / FINAL_FILE).exists():
        return True
    return result.error is None and bool((result.metrics or {}).get("done"))


def _reason(error: Exception) -> str:
    """Why a trial has ended for now, in a line. Ray wraps an error of a process in one with its traceback."""
    said = str(getattr(error, "cause", None) or error).strip().splitlines()
    return said[-1] if said else type(error).__name__

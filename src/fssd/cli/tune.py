"""fssd tune FILE --data DATA --out DIR [--trials N]: search for training settings on Ray Tune."""

from dataclasses import dataclass, replace
from pathlib import Path
from typing import Annotated

import tyro

from fssd.atomic import atomic_write
from fssd.cli.options import parse
from fssd.cli.result import add_result
from fssd.config.bounds import Bound, Count, Seed
from fssd.config.train_config import TrainConfig
from fssd.errors import ConfigError

Percent = Annotated[int, Bound("1 to 100", lambda value: 1 <= value <= 100)]
Factor = Annotated[int, Bound("2 or more", lambda value: value >= 2)]
SEARCH_FILE = "search.yaml"  # in the folder, the file and flags that it was begun with


@dataclass(frozen=True)
class Tune:
    """Search for good training settings: many trials side by side, of which the worse are stopped early."""

    file: Annotated[Path, tyro.conf.Positional]
    """YAML file with the settings of every trial and what is searched for; see docs/scale.md."""
    out: Path
    """Folder for trials, table and best.yaml; the same command goes on with what is there."""
    data: Path | None = None
    """Data set, instead of the one that the file names."""
    trials: Count = 20
    """How many trials are drawn."""
    seed: Seed = 0
    """Seed of what is drawn; the seed of the trainings is a setting."""
    first: Percent = 10
    """Percent of a trial after which the first ones are compared and stopped; 100 stops none."""
    factor: Factor = 3
    """Of so many trials one goes on to the next stage, which is as many times longer."""
    cpus: Count | None = None
    """CPUs of each trial (1); its threads, unless a setting says otherwise."""


def run(arguments: list[str]) -> int:
    """Search, or go on; 0 if all trials have ended, 1 if the search was interrupted or every trial failed."""
    command = parse(Tune, arguments)
    from fssd.engines.ray_session import require_ray
    from fssd.training.distributed import this_process
    from fssd.tuning.ray_tune import search_on_ray
    from fssd.tuning.search import read_search
    from fssd.tuning.trials import failures, read_trials, trial_folder, write_results

    require_ray()
    if (world := this_process().world) > 1:
        raise ConfigError(f"fssd tune was started as {world} processes; start it once, without torchrun")
    search = read_search(command.file, command.data)
    configs = [
        replace(search.config(number, command.seed), out=trial_folder(command.out, number))
        for number in range(command.trials)
    ]
    _check(command, configs)
    _begin(command, configs)
    ended = search_on_ray(
        configs, command.out, cpus=command.cpus, first=command.first, factor=command.factor, say=print
    )
    trials = read_trials(command.out, search, command.trials, command.seed, ended)
    best = write_results(command.out, search, trials, command.seed)
    print((command.out / "table.md").read_text(encoding="utf-8"))
    add_result(out=command.out, best=best, table=command.out / "table.md", finished=ended)
    failed = failures(command.out, command.trials)
    for number, reason in failed.items():
        print(f"trial {number:04} failed: {reason}")
    if best is not None:
        print(f"the best settings: fssd train --config {best} --out ...")
    if not ended:
        print("the search was interrupted; the same command goes on")
    return 0 if ended and len(failed) < command.trials else 1


def _check(command: Tune, configs: list[TrainConfig]) -> None:
    """Raise the package's errors for what would fail, trial by trial, only in the processes of Ray."""
    from fssd.training.splits import open_splits
    from fssd.training.start import complete, fresh_network, require_objects, require_weights

    first = complete(configs[0])
    require_weights(first)
    splits = open_splits(first, quiet=True)
    require_objects(first, splits.train)
    if splits.val is None:
        raise ConfigError(f"{command.file}: a search needs a split to evaluate on; give it a val_split")
    reasons = []
    for config in configs:
        try:
            plain = replace(complete(config), priors=None, prior_coverage=None)  # fitting them takes a while
            fresh_network(plain, splits.train, None, quiet=True)
            return
        except ConfigError as error:
            reasons.append(error)
    raise reasons[0]  # none can be built


def _begin(command: Tune, configs: list[TrainConfig]) -> None:
    """Note in the folder what is searched. Raises ConfigError if it is of something else."""
    from fssd.tuning.trials import RESULTS, require_same_trials

    flags = {key: getattr(command, key) for key in ("data", "trials", "seed", "first", "factor")}
    text = f"# {', '.join(f'{key} {value}' for key, value in flags.items())}\n"
    text += command.file.read_text(encoding="utf-8")
    kept = command.out / SEARCH_FILE
    if kept.exists() and kept.read_text(encoding="utf-8") != text:
        raise ConfigError(
            f"{command.out}: was begun with another search, see {kept}; go on with that or choose a new --out"
        )
    for name in () if kept.exists() else RESULTS:
        if (command.out / name).exists():
            raise ConfigError(f"{command.out}: holds a {name}, but no search; give another folder as --out")
    require_same_trials(configs)
    command.out.mkdir(parents=True, exist_ok=True)
    atomic_write(kept, text)

"""fssd train --model fssd300-lite --data DATA --out DIR [--epochs N | --iterations N] [--resume]"""

import shlex
from argparse import ArgumentParser
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

import yaml

from fssd.cli.options import FLAT, Flag, parse
from fssd.cli.result import add_result, leave_result_out
from fssd.config.bounds import Count, Positive
from fssd.config.config_files import load_config
from fssd.config.run_files import CONFIG_FILE
from fssd.config.settings import with_values, without_replaced
from fssd.config.train_config import TrainConfig
from fssd.config.yaml_files import load_yaml
from fssd.errors import ConfigError

if TYPE_CHECKING:
    from fssd.training.loop import Result


@dataclass(frozen=True)
class Train:
    """Train a detector on your own images."""

    settings: Annotated[TrainConfig, FLAT]
    config: Path | None = None
    """YAML file of settings, or the name of a packaged one, such as photographs; flags override it."""
    set: tuple[str, ...] = ()
    """Model options as KEY=VALUE, for example: --set merge=sum loc_loss=giou; see docs/recipe.md."""
    resume: Flag = False
    """Resume the run in --out, or start it if it has not started."""
    minutes: Positive | None = None
    """Save and stop after this many minutes; --resume continues."""
    timeout: Positive | None = None
    """Minutes that one of several processes waits for another before it fails (10); see docs/scale.md."""
    engine: Literal["local", "ray"] = "local"
    """"local" trains in this process and those that torchrun or Slurm start beside it; "ray" in
    --processes of the Ray cluster at RAY_ADDRESS, or of this machine, which start again when one is lost."""
    processes: Count | None = None
    """Processes that train, with --engine ray."""


def run(arguments: list[str]) -> int:
    command = parse(Train, arguments, default=Train(settings=_defaults(arguments)))
    settings = without_replaced(command.settings, _given(arguments))
    settings = with_values(settings, {"options": parse_options(command.set)})
    from fssd.training.distributed import this_process

    if not (is_first := this_process().is_first):
        leave_result_out()
    limits: dict[str, Any] = {key: getattr(command, key) for key in ("resume", "minutes", "timeout")}
    result = _train(command, settings, limits)
    if result is None or not is_first:
        return 0
    add_result(**result._asdict(), metric=settings.metric)
    if result.best is not None:
        print(f"best mAP ({settings.metric}): {result.best:.4f}")
    if result.model is not None:
        print(f"model: {result.model}")
    if not result.finished:
        how = f"fssd train --out {shlex.quote(str(result.out))} --resume"
        print(f"stopped after {command.minutes:g} minutes; continue with: {how}")
    return 0


def _train(command: Train, settings: TrainConfig, limits: dict[str, Any]) -> "Result | None":
    """The result of the run; None of all folds, whose results are printed here."""
    if command.engine == "ray":
        if command.processes is None:
            raise ConfigError("--engine ray needs to know how many --processes train")
        from fssd.training.ray_train import train_on_ray

        return train_on_ray(settings, command.processes, **limits)
    if command.processes is not None:
        raise ConfigError("--processes is for --engine ray; with torchrun give --nproc-per-node")
    from fssd.training.loop import train

    if not settings.folds or settings.fold:
        return train(settings, **limits)
    _train_folds(settings, limits)
    return None


def _train_folds(settings: TrainConfig, limits: dict[str, Any]) -> None:
    from fssd.training.distributed import this_process
    from fssd.training.folds import fold_scores, train_folds

    done = list(train_folds(settings, **limits))
    if not this_process().is_first:
        return
    if done[-1].finished:
        scores = fold_scores(settings)
        add_result(metric=scores.metric, folds=scores.folds, mean=scores.mean, spread=scores.spread)
        each = ", ".join(f"{value:.4f}" for value in scores.folds)
        print(f"mAP ({scores.metric}) of each fold: {each}; mean {scores.mean:.4f} ± {scores.spread:.4f}")
    else:
        add_result(**done[-1]._asdict())
        print(f"stopped in {done[-1].out}; continue with the same command and --resume")


def parse_options(pairs: tuple[str, ...]) -> dict[str, Any]:
    """KEY=VALUE pairs, each value read as YAML. Raises ConfigError for a pair without =."""
    options = {}
    for pair in pairs:
        key, equals, value = pair.partition("=")
        if not equals or not key:
            raise ConfigError(f"--set takes KEY=VALUE, not {pair!r}; for example --set merge=sum")
        try:
            options[key] = load_yaml(value)
        except (yaml.YAMLError, ValueError) as error:  # ValueError: a date such as 2020-13-45
            raise ConfigError(f"--set {key}: {value!r} is not a YAML value") from error
    return options


def _given(arguments: list[str]) -> set[str]:
    flags = (argument.partition("=")[0] for argument in arguments if argument.startswith("--"))
    return {flag.removeprefix("--").replace("-", "_") for flag in flags}


def _defaults(arguments: list[str]) -> TrainConfig:
    """The settings of --config, or with --resume those that the run in --out was started with."""
    flags = ArgumentParser(add_help=False, allow_abbrev=False)
    flags.add_argument("--config", type=Path, nargs="?")
    flags.add_argument("--out", type=Path, nargs="?")
    flags.add_argument("--resume", action="store_true")
    given, _ = flags.parse_known_args(arguments)
    file: Path | None = given.config
    if file is None and given.resume and given.out is not None and (given.out / CONFIG_FILE).is_file():
        file = given.out / CONFIG_FILE
    return TrainConfig() if file is None else load_config(file)

"""What a search varies: a YAML file of ranges over settings, and the values of each trial."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, NamedTuple, get_args

import numpy as np

from fssd.config.config_files import find_config, load_config
from fssd.config.settings import with_values
from fssd.config.train_config import COMPARED, DIVIDED, KINDS, TrainConfig, to_values
from fssd.config.yaml_files import read_mapping
from fssd.errors import ConfigError, nearest
from fssd.training.start import complete

KEYS = ("base", "settings", "search")
RANGE_KEYS = ("from", "to", "log")
OPTION = "options."  # before the name of a model option
# What makes trials comparable; they may train on different splits if they are measured on the same.
FIXED = {*COMPARED, *DIVIDED, "out", "seed"} - {"train_split"}


class Range(NamedTuple):
    """Numbers from low to high, both included. log: their logarithm is spread evenly. whole: whole ones."""

    low: float
    high: float
    log: bool
    whole: bool

    def draw(self, rng: np.random.Generator) -> float | int:
        if self.log:
            value = math.exp(rng.uniform(math.log(self.low), math.log(self.high)))
        else:
            value = rng.uniform(self.low, self.high)
        # A number has few digits, as it stands in the table and in the YAML file.
        rounded = round(value) if self.whole else float(f"{value:.4g}")
        inside = min(max(rounded, self.low), self.high)
        return int(inside) if self.whole else inside


class Choice(NamedTuple):
    """Some values, all equally likely."""

    values: tuple[Any, ...]

    def draw(self, rng: np.random.Generator) -> Any:
        return self.values[int(rng.integers(len(self.values)))]


@dataclass(frozen=True)
class Search:
    """settings: of every trial. ranges: what differs, by the name of a setting or "options.NAME"."""

    settings: TrainConfig
    ranges: Mapping[str, Range | Choice]

    def values(self, number: int, seed: int) -> dict[str, Any]:
        """The drawn values of a trial; they depend on its number and the seed alone."""
        rng = np.random.default_rng((seed, number))
        return {name: one.draw(rng) for name, one in self.ranges.items()}

    def config(self, number: int, seed: int) -> TrainConfig:
        """The settings of a trial, as a file for `fssd train` would have them. Raises ConfigError."""
        drawn = self.values(number, seed)
        options = {key.removeprefix(OPTION): drawn[key] for key in drawn if key.startswith(OPTION)}
        plain = {key: value for key, value in drawn.items() if not key.startswith(OPTION)}
        return with_values(self.settings, {**plain, **({"options": options} if options else {})})


def read_search(file: Path, data: Path | None = None) -> Search:
    """The search in a file. data: instead of the file's data set. Raises ConfigError."""
    entry = read_mapping(file)
    for key in entry:
        if key not in KEYS:
            raise ConfigError(f"{file}: there is no key {key!r}{nearest(str(key), KEYS)}")
    named = entry.get("base")
    base = TrainConfig() if named is None else load_config(_base_file(Path(str(named)), file.parent))
    given = _mapping(entry, "settings", file)
    if "out" in given:
        raise ConfigError(f"{file}: settings: trials lie in the folder that --out names; leave out: away")
    settings = with_values(base, given, where=f"{file}: ")
    settings = replace(settings, data=data or settings.data)
    ranges = {str(k): _range(str(k), v, f"{file}: {k}") for k, v in _mapping(entry, "search", file).items()}
    if not ranges:
        raise ConfigError(
            f"{file}: nothing is searched for; add search: with a range, such as lr: {{from: 1e-3, to: 0.1}}"
        )
    search = Search(settings, ranges)
    _check_values(search, file)
    return search


def _base_file(named: Path, folder: Path) -> Path:
    """See `find_config`; version 0.1 looked in the working directory and not beside the file."""
    return named if named.is_file() and not (folder / named).is_file() else find_config(named, beside=folder)


def _mapping(entry: Mapping[str, Any], key: str, file: Path) -> Mapping[str, Any]:
    value = entry.get(key) or {}
    if not isinstance(value, Mapping):
        raise ConfigError(f"{file}: {key} is a mapping of settings, not {value!r}")
    return value


def _range(name: str, value: Any, where: str) -> Range | Choice:
    if not name.startswith(OPTION):
        if name not in KINDS or name == "options":
            hint = f"; write {OPTION}NAME" if name == "options" else nearest(name, KINDS)
            raise ConfigError(f"{where}: there is no setting {name!r}{hint}")
        if name in FIXED:
            raise ConfigError(
                f"{where}: trials with different {name} cannot be compared; set it under settings"
            )
    if isinstance(value, Sequence) and not isinstance(value, str):
        if len(value) < 2:
            raise ConfigError(f"{where}: a search needs two values or more, not {value!r}")
        return Choice(tuple(value))
    if not isinstance(value, Mapping) or not {"from", "to"} <= set(value) <= set(RANGE_KEYS):
        raise ConfigError(
            f"{where}: takes a list of values, or {{from: 0.001, to: 0.1, log: true}}, not {value!r}"
        )
    try:
        low, high = float(value["from"]), float(value["to"])
    except (TypeError, ValueError, OverflowError):
        raise ConfigError(
            f"{where}: from and to are numbers, not {value['from']!r} and {value['to']!r}"
        ) from None
    log = value.get("log", False)
    if not isinstance(log, bool):
        raise ConfigError(f"{where}: log is true or false, not {log!r}")
    if not -math.inf < low < high < math.inf or (log and low <= 0):
        needs = "above 0 and " if log else ""
        raise ConfigError(f"{where}: from must be {needs}below to, not {low:g} and {high:g}")
    return Range(low, high, log, _is_whole(name, (value["from"], value["to"])))


def _is_whole(name: str, ends: Sequence[Any]) -> bool:
    """Whether whole numbers are drawn: by the type of the setting, of a model option by the ends given."""
    if name.startswith(OPTION):
        return all(isinstance(end, int) for end in ends)
    return int in (KINDS[name], *get_args(KINDS[name]))


def _check_values(search: Search, file: Path) -> None:
    """Raise ConfigError for values that a setting does not take, and for trials that cannot be compared."""
    if "train_split" in search.ranges and search.settings.val_split == "auto":
        raise ConfigError(
            f"{file}: trials with different train_split cannot be compared while val_split is auto; name the"
            " split to evaluate on under settings"
        )
    for name, one in search.ranges.items():
        if name.startswith(OPTION):
            continue
        for value in (one.low, one.high) if isinstance(one, Range) else one.values:
            complete(
                replace(with_values(search.settings, {name: value}, where=f"{file}: "), out=Path("trial"))
            )


def portable(config: TrainConfig) -> dict[str, Any]:
    """The settings that differ from the defaults, without the folder, as YAML has them."""
    defaults = to_values(TrainConfig())
    values = {
        key: list(value) if isinstance(value, tuple) else value for key, value in to_values(config).items()
    }
    return {
        key: value for key, value in values.items() if key != "out" and value != defaults[key] and value != []
    }

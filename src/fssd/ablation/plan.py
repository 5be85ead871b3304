"""The rows of an ablation, read from a YAML file that names a configuration for each.

    title: Fusion (paper, Table 2)
    settings: {epochs: 15}              # for every row; they override its config file
    rows:
      - {name: ssd300, config: ../ssd300-voc0712.yaml, paper: 77.2}
      - {name: fssd300, config: ../fssd300-plus-voc0712.yaml, after: ssd300, paper: 78.8, set: {ema: 0}}

A row with `after` starts from the trained weights of that row. Paths of configurations are relative to the
file, paths of data and weights to the working directory.
"""

import math
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Literal, NamedTuple

from fssd.config import TrainConfig, load_config, read_mapping, with_values
from fssd.errors import ConfigError, nearest

ROW_KEYS = ("name", "config", "set", "after", "paper")
FILE_KEYS = ("title", "settings", "rows")


@dataclass(frozen=True)
class AblationRow:
    """One row of a table.

    name: also of its folder. config: settings without data, folder and seed. after: the row whose weights
    it starts from. paper: the paper's value, percent.
    """

    name: str
    config: TrainConfig
    after: str | None
    paper: float | None


@dataclass(frozen=True)
class AblationPlan:
    """An ablation: its title, and its rows in the order of training."""

    title: str
    rows: tuple[AblationRow, ...]


class Budget(NamedTuple):
    """The length of each run, in "epochs" or "iterations"."""

    amount: float
    unit: Literal["epochs", "iterations"]


def read_plan(file: Path) -> AblationPlan:
    """Read an ablation. Raises ConfigError that names file and row for every invalid entry."""
    values = read_mapping(file)
    _check_keys(values, FILE_KEYS, str(file))
    listed = values.get("rows")
    if not isinstance(listed, list) or not listed:
        raise ConfigError(f"{file}: rows must list at least one row, such as {{name: a, config: a.yaml}}")
    settings = _settings(values, "settings", str(file))
    rows: list[AblationRow] = []
    for number, entry in enumerate(listed, start=1):
        rows.append(_row(file, number, entry, settings, [row.name for row in rows]))
    return AblationPlan(str(values.get("title") or file.stem), tuple(rows))


def _check_keys(values: Mapping[Any, Any], known: Sequence[str], where: str) -> None:
    for key in values:
        if key not in known:
            raise ConfigError(f"{where}: there is no key {key!r}{nearest(str(key), known)}")


def _settings(values: Mapping[str, Any], key: str, where: str) -> Mapping[str, Any]:
    settings = values.get(key) or {}
    if not isinstance(settings, Mapping):
        raise ConfigError(f"{where}: {key} must map names to values, not be {settings!r}")
    return settings


def _row(
    file: Path, number: int, entry: Any, settings: Mapping[str, Any], before: Sequence[str]
) -> AblationRow:
    where = f"{file}: row {number}"
    if not isinstance(entry, Mapping):
        raise ConfigError(f"{where} is {entry!r}; a row is a mapping such as {{name: a, config: a.yaml}}")
    _check_keys(entry, ROW_KEYS, where)
    name = entry.get("name")
    if not isinstance(name, str) or not re.fullmatch(r"[\w.+-]+", name) or name.startswith("."):
        raise ConfigError(f"{where}: name is {name!r}; it must be letters, digits, - + . and _")
    if name in before:
        raise ConfigError(f"{where}: the name {name!r} occurs twice; rename one of the rows")
    after = entry.get("after")
    if after is not None and after not in before:
        near = nearest(str(after), before)
        raise ConfigError(f"{where}: after is {after!r}, which is not a row above it{near}")
    paper = entry.get("paper")
    if paper is not None and (isinstance(paper, bool) or not isinstance(paper, (int, float))):
        raise ConfigError(f"{where}: paper is {paper!r}; it must be a number, percent")
    named = entry.get("config")
    config = TrainConfig() if named is None else load_config(file.parent / str(named))
    config = with_values(config, {**settings, **_settings(entry, "set", where)}, where=f"{where}: ")
    return AblationRow(name, config, after, None if paper is None else float(paper))


def parse_budget(text: str) -> Budget:
    """The length in a text such as `20ep` or `5000it`. Raises ConfigError."""
    match = re.fullmatch(r"(\d+(?:\.\d+)?)(ep|it)", text.strip())
    if match is None or float(match[1]) <= 0 or (match[2] == "it" and "." in match[1]):
        raise ConfigError(f"budget is {text!r}; it is a length of each run such as 20ep or 5000it")
    return Budget(float(match[1]), "epochs" if match[2] == "ep" else "iterations")


def shorten(config: TrainConfig, budget: Budget, images: int) -> TrainConfig:
    """`config` with the length of `budget`; the learning-rate steps are moved in proportion.

    images: of the training split. config: a resolved one.
    """
    per_epoch = images / (config.batch_size * config.accumulate)
    before = config.iterations or math.ceil((config.epochs or 0) * per_epoch)
    if budget.unit == "epochs":
        total = budget.amount * per_epoch
        config = replace(config, epochs=budget.amount, iterations=None)
    else:
        total = budget.amount
        config = replace(config, epochs=None, iterations=int(total))
    return replace(config, steps=tuple(max(1, round(step * total / before)) for step in config.steps))

"""The rows of an ablation, read from a YAML file that names a configuration for each.

    title: Fusion (paper, Table 2)
    settings: {epochs: 15}              # for every row, over its config file; options add up
    rows:
      - {name: ssd300, config: ../ssd300-voc0712.yaml, paper: 77.2}
      - {name: fssd300, config: ../fssd300-plus-voc0712.yaml, after: ssd300, paper: 78.8, set: {ema: 0}}

A row with `after` starts from the trained weights of that row. A configuration is a path relative to the
file, or the name of a packaged one; paths of data and weights are relative to the working directory.

A row of a result that is only published is not run; it is printed with its source:

      - {name: Faster R-CNN, published: {value: 73.2, source: "FSSD, Table 3", note: "6000 anchors"}}

`server: voc2012` says that the labels to measure on are not public: rows are trained without a validation
split, and their detections are for `fssd submit`.
"""

import math
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Literal, NamedTuple, TypeGuard, get_args

from fssd.config.config_files import find_config, load_config
from fssd.config.settings import with_values
from fssd.config.train_config import TrainConfig
from fssd.config.yaml_files import read_mapping
from fssd.errors import ConfigError, nearest
from fssd.evaluation.submit import Server

ROW_KEYS = ("name", "config", "set", "after", "paper", "note", "published")
TABLES = ("table.md", "table.csv", "table.png")  # beside the folders of the rows
PUBLISHED_KEYS = ("value", "source", "note")
FILE_KEYS = ("title", "settings", "server", "rows")


@dataclass(frozen=True)
class AblationRow:
    """One row of a table.

    name: also of its folder. config: settings without data, folder and seed. after: the row whose weights
    it starts from. paper: the paper's value, percent. note: a sentence about that value.
    """

    name: str
    config: TrainConfig
    after: str | None
    paper: float | None
    note: str = ""


@dataclass(frozen=True)
class PublishedRow:
    """A result of others that is printed and not run. value: percent. note: what makes it less comparable."""

    name: str
    value: float
    source: str
    note: str


@dataclass(frozen=True)
class AblationPlan:
    """An ablation.

    rows: those to train, in this order. published: the others. order: the names of all, as the file lists
    them. server: where the rows are measured, if not here.
    """

    title: str
    rows: tuple[AblationRow, ...]
    published: tuple[PublishedRow, ...] = ()
    order: tuple[str, ...] = ()
    server: Server | None = None


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
    server = values.get("server")
    if server is not None and server not in get_args(Server):
        raise ConfigError(f"{file}: there is no server {server!r}{nearest(str(server), get_args(Server))}")
    rows: list[AblationRow] = []
    published: list[PublishedRow] = []
    order: list[str] = []
    for number, entry in enumerate(listed, start=1):
        where = f"{file}: row {number}"
        name = _name(where, entry, order)
        order.append(name)
        if "published" in entry:
            published.append(_published(where, name, entry))
        else:
            rows.append(_row(file, where, name, entry, settings, [row.name for row in rows]))
    if not rows:
        raise ConfigError(f"{file}: every row is published; list at least one to train")
    title = str(values.get("title") or file.stem)
    return AblationPlan(title, tuple(rows), tuple(published), tuple(order), server)


def _check_keys(values: Mapping[Any, Any], known: Sequence[str], where: str) -> None:
    for key in values:
        if key not in known:
            raise ConfigError(f"{where}: there is no key {key!r}{nearest(str(key), known)}")


def _settings(values: Mapping[str, Any], key: str, where: str) -> Mapping[str, Any]:
    settings = values.get(key) or {}
    if not isinstance(settings, Mapping):
        raise ConfigError(f"{where}: {key} must map names to values, not be {settings!r}")
    refuse_flags(settings, f"{where}: {key}")
    return settings


def refuse_flags(settings: Mapping[str, Any], where: str) -> None:
    """Raise ConfigError for settings that an ablation takes from its own flags."""
    for key, flag in (("seed", "--seeds"), ("out", "--out")):
        if key in settings:
            raise ConfigError(f"{where}: the {key} of a run follows from {flag} of ablate; leave it out")


def _name(where: str, entry: Any, before: Sequence[str]) -> str:
    """The name of a row, after its keys are checked. Of a row to train it is also that of a folder."""
    if not isinstance(entry, Mapping):
        raise ConfigError(f"{where} is {entry!r}; a row is a mapping such as {{name: a, config: a.yaml}}")
    _check_keys(entry, ROW_KEYS, where)
    name = entry.get("name")
    published = "published" in entry
    pattern = r"[\w.+-]+( [\w.+-]+)*" if published else r"[\w.+-]+"
    if not isinstance(name, str) or not re.fullmatch(pattern, name) or name.startswith("."):
        spaces = ", with spaces between them" if published else ""
        raise ConfigError(f"{where}: name is {name!r}; it must be letters, digits, - + . and _{spaces}")
    if name in TABLES and not published:
        raise ConfigError(f"{where}: the table is written to {name}, so no row can have this name; rename it")
    if name in before:
        raise ConfigError(f"{where}: the name {name!r} occurs twice; rename one of the rows")
    return name


def _published(where: str, name: str, entry: Mapping[str, Any]) -> PublishedRow:
    others = [key for key in entry if key not in ("name", "published")]
    if others:
        raise ConfigError(
            f"{where}: a published row is not run and has no {others[0]}; leave one of the two out"
        )
    values = entry["published"]
    if not isinstance(values, Mapping):
        raise ConfigError(
            f"{where}: published is {values!r}; it is {{value: 73.2, source: where it is printed}}"
        )
    _check_keys(values, PUBLISHED_KEYS, f"{where}: published")
    value, source, note = (values.get(key) for key in PUBLISHED_KEYS)
    if not _is_percent(value):
        raise ConfigError(f"{where}: published value is {value!r}; it must be a number, percent")
    if not isinstance(source, str) or not source.strip():
        raise ConfigError(f"{where}: published source is {source!r}; say where the value is printed")
    if note is not None and not isinstance(note, str):
        raise ConfigError(f"{where}: published note is {note!r}; it must be a text")
    return PublishedRow(name, float(value), source.strip(), (note or "").strip())


def _is_percent(value: Any) -> TypeGuard[float]:
    return not isinstance(value, bool) and isinstance(value, (int, float)) and 0 <= value <= 100


def _row(
    file: Path,
    where: str,
    name: str,
    entry: Mapping[str, Any],
    settings: Mapping[str, Any],
    before: Sequence[str],
) -> AblationRow:
    after = entry.get("after")
    if after is not None and after not in before:
        near = nearest(str(after), before)
        raise ConfigError(f"{where}: after is {after!r}, which is not a row above it{near}")
    paper = entry.get("paper")
    if paper is not None and not _is_percent(paper):
        raise ConfigError(f"{where}: paper is {paper!r}; it must be a number, percent")
    named = entry.get("config")
    config = TrainConfig()
    if named is not None:
        config = load_config(find_config(Path(str(named)), beside=file.parent))
    own = _settings(entry, "set", where)
    if after is not None and "weights" in own:
        raise ConfigError(f"{where}: starts from the model of row {after}; leave the weights out of set")
    for values in (settings, own):
        config = with_values(config, values, where=f"{where}: ")
    note = entry.get("note") or ""
    if not isinstance(note, str) or (note and paper is None):
        raise ConfigError(f"{where}: note is {note!r}; it is a text about the value of `paper`")
    return AblationRow(name, config, after, None if paper is None else float(paper), note.strip())


def parse_budget(text: str) -> Budget:
    """The length in a text such as `20ep` or `5000it`. Raises ConfigError."""
    match = re.fullmatch(r"(\d+(?:\.\d+)?)(ep|it)", text.strip())
    if match is None or not 0 < float(match[1]) < math.inf or (match[2] == "it" and "." in match[1]):
        raise ConfigError(f"budget is {text!r}; it is a length of each run such as 20ep or 5000it")
    return Budget(float(match[1]), "epochs" if match[2] == "ep" else "iterations")


def shorten(config: TrainConfig, budget: Budget, views: int, processes: int = 1) -> TrainConfig:
    """`config` with the length of `budget`; learning-rate steps and plain epochs change in proportion.

    views: of an epoch, which are the training images unless some are shown more often. config: a resolved
    one. processes: those that train it.
    """
    per_epoch = views / config.images_per_update(processes)
    before = config.iterations or math.ceil((config.epochs or 0) * per_epoch)
    if budget.unit == "epochs":
        total = budget.amount * per_epoch
        config = replace(config, epochs=budget.amount, iterations=None)
    else:
        total = budget.amount
        config = replace(config, epochs=None, iterations=int(total))
    plain = None if config.plain_epochs is None else config.plain_epochs * total / before
    steps = tuple(max(1, round(step * total / before)) for step in config.steps)
    return replace(config, steps=steps, plain_epochs=plain)

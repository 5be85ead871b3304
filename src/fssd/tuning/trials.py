"""The trials of a search as its folder has them: their state, a table, and the best configuration."""

from __future__ import annotations

import json
import math
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

import yaml

from fssd.ablation.output import cells
from fssd.atomic import atomic_write
from fssd.config.run_files import CONFIG_FILE, FINAL_FILE
from fssd.config.train_config import AUTO, RESUME_MAY_CHANGE, TrainConfig, to_values
from fssd.config.yaml_files import read_mapping
from fssd.plots import save_table
from fssd.training.log import LOG_FILE, read_log
from fssd.training.splits import name_splits
from fssd.training.start import complete
from fssd.training.state import require_same
from fssd.tuning.search import Search, portable

FAILED_FILE = "failed.txt"  # in the folder of a trial, why it ended
RESULTS = TABLE, VALUES, BEST = "table.md", "table.csv", "best.yaml"


class SearchTrial(NamedTuple):
    """One trial. values: as drawn. state: "finished", "stopped early", "failed" or "not finished".

    updates: at its last evaluation. best: its highest mAP, nan if it has none.
    """

    number: int
    values: dict[str, Any]
    state: str
    updates: int
    best: float


def trial_folder(out: Path, number: int) -> Path:
    return out / "trials" / f"{number:04}"


def require_same_trials(configs: Sequence[TrainConfig]) -> None:
    """Raise ConfigError if a trial was begun with other settings, as by a change of the file's `base`."""
    for config in configs:
        assert config.out is not None
        file = config.out / CONFIG_FILE
        if not file.is_file():
            continue
        asked = name_splits(complete(config))
        chosen = {key for key in ("amp", "batch_size") if getattr(asked, key) in ("auto", AUTO)}
        require_same(read_mapping(file), to_values(asked), config.out, RESUME_MAY_CHANGE | chosen)


def failures(out: Path, count: int) -> dict[int, str]:
    """Why trials have failed, by their number."""
    files = {number: trial_folder(out, number) for number in range(count)}
    return {
        number: (folder / FAILED_FILE).read_text(encoding="utf-8").strip()
        for number, folder in files.items()
        if (folder / FAILED_FILE).is_file() and not (folder / FINAL_FILE).exists()
    }


def read_trials(out: Path, search: Search, count: int, seed: int, over: bool) -> list[SearchTrial]:
    """All trials, best first and those that failed last, whose settings would fail again.

    over: whether the search has ended, so that the unfinished were stopped.
    """
    trials = [_read(out, search, number, seed, over) for number in range(count)]
    return sorted(trials, key=_rank)


def _rank(trial: SearchTrial) -> tuple[bool, float, int]:
    return trial.state == "failed", math.inf if math.isnan(trial.best) else -trial.best, trial.number


def _read(out: Path, search: Search, number: int, seed: int, over: bool) -> SearchTrial:
    folder = trial_folder(out, number)
    lines = read_log(folder / LOG_FILE) if (folder / LOG_FILE).is_file() else []
    rows = [(line["iteration"], line["evaluation"]["map"]) for line in lines if "evaluation" in line]
    values = [value for _, value in rows if value is not None and not math.isnan(value)]
    if (folder / FINAL_FILE).exists():
        state = "finished"
    elif (folder / FAILED_FILE).exists():
        state = "failed"
    else:
        state = "stopped early" if over and rows else "not finished"
    updates = rows[-1][0] if rows else 0
    return SearchTrial(number, search.values(number, seed), state, updates, max(values, default=math.nan))


def write_results(out: Path, search: Search, trials: Sequence[SearchTrial], seed: int) -> Path | None:
    """Write table.md, table.csv and best.yaml; the latter's path, None if each trial failed or has no mAP."""
    names = list(search.ranges)
    head = ["trial", "state", "updates", "mAP", *names]
    rows: list[list[object]] = []
    for one in trials:
        value = "" if math.isnan(one.best) else round(one.best, 4)
        rows.append([one.number, one.state, one.updates, value, *(_text(one.values[name]) for name in names)])
    lines = [cells(head), cells(["---:", "---", "---:", "---:", *["---"] * len(names)])]
    lines += [cells([str(value) for value in row]) for row in rows]
    atomic_write(out / TABLE, "\n".join(lines) + "\n")
    save_table(out / VALUES, head, rows)
    if not trials or math.isnan(trials[0].best) or trials[0].state == "failed":
        return None
    best = out / BEST
    settings = portable(search.config(trials[0].number, seed))
    text = yaml.safe_dump(settings, sort_keys=False, allow_unicode=True)
    atomic_write(best, f"# trial {trials[0].number}, mAP {trials[0].best:.4f}\n{text}")
    return best


def _text(value: Any) -> str:
    return value if isinstance(value, str) else json.dumps(value)

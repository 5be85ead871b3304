"""The parts of a model card that are made from what was measured: no number in them is typed by hand."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping, Sequence
from typing import Any

import yaml

from fssd.config import TrainConfig, to_values
from fssd.errors import ConfigError


def metrics_table(reports: Mapping[str, Mapping[str, Any]]) -> str:
    """A Markdown table of AP in percent: classes, object sizes and the mean in rows, models in columns.

    reports: for each model what `Report.to_json` says, all of one data set.
    """
    first = next(iter(reports.values()))
    rows = [(name, [report["classes"][name] for report in reports.values()]) for name in first["classes"]]
    rows += [(f"{name} objects", [r["sizes"][name] for r in reports.values()]) for name in first["sizes"]]
    rows.append(("**mean of the classes**", [report["map"] for report in reports.values()]))
    head = ["AP in percent", *(f"`{name}`" for name in reports)]
    lines = [_row(head), _row(["---", *["---:"] * len(reports)])]
    lines += [_row([name, *map(_percent, values)]) for name, values in rows]
    measure = (
        f"{first['images']:,} images, {first['objects']:,} objects, {first['metric']} at IoU {first['iou']:g}"
    )
    return "\n".join([f"{measure}:", "", *lines])


def recipe(config: Mapping[str, Any]) -> str:
    """The settings of a training that are not the defaults, as the YAML that `fssd train --config` takes.

    config: of a model file, without the places of data and run.
    """
    usual = json.loads(json.dumps(to_values(TrainConfig())))  # as model files have it: lists, no tuples
    chosen = {
        key: config[key] for key in usual if key in config and (key == "model" or config[key] != usual[key])
    }
    return f"```yaml\n{yaml.safe_dump(chosen, sort_keys=False).strip()}\n```"


def fill_part(card: str, part: str, text: str) -> str:
    """The card with what stands between `<!-- PART -->` and `<!-- /PART -->` replaced.

    Raises ConfigError if the card has not exactly one such place.
    """
    pattern = re.compile(rf"(<!-- {part} -->\n).*?(<!-- /{part} -->)", flags=re.DOTALL)
    filled, count = pattern.subn(lambda found: f"{found[1]}\n{text}\n\n{found[2]}", card)
    if count != 1:
        raise ConfigError(f"the model card has {count} places marked {part!r}; it needs one")
    return filled


def _row(cells: Sequence[str]) -> str:
    return f"| {' | '.join(cells)} |"


def _percent(ap: float | None) -> str:
    return "-" if ap is None else f"{100 * ap:.1f}"

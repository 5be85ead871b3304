"""The parts of a model card that are generated from measurements, so that no number is typed by hand."""

from __future__ import annotations

import json
import re
from collections.abc import Iterable, Mapping
from typing import Any

import yaml

from fssd.config import TrainConfig, to_values
from fssd.errors import ConfigError


def metrics_table(reports: Mapping[str, Mapping[str, Any]]) -> str:
    """A Markdown table of AP in percent: classes, object sizes and the mean in rows, models in columns.

    reports: `Report.to_json` of each model, all for one data set.
    """
    first, *_ = reports.values()
    rows = [(name, [report["classes"][name] for report in reports.values()]) for name in first["classes"]]
    rows += [(f"{name} objects", [r["sizes"][name] for r in reports.values()]) for name in first["sizes"]]
    rows.append(("**mean of the classes**", [report["map"] for report in reports.values()]))
    lines = [_row(["AP in percent", *(f"`{name}`" for name in reports)])]
    lines.append(_row(["---", *["---:"] * len(reports)]))
    lines += [_row([name, *map(_percent, values)]) for name, values in rows]
    measured = f"{first['images']:,} images, {first['objects']:,} objects"
    return "\n".join([f"{measured}, {first['metric']} at IoU {first['iou']:g}:", "", *lines])


def recipe(config: Mapping[str, Any]) -> str:
    """The settings that differ from the defaults, as YAML for `fssd train --config`.

    config: of a model file, without the paths of data and run.
    """
    defaults = json.loads(json.dumps(to_values(TrainConfig())))  # lists instead of tuples, as in model files
    kept = [key for key in defaults if key in config and (key == "model" or config[key] != defaults[key])]
    text = yaml.safe_dump({key: config[key] for key in kept}, sort_keys=False)
    return f"```yaml\n{text.strip()}\n```"


def fill_part(card: str, part: str, text: str) -> str:
    """The card with the text between `<!-- PART -->` and `<!-- /PART -->` replaced.

    Raises ConfigError if the card does not have exactly one such part.
    """
    pattern = re.compile(rf"(<!-- {part} -->\n).*?(<!-- /{part} -->)", flags=re.DOTALL)
    filled, count = pattern.subn(lambda found: f"{found[1]}\n{text}\n\n{found[2]}", card)
    if count != 1:
        raise ConfigError(f"the model card has {count} parts marked {part!r}; it needs one")
    return filled


def _row(cells: Iterable[str]) -> str:
    return f"| {' | '.join(cells)} |"


def _percent(ap: float | None) -> str:
    return "-" if ap is None else f"{100 * ap:.1f}"

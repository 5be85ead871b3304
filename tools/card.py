"""The parts of a model card that are filled in from measurements, so that no number is typed by hand."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any

from fssd.ablation.output import cells
from fssd.errors import ConfigError
from fssd.weights.model_card import percent


def fill_part(card: str, part: str, text: str) -> str:
    """The card with the text between `<!-- PART -->` and `<!-- /PART -->` replaced.

    Raises ConfigError if the card does not have exactly one such part.
    """
    pattern = re.compile(rf"(<!-- {part} -->\n).*?(<!-- /{part} -->)", flags=re.DOTALL)
    filled, count = pattern.subn(lambda found: f"{found[1]}\n{text}\n\n{found[2]}", card)
    if count != 1:
        raise ConfigError(f"the model card has {count} parts marked {part!r}; it needs one")
    return filled


def metrics_table(reports: Mapping[str, Mapping[str, Any]]) -> str:
    """A Markdown table of AP in percent: classes, object sizes and the mean in rows, models in columns.

    reports: `Report.to_json` of each model, all for one data set.
    """
    first, *_ = reports.values()
    rows = [(name, [report["classes"][name] for report in reports.values()]) for name in first["classes"]]
    rows += [(f"{name} objects", [r["sizes"][name] for r in reports.values()]) for name in first["sizes"]]
    rows.append(("**mean of the classes**", [report["map"] for report in reports.values()]))
    lines = [cells(["AP in percent", *(f"`{name}`" for name in reports)])]
    lines.append(cells(["---", *["---:"] * len(reports)]))
    lines += [cells([name, *map(percent, values)]) for name, values in rows]
    measured = f"{first['images']:,} images, {first['objects']:,} objects"
    return "\n".join([f"{measured}, {first['metric']} at IoU {first['iou']:g}:", "", *lines])

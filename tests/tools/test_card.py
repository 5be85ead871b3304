"""The made parts of a model card: the table says what the reports say, the recipe can be trained with."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import yaml

from card import fill_part, metrics_table
from fssd.config.settings import with_values
from fssd.config.train_config import TrainConfig, to_values
from fssd.errors import ConfigError
from fssd.export.write import portable
from fssd.weights.model_card import recipe
from fssd.zoo.models import FOLDER, MODELS

CARD, REPORTS = FOLDER / "animals.md", FOLDER / "animals.json"


def report(cat: float, cow: float | None, small: float | None, mean: float) -> dict[str, Any]:
    return {
        "metric": "voc12",
        "map": mean,
        "classes": {"cat": cat, "cow": cow},
        "sizes": {"small": small, "large": 0.875},
        "images": 1599,
        "objects": 2710,
        "iou": 0.5,
        "numbers": {},
    }


def part(card: str, name: str) -> str:
    return card.split(f"<!-- {name} -->")[1].split(f"<!-- /{name} -->", maxsplit=1)[0].strip()


def cells(table: str) -> dict[str, list[str]]:
    """Rows of a Markdown table by their first cell."""
    rows = [[cell.strip() for cell in line.split("|")[1:-1]] for line in table.splitlines() if "|" in line]
    return {row[0]: row[1:] for row in rows}


def test_metrics_table() -> None:
    table = metrics_table({"a": report(0.81449, 0.5, None, 0.6572), "b": report(0.8, None, 0.1, 1.0)})
    assert table == (
        "1,599 images, 2,710 objects, voc12 at IoU 0.5:\n"
        "\n"
        "| AP in percent | `a` | `b` |\n"
        "| --- | ---: | ---: |\n"
        "| cat | 81.4 | 80.0 |\n"
        "| cow | 50.0 | - |\n"
        "| small objects | - | 10.0 |\n"
        "| large objects | 87.5 | 87.5 |\n"
        "| **mean of the classes** | 65.7 | 100.0 |"
    )


def test_recipe_gives_the_same_training_again() -> None:
    config = TrainConfig(
        model="ssd300-lite",
        data=Path("d"),
        out=Path("o"),
        options={"merge": "sum"},
        epochs=3.5,
        steps=(7, 9),
        val_split=None,
        difficult=False,
        seed=2**40,
    )
    stored = portable(json.loads(json.dumps({"config": to_values(config)})))["config"]
    lines = recipe(stored).splitlines()
    assert (lines[0], lines[-1]) == ("```yaml", "```")
    values = yaml.safe_load("\n".join(lines[1:-1]))
    again = with_values(TrainConfig(data=Path("d"), out=Path("o")), values)
    assert again == config
    assert list(values) == ["model", "options", "val_split", "epochs", "steps", "difficult", "seed"], (
        "in order"
    )
    assert recipe({"model": "fssd300-lite"}) == "```yaml\nmodel: fssd300-lite\n```", (
        "also where it is the default"
    )


def test_recipe_passes_over_settings_of_another_version() -> None:
    assert yaml.safe_load(recipe({"seed": 3, "gone": 1}).strip("`").removeprefix("yaml")) == {"seed": 3}


def test_fill_part() -> None:
    card = "a\n<!-- x -->\nold\n<!-- /x -->\nb <!-- y -->\n<!-- /y -->"
    filled = fill_part(card, "x", r"new \1")
    assert filled == "a\n<!-- x -->\n\nnew \\1\n\n<!-- /x -->\nb <!-- y -->\n<!-- /y -->"
    assert fill_part(filled, "x", r"new \1") == filled
    with pytest.raises(ConfigError, match="0 parts"):
        fill_part(card, "z", "new")
    with pytest.raises(ConfigError, match="2 parts"):
        fill_part(card + "\n" + card, "x", "new")


def test_the_card_has_places_to_fill() -> None:
    for name in ("metrics", "recipe"):
        fill_part(CARD.read_text(encoding="utf-8"), name, "")


def test_the_card_tells_what_was_measured() -> None:
    reports = json.loads(REPORTS.read_text(encoding="utf-8"))
    assert list(reports) == list(MODELS)
    table = cells(part(CARD.read_text(encoding="utf-8"), "metrics"))
    for place, measured in enumerate(reports.values()):
        for name, ap in measured["classes"].items():
            assert table[name][place] == f"{100 * ap:.1f}"
        for name, ap in measured["sizes"].items():
            assert table[f"{name} objects"][place] == f"{100 * ap:.1f}"
        assert table["**mean of the classes**"][place] == f"{100 * measured['map']:.1f}"
        mean = sum(measured["classes"].values()) / len(measured["classes"])
        assert measured["map"] == pytest.approx(mean)
    fp16, int8 = (measured["map"] for measured in reports.values())
    assert fp16 - int8 <= 0.01


def test_the_card_tells_how_it_was_trained() -> None:
    from fssd.weights.checkpoint import load_model

    block = part(CARD.read_text(encoding="utf-8"), "recipe").strip("`").removeprefix("yaml")
    config = load_model(MODELS["animals"]).facts["config"]
    told = with_values(TrainConfig(train_split="train", val_split="val"), yaml.safe_load(block))
    trained = to_values(with_values(TrainConfig(), config))
    assert portable({"config": to_values(told)}) == portable({"config": trained})

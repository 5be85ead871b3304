"""The card of a model: Markdown with the YAML header that hubs read, written from what its file holds.

A training run has one in its folder, `fssd push` writes one for a hub, and the packaged model's is filled in
by the same functions.
"""

from __future__ import annotations

import json
import re
import shlex
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

import yaml

from fssd.atomic import atomic_write
from fssd.config.train_config import LOCAL, TrainConfig, to_values
from fssd.counted import counted
from fssd.errors import ConfigError, shown
from fssd.zoo.hub import is_hub_address

CARD_FILE = "README.md"
OWN_WORDS = "<!-- What is written below this line is kept when the card is written again. -->"
_MARKUP = re.compile(r"[\\|*`<\[~]|(?<!\w)_|_(?!\w)|&(?=#?\w+;)")
_LICENCE = re.compile(r"[a-z0-9][a-z0-9.+-]*")


def check_licence(licence: str | None) -> None:
    """Raise ConfigError for what is no identifier of a licence as hubs have them."""
    if licence is not None and not _LICENCE.fullmatch(licence):
        raise ConfigError(
            f"licence {licence!r} is no identifier; write it as hubs do: apache-2.0, mit, cc-by-4.0 or other"
        )


def stated_licence(facts: Mapping[str, Any]) -> str | None:
    """The licence in the settings of a model's training."""
    return _config(facts).get("licence")


def write_card(
    file: Path,
    facts: Mapping[str, Any],
    size: tuple[int, int],
    weights: int,
    address: str,
    *,
    thresholds: Mapping[str, Any] | None = None,
    licence: str | None = None,
    before: Path | None = None,
) -> None:
    """Write the card of a model. See `model_card`.

    before: a card whose own words are kept, if it exists; of a file that is no card, every word.
    """
    text = model_card(facts, size, weights, address, licence, thresholds)
    old = before.read_text(encoding="utf-8", errors="replace") if before and before.is_file() else ""
    own = old.partition(OWN_WORDS)[2] if OWN_WORDS in old else f"\n{old}"
    atomic_write(file, text + (own or "\n"))


def model_card(
    facts: Mapping[str, Any],
    size: tuple[int, int],
    weights: int,
    address: str,
    licence: str | None = None,
    thresholds: Mapping[str, Any] | None = None,
) -> str:
    """The card of a model, up to the words of its author.

    facts: the JSON document of the model's file. size: (width, height) of its input, pixels. weights: number
    of its parameters. address: hf://user/name, or the folder of the run. licence: None takes that of the
    training's settings, or leaves it open. thresholds: those that evaluation uses. Raises ConfigError.
    """
    licence = licence or stated_licence(facts)
    check_licence(licence)
    title = address.rstrip("/").rpartition("/")[2]
    classes = [str(name) for name in facts["classes"]]
    header = yaml.safe_dump(_header(facts, title, licence), sort_keys=False, allow_unicode=True)
    lines = ["---", header.strip(), "---", "", f"# {_cell(title)}", ""]
    lines += [f"An object detector of the Python package fssd, for {counted(len(classes), 'class')}.", ""]
    lines += _usage(address)
    lines += ["| | |", "|---|---|", f"| network | `{facts['model']}`, {weights:,} parameters |"]
    lines.append(f"| input | {size[0]} x {size[1]} pixels |")
    lines.append(f"| classes | {_cell(', '.join(classes))} |")
    rows = [*_origin(facts), *_data(facts), *_metrics(facts), ("licence", licence or "not stated")]
    if thresholds:
        shares = ", ".join(f"{key} {value:g}" for key, value in thresholds.items())
        rows.insert(-1, ("thresholds of evaluation", shares))
    lines += [f"| {title} | {_cell(value)} |" for title, value in rows]
    lines += ["", *_by_class(facts, classes), *_by_size(facts)]
    if _config(facts):
        lines += ["## Training", "", "Settings other than the defaults, for `fssd train --config`:", ""]
        lines += [recipe({key: v for key, v in _config(facts).items() if key not in LOCAL}), ""]
    return "\n".join([*lines, OWN_WORDS])


def _header(facts: Mapping[str, Any], title: str, licence: str | None) -> dict[str, Any]:
    header: dict[str, Any] = {} if licence is None else {"license": licence}
    header |= {"library_name": "fssd", "pipeline_tag": "object-detection"}
    header["tags"] = ["object-detection", "fssd", str(facts["model"])]
    metrics = _measured(facts)
    if metrics:
        data = facts.get("data") or {}
        name = str(data.get("name") or "not named")
        metric = f"mAP ({metrics.get('metric', 'voc12')})"
        measured = {"type": "mean_average_precision", "value": round(metrics["map"], 4), "name": metric}
        result = {"task": {"type": "object-detection"}, "dataset": {"type": name, "name": name}}
        header["model-index"] = [{"name": title, "results": [{**result, "metrics": [measured]}]}]
    return header


def _usage(address: str) -> list[str]:
    install = 'pip install "fssd[hub]"' if is_hub_address(address) else "pip install fssd"
    lines = ["```bash", install, f"fssd detect {shlex.quote(address)} photo.jpg", "```", ""]
    load = f'found = fssd.Detector.load({json.dumps(address)})("photo.jpg")'
    return [*lines, "```python", "import fssd", "", load, "```", ""]


def _origin(facts: Mapping[str, Any]) -> list[tuple[str, str]]:
    """Where the weights come from, as far as the file tells."""
    rows = []
    if "imported_from" in facts:
        source = facts.get("url", facts["imported_from"])
        rows.append(("imported from", f"{source}, sha256 {facts['sha256']}" if "sha256" in facts else source))
    if facts.get("licence"):
        rows.append(("licence of those weights", str(facts["licence"])))
    if facts.get("iteration"):
        rows.append(("updates of the training", f"{facts['iteration']:,}"))
    return rows


def _data(facts: Mapping[str, Any]) -> list[tuple[str, str]]:
    """What it was trained and evaluated on; the files of older versions do not tell."""
    data = facts.get("data") or {}
    rows = [("data set", f"{data['name']} ({data['format']})")] if "name" in data else []
    for key, title in (("train", "trained on"), ("val", "evaluated on")):
        if key in data:
            part = data[key]
            objects = counted(sum(part["objects"].values()), "object")
            rows.append((title, f"{part['split']}: {counted(part['images'], 'image')}, {objects}"))
    return rows


def _metrics(facts: Mapping[str, Any]) -> list[tuple[str, str]]:
    """What the training measured of this file, which final.safetensors does not have."""
    metrics = _measured(facts)
    if not metrics:
        return []
    images = metrics.get("images")
    measured_on = f" on {counted(images, 'image')}" if isinstance(images, int) else ""
    return [(f"mAP ({metrics.get('metric', 'voc12')})", f"{metrics['map']:.4f}{measured_on}")]


def _measured(facts: Mapping[str, Any]) -> Mapping[str, Any]:
    """The report in a model's file; {} if it has none, or nothing was there to measure."""
    metrics = facts.get("metrics")
    usable = isinstance(metrics, Mapping) and isinstance(metrics.get("map"), (int, float))
    return metrics if usable and isinstance(metrics, Mapping) else {}


def _by_class(facts: Mapping[str, Any], classes: Sequence[str]) -> list[str]:
    """A table of the classes: objects of each split, AP, and the score that `--keep-thresholds` wrote."""
    data, scores = facts.get("data") or {}, facts.get("class_scores") or {}
    columns: dict[str, Mapping[str, Any]] = {}
    for key, title in (("train", "training objects"), ("val", "validation objects")):
        if key in data:
            columns[title] = {name: f"{count:,}" for name, count in data[key]["objects"].items()}
    if ap := _measured(facts).get("classes"):
        columns["AP in percent"] = {name: percent(value) for name, value in ap.items()}
    if scores:
        columns["kept score"] = {name: f"{value:.3f}" for name, value in scores.items()}
    if not columns:
        return []
    lines = ["## Classes", "", _row(["class", *columns]), _row(["---", *["---:"] * len(columns)])]
    for name in classes:
        lines.append(_row([_cell(name), *(column.get(name, "-") for column in columns.values())]))
    return [*lines, ""]


def _by_size(facts: Mapping[str, Any]) -> list[str]:
    """AP by the size of the objects in their images, as COCO divides them."""
    sizes = _measured(facts).get("sizes") or {}
    if not sizes:
        return []
    head = [_row(["objects", *sizes]), _row(["---", *["---:"] * len(sizes)])]
    return [*head, _row(["AP in percent", *map(percent, sizes.values())]), ""]


def recipe(config: Mapping[str, Any]) -> str:
    """The settings that differ from the defaults, as YAML for `fssd train --config`.

    config: of a model file, without the paths of data and run.
    """
    defaults = json.loads(json.dumps(to_values(TrainConfig())))  # lists instead of tuples, as in model files
    config = json.loads(json.dumps(config))
    kept = [key for key in defaults if key in config and (key == "model" or config[key] != defaults[key])]
    text = yaml.safe_dump({key: config[key] for key in kept}, sort_keys=False)
    return f"```yaml\n{text.strip()}\n```"


def card_address(out: Path) -> str:
    """How the card of a run names its folder: as it was given, but no folder of this machine."""
    return out.name if out.is_absolute() else shown(out)


def _config(facts: Mapping[str, Any]) -> Mapping[str, Any]:
    config = facts.get("config")
    return config if isinstance(config, Mapping) else {}


def _row(cells: Iterable[str]) -> str:
    return f"| {' | '.join(cells)} |"


def percent(ap: float | None) -> str:
    """AP of 0..1 in percent, for a table; - for a class without objects."""
    return "-" if ap is None else f"{100 * ap:.1f}"


def _cell(text: str) -> str:
    """A text that Markdown shows as it is; an _ within a word, as in addresses, needs no escape."""
    return " ".join(_MARKUP.sub(r"\\\g<0>", text).split())

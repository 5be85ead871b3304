"""A model as a folder for others: the model file, the settings of its run, and a card of it."""

from __future__ import annotations

import shutil
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import yaml

from fssd.atomic import atomic_write
from fssd.config import CONFIG_FILE
from fssd.model.cost import parameters
from fssd.weights.checkpoint import load_model, model_file
from fssd.zoo.hub import MODEL_FILES


def write_shared_model(model: Path, folder: Path, *, address: str, licence: str | None = None) -> list[str]:
    """Write a model, its card and, from the folder of a run, config.yaml; returns the names of the files.

    model: see `model_file`. folder: an existing one. address: hf://user/name, for the card's commands.
    licence: as hubs write it, such as apache-2.0 or cc-by-4.0; None leaves it open. Raises CheckpointError.
    """
    file = model_file(model)
    loaded = load_model(file)
    name = file.name if file.name in MODEL_FILES else MODEL_FILES[-1]
    shutil.copyfile(file, folder / name)
    names = [name, "README.md"]
    settings = file.parent / CONFIG_FILE
    if settings.is_file() and file.name in MODEL_FILES:
        values = yaml.safe_load(settings.read_text(encoding="utf-8"))
        atomic_write(folder / CONFIG_FILE, yaml.safe_dump(_without_paths(values), sort_keys=False))
        names.append(CONFIG_FILE)
    size = loaded.network.image_size
    text = model_card(loaded.facts, size, parameters(loaded.network), address, licence)
    atomic_write(folder / "README.md", text)
    return names


def model_card(
    facts: Mapping[str, Any], size: tuple[int, int], weights: int, address: str, licence: str | None = None
) -> str:
    """The card of a model as Markdown with the YAML header that hubs read.

    facts: the JSON document of the model's file. size: (width, height) of its input, pixels. weights: number
    of its parameters.
    """
    header: dict[str, Any] = {} if licence is None else {"license": licence}
    header |= {"library_name": "fssd", "pipeline_tag": "object-detection"}
    header["tags"] = ["object-detection", "fssd", str(facts["model"])]
    classes = [str(name) for name in facts["classes"]]
    lines = ["---", yaml.safe_dump(header, sort_keys=False).strip(), "---", ""]
    lines += [f"# {address.rpartition('/')[2]}", ""]
    lines += [f"An object detector of the Python package fssd, for {len(classes)} classes.", ""]
    lines += ["```bash", 'pip install "fssd[hub]"', f"fssd detect {address} photo.jpg", "```", ""]
    lines += [
        "```python",
        "import fssd",
        "",
        f'found = fssd.Detector.load("{address}")("photo.jpg")',
        "```",
        "",
    ]
    lines += ["| | |", "|---|---|", f"| network | `{facts['model']}`, {weights:,} parameters |"]
    lines.append(f"| input | {size[0]} x {size[1]} pixels |")
    lines.append(f"| classes | {_cell(', '.join(classes))} |")
    for title, value in (*_origin(facts), *_metrics(facts), ("licence", licence or "not stated")):
        lines.append(f"| {title} | {_cell(value)} |")
    return "\n".join(lines) + "\n"


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


def _metrics(facts: Mapping[str, Any]) -> list[tuple[str, str]]:
    """What the training measured of this file, which final.safetensors does not have."""
    metrics = facts.get("metrics")
    if not isinstance(metrics, Mapping) or not isinstance(metrics.get("map"), (int, float)):
        return []
    images = f" on {metrics['images']:,} images" if isinstance(metrics.get("images"), int) else ""
    return [(f"mAP ({metrics.get('metric', 'voc12')})", f"{metrics['map']:.4f}{images}")]


def _without_paths(values: Mapping[str, Any]) -> dict[str, Any]:
    """The settings of a run without the folders of the machine that it ran on."""
    return {key: value for key, value in values.items() if key not in ("data", "images", "out", "weights")}


def _cell(text: str) -> str:
    return " ".join(text.replace("|", "\\|").split())

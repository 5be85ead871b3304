"""A model as a folder for others: the model file, the settings of its run, and a card of it."""

from __future__ import annotations

import shutil
from collections.abc import Mapping
from pathlib import Path
from typing import Any, NamedTuple

import yaml

from fssd.atomic import atomic_write
from fssd.config.run_files import CONFIG_FILE, FINAL_FILE, MODEL_FILES
from fssd.config.train_config import LOCAL
from fssd.config.yaml_files import read_mapping
from fssd.model.cost import parameters
from fssd.weights.checkpoint import load_model, model_file
from fssd.weights.model_card import CARD_FILE, stated_licence, write_card


class SharedModel(NamedTuple):
    """files: the names of those that were written. licence: what the card says; None if it says nothing."""

    files: list[str]
    licence: str | None


def write_shared_model(model: Path, folder: Path, *, address: str, licence: str | None = None) -> SharedModel:
    """Write a model, its card and, from the folder of a run, config.yaml.

    model: see `model_file`. folder: an existing one. address: hf://user/name, for the card's commands.
    licence: as hubs write it, such as apache-2.0 or cc-by-4.0; None takes that of the training's settings.
    Words of the author's own in the run's card are kept. Raises CheckpointError, ConfigError.
    """
    file = model_file(model)
    loaded = load_model(file)
    name = file.name if file.name in MODEL_FILES else FINAL_FILE
    shutil.copyfile(file, folder / name)
    names = [name, CARD_FILE]
    settings = file.parent / CONFIG_FILE
    if settings.is_file() and file.name in MODEL_FILES:
        values = _without_paths(read_mapping(settings))
        atomic_write(folder / CONFIG_FILE, yaml.safe_dump(values, sort_keys=False))
        names.append(CONFIG_FILE)
    network, licence = loaded.network, licence or stated_licence(loaded.facts)
    before = file.parent / CARD_FILE if settings.is_file() else None
    write_card(
        folder / CARD_FILE,
        loaded.facts,
        network.image_size,
        parameters(network),
        address,
        thresholds=vars(network.heads.thresholds),
        licence=licence,
        before=before,
    )
    return SharedModel(names, licence)


def _without_paths(values: Mapping[str, Any]) -> dict[str, Any]:
    """The settings of a run without the folders of the machine that it ran on."""
    return {key: value for key, value in values.items() if key not in LOCAL}

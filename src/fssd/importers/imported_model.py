"""Imported weights as a model file of this package."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from fssd.importers.foreign import Imported
from fssd.model.build import build_model
from fssd.model.network import Network
from fssd.weights.checkpoint import fill, save_model


def write_imported(
    target: Path, name: str, found: Imported, classes: tuple[str, ...], file: Path, facts: Mapping[str, Any]
) -> Network:
    """Write the network `name` with imported weights as a model file; returns it.

    file: what was imported, for messages. facts: further JSON values to store. Raises CheckpointError if the
    weights do not fit.
    """
    network = build_model(name, found.num_classes, **found.options)
    fill(network, found.tensors, file)
    save_model(target, network.state_dict(), network, classes, {"imported_from": file.name, **facts})
    return network

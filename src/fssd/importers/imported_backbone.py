"""An imported backbone as a file of weights to start from, whose header says what was imported."""

from __future__ import annotations

import json
from pathlib import Path

import safetensors
import safetensors.torch

from fssd.atomic import atomic_write
from fssd.errors import ConfigError
from fssd.importers.foreign import Imported

BACKBONE_FILE = "backbone.safetensors"
_HEADER = "fssd-backbone"  # not that of a model file: a backbone alone is no model


def require_room_for_backbone(folder: Path, name: str, file: Path) -> None:
    """Raise ConfigError if importing `name` from `file` would replace anything but the same import."""
    target = folder / BACKBONE_FILE
    if target.exists() and _mark(target) != _own_mark(name, file):
        reason = f"was not written by an earlier import of {name} from {file.name}"
        raise ConfigError(f"{target}: {reason}; choose another --out for this one")


def write_imported_backbone(folder: Path, name: str, found: Imported, file: Path) -> Path:
    """Write the backbone `name` of `file` into a folder; returns the file written."""
    plain = {key: tensor.contiguous() for key, tensor in found.tensors.items()}
    target = folder / BACKBONE_FILE
    atomic_write(target, safetensors.torch.save(plain, {_HEADER: _own_mark(name, file)}))
    return target


def _own_mark(name: str, file: Path) -> str:
    return json.dumps({"backbone": name, "imported_from": file.name}, sort_keys=True)


def _mark(target: Path) -> str | None:
    """What the header says; None for a file that no import wrote."""
    try:
        with safetensors.safe_open(target, framework="pt") as handle:
            return (handle.metadata() or {}).get(_HEADER)
    except (safetensors.SafetensorError, OSError):
        return None

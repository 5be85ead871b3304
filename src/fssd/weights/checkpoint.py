"""Model files: safetensors with one JSON document in the header. Nothing in them is executed or unpickled.

The JSON holds {"format": 1, "kind": "model" | "training", "model", "options", "classes", ...facts}; the
tensors are the network's state dict. A training state (`fssd.training.state`) is the same with more tensors.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any, NamedTuple

import safetensors
import safetensors.torch
import torch
from torch import Tensor, nn

from fssd.atomic import atomic_write
from fssd.errors import CheckpointError, ConfigError
from fssd.model.build import build_model
from fssd.model.network import Network
from fssd.zoo.models import MODELS, find_model

FORMAT = 1
HEADER = "fssd"  # one key, so that the bytes of a file do not depend on the order of a hash table
NEEDED = {"model": str, "options": dict, "own_backbone": bool, "classes": list}


class Loaded(NamedTuple):
    """A network with its weights, in evaluation mode, its class names, and the file's whole JSON document."""

    network: Network
    classes: tuple[str, ...]
    facts: dict[str, Any]


def save_model(
    path: Path,
    tensors: Mapping[str, Tensor],
    network: Network,
    classes: tuple[str, ...],
    facts: Mapping[str, Any],
) -> None:
    """Write a model file in one step: `path` holds the old or the new file, never a part.

    tensors: a state dict of `network`, which may be an averaged one. facts: JSON values to keep beside it.
    """
    document = {**describe(network, classes), "kind": "model", **facts}
    write_tensors(path, tensors, document)


def describe(network: Network, classes: tuple[str, ...]) -> dict[str, Any]:
    """What is needed to build the same network again."""
    return {
        "format": FORMAT,
        "model": network.spec.name,
        "options": network.spec.options,
        "own_backbone": network.spec.own_backbone,
        "classes": list(classes),
    }


def load_model(
    path: Path | str, backbone: nn.Module | None = None, device: str | torch.device = "cpu"
) -> Loaded:
    """Read a model file.

    path: a .safetensors file; a run's folder, of which best.safetensors is taken, else final.safetensors; or
    the name of a packaged model. Tensors in half precision are widened to the network's float32.
    backbone: the module to fill, for a model that was built with one of the user's own.

    Raises CheckpointError for a missing, damaged or foreign file, or one that does not fit together.
    """
    file = model_file(Path(path))
    tensors, facts = read_tensors(file, device)
    if facts.get("kind") != "model":
        raise CheckpointError(
            f"{file}: holds the state of a training, not a model; use best.safetensors beside it"
        )
    for key, kind in NEEDED.items():
        if not isinstance(facts.get(key), kind):
            raise CheckpointError(f"{file}: its header has no usable {key!r}; save the model again")
    classes = tuple(facts["classes"])
    options = dict(facts["options"])
    if facts["own_backbone"] and backbone is None:
        raise CheckpointError(f"{file}: was made with a backbone of its own; pass that module as backbone=")
    if backbone is not None:
        options["backbone"] = backbone
    try:
        network = build_model(facts["model"], len(classes), **options)
    except ConfigError as error:
        raise CheckpointError(f"{file}: its network cannot be built again: {error}") from error
    fill(network, tensors, file)
    return Loaded(network.to(device).eval(), classes, facts)


def model_file(path: Path) -> Path:
    """The model file that a path or a packaged model's name stands for. Raises CheckpointError if none."""
    path = find_model(path)
    if path.is_file():
        return path
    if path.is_dir():
        for name in ("best.safetensors", "final.safetensors"):
            if (path / name).is_file():
                return path / name
        hidden = ", or name the packaged model from another folder" if str(path) in MODELS else ""
        raise CheckpointError(
            f"{path}: this folder holds no best.safetensors or final.safetensors; train into it first{hidden}"
        )
    raise CheckpointError(f"{path}: there is no such model file; check the path")


def holds_run(folder: Path) -> bool:
    """Whether a training went on in a folder, so that no other model may be put beside its own."""
    return any((folder / name).exists() for name in ("best.safetensors", "last.safetensors", "config.yaml"))


def below(tensors: Mapping[str, Tensor], prefix: str) -> dict[str, Tensor]:
    """The tensors whose names begin with `prefix`, under the rest of their names."""
    return {name[len(prefix) :]: tensor for name, tensor in tensors.items() if name.startswith(prefix)}


def fill(module: nn.Module, tensors: Mapping[str, Tensor], file: Path) -> None:
    """Load a state dict that has to fit exactly. Raises CheckpointError naming what does not."""
    own = module.state_dict()
    for name, tensor in own.items():
        if name not in tensors:
            raise CheckpointError(f"{file}: has no tensor {name!r}; it belongs to another network")
        if tensors[name].shape != tensor.shape:
            raise CheckpointError(
                f"{file}: {name!r} has shape {tuple(tensors[name].shape)}, not {tuple(tensor.shape)}"
            )
    extra = sorted(set(tensors) - set(own))
    if extra:
        raise CheckpointError(
            f"{file}: has {len(extra)} tensors that the network lacks, such as {extra[0]!r}"
        )
    module.load_state_dict(dict(tensors))


def write_tensors(path: Path, tensors: Mapping[str, Tensor], document: Mapping[str, Any]) -> None:
    """Write tensors and a JSON document as one safetensors file, atomically; equal input, equal bytes."""
    plain = {name: tensor.detach().to("cpu").contiguous() for name, tensor in tensors.items()}
    atomic_write(path, safetensors.torch.save(plain, {HEADER: json.dumps(document, sort_keys=True)}))


def read_tensors(file: Path, device: str | torch.device = "cpu") -> tuple[dict[str, Tensor], dict[str, Any]]:
    """Tensors and JSON document of a file that `write_tensors` made. Raises CheckpointError."""
    try:
        with safetensors.safe_open(file, framework="pt", device=str(device)) as handle:
            header = (handle.metadata() or {}).get(HEADER)
            if header is None:
                raise CheckpointError(f"{file}: is a safetensors file, but not one of fssd's")
            tensors = {name: handle.get_tensor(name) for name in handle.keys()}  # noqa: SIM118 (not a dict)
        document = json.loads(header)
    except FileNotFoundError as error:
        raise CheckpointError(f"{file}: there is no such file; check the path") from error
    except (safetensors.SafetensorError, OSError, ValueError) as error:
        raise CheckpointError(f"{file}: is damaged or not a safetensors file ({error})") from error
    if not isinstance(document, dict):
        raise CheckpointError(f"{file}: its header is a {type(document).__name__}, not a JSON object")
    if document.get("format") != FORMAT:
        raise CheckpointError(
            f"{file}: has format {document.get('format')!r}; this version of fssd reads {FORMAT}"
        )
    return tensors, document

"""Model files: safetensors with one JSON document in the header. Nothing in them is executed or unpickled.

The JSON holds {"format": 2, "kind": "model" | "training", "model", "options", "classes", ...facts}; the
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
from fssd.config.run_files import BEST_FILE, CONFIG_FILE, FINAL_FILE, MODEL_FILES, STATE_FILE
from fssd.errors import CheckpointError, ConfigError
from fssd.model.build import build_model
from fssd.model.designs import DESIGNS, OF_BACKBONE, find_design
from fssd.model.network import Network
from fssd.necks.fssd import NARROW
from fssd.weights.content import BLANK, KEY, damaged, exported, is_intact, read_content, seal
from fssd.zoo.models import MODELS, find_model

FORMAT = 2
HEADER = "fssd"  # safetensors stores keys in hash order; with a single key equal content gives equal bytes
READABLE = {torch.float16, torch.bfloat16, torch.float32, torch.float64, torch.bool}
READABLE |= {torch.uint8, torch.int8, torch.int16, torch.int32, torch.int64}
NEEDED = {"model": str, "options": dict, "own_backbone": bool, "classes": list}


class Loaded(NamedTuple):
    """A network with its weights in evaluation mode, its class names, and the file's JSON document."""

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
    """Write a model file atomically.

    tensors: a state dict of `network`, for example of averaged weights. facts: further JSON values to store.
    """
    write_tensors(path, tensors, {**describe(network, classes), "kind": "model", **facts})


def describe(network: Network, classes: tuple[str, ...]) -> dict[str, Any]:
    """The JSON values from which the same network can be rebuilt."""
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
    """Load a model file; half-precision tensors are widened to float32.

    path: see `model_file`. backbone: the module to fill, for a model whose backbone was passed as a module.
    Raises CheckpointError for a file that is missing, damaged, foreign or inconsistent.
    """
    file = model_file(Path(path))
    tensors, facts = read_model(file)
    for key, kind in NEEDED.items():
        if not isinstance(facts.get(key), kind):
            raise CheckpointError(f"{file}: its header has no usable {key!r}; save the model again")
    classes, options = tuple(facts["classes"]), dict(facts["options"])
    if not all(isinstance(name, str) for name in classes):
        raise CheckpointError(f"{file}: its classes are no list of names; save the model again")
    if backbone is not None:
        options["backbone"] = backbone
    elif facts["own_backbone"]:
        raise CheckpointError(f"{file}: was made with a backbone of its own; pass that module as backbone=")
    try:
        network = build_model(facts["model"], len(classes), **options)
    except (ConfigError, TypeError, ValueError) as error:  # of options that are of another type
        raise CheckpointError(f"{file}: its network cannot be rebuilt: {error}") from error
    fill(network, tensors, file)
    return Loaded(network.to(device).eval(), classes, facts)


def model_file(path: Path) -> Path:
    """The model file of a path: a file, a run's folder (its best, else its final model), or a packaged name.

    Raises CheckpointError if there is none.
    """
    path = find_model(path)
    if path.is_file():
        return path
    if not path.is_dir():
        raise CheckpointError(f"{path}: there is no such model file; check the path")
    for name in MODEL_FILES:
        if (path / name).is_file():
            return path / name
    tip = ", or name the packaged model from another folder" if str(path) in MODELS else ""
    raise CheckpointError(f"{path}: holds no {' or '.join(MODEL_FILES)}; train into it first{tip}")


def holds_run(folder: Path) -> bool:
    """Whether the folder belongs to a training run, so that no other model may be written to it."""
    return any((folder / name).exists() for name in (BEST_FILE, STATE_FILE, CONFIG_FILE))


def require_room(folder: Path, mark: str) -> None:
    """Raise ConfigError unless a model can be written to a folder as its final one.

    That of an earlier call of the same kind is replaced. mark: the fact that such a model has.
    """
    if holds_run(folder):
        problem = "holds a training, whose models would be taken for this one or be replaced"
        raise ConfigError(f"{folder}: {problem}; choose another folder")
    file = folder / FINAL_FILE
    if file.exists() and mark not in read_tensors(file)[1]:
        raise ConfigError(f"{folder}: holds another model; choose a folder of its own")


def is_model_folder(folder: Path) -> bool:
    """Whether a MODEL that is this folder means a model: that of a run, or one that was written into it."""
    return holds_run(folder) or (folder / FINAL_FILE).exists()


def below(tensors: Mapping[str, Tensor], prefix: str) -> dict[str, Tensor]:
    """The tensors whose names begin with `prefix`, named without it."""
    return {name[len(prefix) :]: tensor for name, tensor in tensors.items() if name.startswith(prefix)}


def fill(module: nn.Module, tensors: Mapping[str, Tensor], file: Path) -> None:
    """Load a state dict that must match exactly. Raises CheckpointError that names the first mismatch."""
    own = module.state_dict()
    for name, tensor in own.items():
        if name not in tensors:
            raise CheckpointError(f"{file}: has no tensor {name!r}; it belongs to another network")
        check_shape(file, name, tensors[name], tensor)
    extra = sorted(set(tensors) - set(own))
    if extra:
        raise CheckpointError(f"{file}: has {len(extra)} tensors too many, such as {extra[0]!r}")
    module.load_state_dict(dict(tensors))


def check_shape(file: Path, name: str, given: Tensor, own: Tensor) -> None:
    """Raise CheckpointError if a tensor of the file does not have the shape of the network's."""
    has, needs = tuple(given.shape), tuple(own.shape)
    if has != needs:
        raise CheckpointError(f"{file}: {name!r} has shape {has}, the network needs {needs}")


def check_plain(file: Path, name: str, tensor: Tensor) -> None:
    """Raise CheckpointError for a tensor that is not simply real numbers in memory."""
    kind = "quantised" if tensor.is_quantized else "on no device (meta)" if tensor.is_meta else ""
    if tensor.layout is not torch.strided:
        kind = "sparse"
    elif not kind and tensor.dtype not in READABLE:
        kind = str(tensor.dtype).removeprefix("torch.")
    if kind:
        raise CheckpointError(f"{file}: {name!r} is {kind}; save it as plain floating-point numbers")


def check_finite(file: Path, name: str, tensor: Tensor) -> None:
    """Raise CheckpointError if a tensor of the file has NaN or infinity."""
    if not tensor.isfinite().all():
        reason = "its training diverged, or the file is damaged"
        raise CheckpointError(f"{file}: {name!r} has numbers that are not finite; {reason}")


def write_tensors(path: Path, tensors: Mapping[str, Tensor], document: Mapping[str, Any]) -> None:
    """Write tensors and JSON values as one safetensors file, atomically; equal input gives equal bytes."""
    plain = {name: tensor.detach().to("cpu").contiguous() for name, tensor in tensors.items()}
    header = json.dumps({**document, KEY: BLANK}, sort_keys=True)
    atomic_write(path, seal(safetensors.torch.save(plain, {HEADER: header})))


def write_facts(file: Path, facts: Mapping[str, Any]) -> None:
    """Write JSON values into the document of a model file, whose weights stay as they are; None removes."""
    tensors, document = read_model(file)
    kept = {
        name: value for name, value in {**document, **facts}.items() if name not in facts or value is not None
    }
    write_tensors(file, tensors, kept)


def read_model(file: Path) -> tuple[dict[str, Tensor], dict[str, Any]]:
    """`read_tensors` of a model. Raises CheckpointError, also for a training state, NaN and infinity."""
    tensors, facts = read_tensors(file)
    if facts.get("kind") != "model":
        raise CheckpointError(f"{file}: holds a training state; use {BEST_FILE} beside it")
    for name, tensor in tensors.items():
        check_plain(file, name, tensor)
        check_finite(file, name, tensor)
    return tensors, facts


def read_tensors(file: Path) -> tuple[dict[str, Tensor], dict[str, Any]]:
    """Tensors and JSON document of a file from `write_tensors`. Raises CheckpointError.

    The file is read whole first, so that a later change of it cannot reach the tensors.
    """
    content = read_content(file)
    try:
        tensors = safetensors.torch.load(content)
        length = int.from_bytes(content[:8], "little")
        outer = json.loads(content[8 : 8 + length])
        header = (outer.get("__metadata__") or {}).get(HEADER)
        if header is None:
            raise CheckpointError(f"{file}: is a safetensors file, but not one of fssd's")
        if not is_intact(content):
            raise CheckpointError(f"{file}: is damaged or was changed after it was written; copy it again")
        document = json.loads(header)
    except (safetensors.SafetensorError, ValueError, KeyError, RecursionError) as error:
        raise exported(file, content) or damaged(file, "a safetensors file", str(error)) from error
    if not isinstance(document, dict):
        raise CheckpointError(f"{file}: its header is a {type(document).__name__}, not a JSON object")
    if document.get("format") not in (1, FORMAT):
        raise CheckpointError(
            f"{file}: has format {document.get('format')!r}; this fssd reads 1 and {FORMAT}"
        )
    document.pop(KEY, None)
    return tensors, document if document["format"] == FORMAT else _from_format_1(document)


def _from_format_1(document: dict[str, Any]) -> dict[str, Any]:
    """The document as this version would have written it.

    Then, light FSSDs were all of the narrow form, BlitzNet's mean stayed with another backbone, and `light`
    meant nothing to YOLOv2.
    """
    name, options = document.get("model"), document.get("options")
    try:
        design = find_design(name, options) if isinstance(name, str) and isinstance(options, dict) else None
    except ConfigError:  # building the network says what is wrong
        design = None
    if design is None or not isinstance(options, dict):
        return {**document, "format": FORMAT}
    own = DESIGNS[str(name)].options if name in DESIGNS and "backbone" in options else {}
    options = {**{key: own[key] for key in OF_BACKBONE if key in own}, **options}
    if design.neck in ("fssd", "fssd.necks.fssd:FSSD") and design.light:
        options["variant"] = NARROW
    if design.neck == "yolov2":
        options.pop("light", None)
    return {**document, "options": options, "format": FORMAT}

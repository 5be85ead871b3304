"""Starting weights: an ImageNet backbone, or a trained SSD ("FSSD+", paper 3.2)."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import safetensors.torch
import torch
from torch import Tensor, nn

from fssd.backbones.backbone import Backbone
from fssd.errors import CheckpointError, ConfigError
from fssd.model.network import Network
from fssd.weights.checkpoint import below, check_shape, model_file, read_model

# The layers that an FSSD shares with the SSD it starts from (released FSSD networks load them by name).
SHARED_EXTRAS = ("conv6_1", "conv6_2", "conv7_1", "conv7_2")


def load_backbone(network: Network, file: Path | None) -> int:
    """Fill the backbone with pretrained weights and return the number of tensors copied.

    file: safetensors or PyTorch, with names that `Backbone.adapt` knows. Layers that the file may lack
    (fc6 and fc7) keep their fresh weights. None takes the weights of an installed package, if there are any.
    Raises ConfigError if no weights are found, CheckpointError if they do not fit.
    """
    backbone = network.backbone
    known = backbone if isinstance(backbone, Backbone) else None
    if file is None and known is not None and not network.spec.own_backbone:
        file = known.packaged_weights()
    if file is None:
        raise ConfigError(
            f"{network.spec.name} has no ImageNet weights in a package; name a file with --weights, or use"
            " --start nothing"
        )
    tensors = read_state_dict(file)
    if known is None:
        return _fill_known(backbone, tensors, file)
    return _fill_known(backbone, known.adapt(tensors), file, known.may_lack)


def load_ssd(network: Network, file: Path) -> int:
    """Fill the backbone and the shared extra layers from a trained SSD; return the number of tensors copied.

    The rest (fusion, pyramid, heads) keeps its fresh weights. Raises CheckpointError if it does not fit.
    """
    file = model_file(file)
    tensors, facts = read_model(file)
    model = facts.get("model")
    if not str(model).startswith("ssd"):
        raise CheckpointError(f"{file}: is a {model}, not an SSD; name a trained ssd model to start from")
    taken = _fill_known(network.backbone, below(tensors, "backbone."), file)
    extras = getattr(network.neck, "extras", None)
    if isinstance(extras, nn.ModuleDict):
        given = below(tensors, "neck.extras.")
        shared = {key: given[key] for key in given if key.partition(".")[0] in SHARED_EXTRAS}
        taken += _fill_known(extras, shared, file, tuple(extras))
    return taken


def read_state_dict(file: Path, wrappers: tuple[str, ...] = ()) -> dict[str, Tensor]:
    """Tensors by name from a safetensors or PyTorch file, without DataParallel's prefix "module.".

    wrappers: keys under which the state dict may lie. Nothing in the file is executed.
    Raises CheckpointError for a file that is missing, damaged, or holds anything but tensors.
    """
    if not file.is_file():
        raise CheckpointError(f"{file}: there is no such weights file; check the path")
    try:
        if is_safetensors(file):
            return dict(safetensors.torch.load_file(file))
        with file.open("rb") as handle:  # with a path, torch would judge by the suffix
            loaded: Any = torch.load(handle, map_location="cpu", weights_only=True)
    except safetensors.SafetensorError as error:
        raise CheckpointError(f"{file}: is damaged or not a safetensors file ({error})") from error
    except Exception as error:  # a damaged pickle raises many types, some without a message
        reason = (str(error) or type(error).__name__).splitlines()[0]
        raise CheckpointError(f"{file}: cannot be read as weights ({reason})") from error
    for wrapper in wrappers:
        if isinstance(loaded, Mapping) and isinstance(loaded.get(wrapper), Mapping):
            loaded = loaded[wrapper]
    if not isinstance(loaded, Mapping) or not all(isinstance(v, Tensor) for v in loaded.values()):
        raise CheckpointError(f"{file}: holds no dict of tensors; save a state dict")
    return {str(key).removeprefix("module."): tensor for key, tensor in loaded.items()}


def is_safetensors(file: Path) -> bool:
    """Whether the content, not the name, is that of safetensors: the length of a JSON header comes first."""
    with file.open("rb") as handle:
        return handle.read(9)[4:] == b"\0\0\0\0{"


def _fill_known(
    module: nn.Module, tensors: Mapping[str, Tensor], file: Path, may_lack: tuple[str, ...] = ()
) -> int:
    """Copy the file's tensors into `module` and count them; only the layers `may_lack` may be missing."""
    taken = 0
    for key, own in module.state_dict().items():
        if key.endswith("num_batches_tracked"):
            continue
        if key in tensors:
            check_shape(file, key, tensors[key], own)
            own.copy_(tensors[key])
            taken += 1
        elif key.partition(".")[0] not in may_lack:
            raise CheckpointError(f"{file}: has no {key!r}; these weights are of another network")
    return taken
